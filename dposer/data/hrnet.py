r"""HRNet-W32, the detector of 2D poses whose heatmaps DiffPose lifts, for weights that users bring.

Branches at 1/4, 1/8, 1/16 and 1/32 of the picture, of 32, 64, 128 and 256 channels, run side by side. After every four residual blocks each
takes from all others,

.. math:: x_i \leftarrow \mathrm{relu}\Big(x_i + \sum_{j \ne i} f_{ij}(x_j)\Big),

where :math:`f_{ij}` is |i - j| convolutions of stride 2 on the way down, and on the way up one of kernel 1, then the nearest cell. What the
finest branch ends with becomes one map a joint. Batch normalisation follows every convolution but the last.

Source: Sun et al., CVPR 2019 (arXiv 1902.09212). Parameters are named as in the authors' files.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from dposer.body.skeleton import HEATMAP_16
from dposer.errors import InputError
from dposer.files import PathLike, existing_file, load_tensors

INPUT = 255
"""Pixels of the side of a crop."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of red, green and blue in ImageNet: what pictures are normalised by."""
WIDTHS = (32, 64, 128, 256)
"""Channels of the branches, the finest first."""
MODULES = (1, 4, 3)
"""Exchanges between the branches when there are two, three and four of them."""
BLOCKS = 4
"""Residual blocks of a branch between two exchanges."""

_STEM, _EXPANSION = 64, 4
_WHAT = "weights of HRNet-W32 for the 16 joints of MPII (pose_hrnet_w32_256x256.pth, fine_HRNet.pt)"
_POINTER = b"version https://git-lfs"
_MAX_BATCH = 32
"""Crops that the network sees at once."""


class HRNet(nn.Module):
    """Normalised crops (B, 3, 255, 255) → heatmaps (B, joints, 64, 64).

    Args:
        joints: how many maps.
    """

    tuned: bool = False
    """The weights were tuned to Human3.6M, so that channels are those of :data:`~dposer.body.skeleton.HEATMAP_16`; else they are MPII's,
    which :func:`~dposer.data.heatmap_crops.of_mpii` turns into these."""

    def __init__(self, joints: int = len(HEATMAP_16.joints)) -> None:
        super().__init__()
        self.conv1, self.bn1 = _convolution(3, _STEM, 3, 2), nn.BatchNorm2d(_STEM)
        self.conv2, self.bn2 = _convolution(_STEM, _STEM, 3, 2), nn.BatchNorm2d(_STEM)
        wide = _EXPANSION * _STEM
        self.layer1 = nn.Sequential(*(_Bottleneck(_STEM if block == 0 else wide, _STEM) for block in range(BLOCKS)))
        self.transition1 = _transition((wide,), WIDTHS[:2])
        self.stage2 = nn.Sequential(*(_Exchange(WIDTHS[:2]) for _ in range(MODULES[0])))
        self.transition2 = _transition(WIDTHS[:2], WIDTHS[:3])
        self.stage3 = nn.Sequential(*(_Exchange(WIDTHS[:3]) for _ in range(MODULES[1])))
        self.transition3 = _transition(WIDTHS[:3], WIDTHS)
        self.stage4 = nn.Sequential(*(_Exchange(WIDTHS, finest=module == MODULES[2] - 1) for module in range(MODULES[2])))
        self.final_layer = nn.Conv2d(WIDTHS[0], joints, 1)

    def forward(self, crops: Tensor) -> Tensor:
        """Heatmaps (B, joints, 64, 64) of normalised crops (B, 3, 255, 255)."""
        x = self.bn1(self.conv1(crops)).relu()
        x = self.layer1(self.bn2(self.conv2(x)).relu())
        branches = [x]
        for transition, stage in (
            (self.transition1, self.stage2),
            (self.transition2, self.stage3),
            (self.transition3, self.stage4),
        ):
            branches = stage([enter(branches[min(i, len(branches) - 1)]) for i, enter in enumerate(transition)])
        return self.final_layer(branches[0])

    @torch.inference_mode()
    def heatmaps(self, images: Tensor, max_batch: int = _MAX_BATCH) -> Tensor:
        """Heatmaps (B, joints, 64, 64) of crops (B, 3, 255, 255), RGB in [0, 1]; raw: heights of about 1 at sure joints, some below 0.

        Args:
            max_batch: crops at once; less takes less memory.

        Raises:
            InputError: crops of another shape.
        """
        if images.ndim != 4 or images.shape[1:] != (3, INPUT, INPUT):
            raise InputError(f"crops of shape {tuple(images.shape)}, expected (B, 3, {INPUT}, {INPUT}); cut them with heatmap_crops.crops")
        weight = self.conv1.weight
        mean, deviation = (torch.tensor(values, device=weight.device)[:, None, None] for values in (MEAN, DEVIATION))
        maps = [self(((some.to(weight.device) - mean) / deviation).to(weight.dtype)) for some in images.split(max_batch)]
        return torch.cat(maps)

    @classmethod
    def from_file(cls, path: PathLike, device: torch.device | str | None = None) -> Self:
        """The authors' file for MPII, or one with the weights under ``net``, as DiffPose has for Human3.6M; in evaluation mode.

        Raises:
            InputError: missing, damaged, or weights of another network or of other joints.
        """
        found = load_tensors(_no_pointer(path), _WHAT)
        tuned = isinstance(found, Mapping) and isinstance(found.get("net"), Mapping)
        with torch.device("meta"):
            network = cls()
        network.load_state_dict(_checked(found["net"] if tuned else found, network.state_dict(), Path(path)), assign=True)
        network.tuned = tuned
        return network.to(device or "cpu").eval().requires_grad_(False)


# ---- parts -------------------------------------------------------------------------------------------------------------


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def _unit(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, *after: nn.Module) -> nn.Sequential:
    return nn.Sequential(_convolution(inputs, outputs, kernel, stride), nn.BatchNorm2d(outputs), *after)


class _Bottleneck(nn.Module):
    """relu(s(x) + 1×1 · 3×3 · 1×1), four times as wide at its end as inside; s is a convolution where the width changes."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        outputs = _EXPANSION * width
        self.conv1, self.bn1 = _convolution(inputs, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _convolution(width, width, 3), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = _convolution(width, outputs, 1), nn.BatchNorm2d(outputs)
        self.downsample = nn.Identity() if inputs == outputs else _unit(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        return (self.bn3(self.conv3(y)) + self.downsample(x)).relu()


class _Basic(nn.Module):
    """relu(x + 3×3 · 3×3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _convolution(width, width, 3), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _convolution(width, width, 3), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return (self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())) + x).relu()


class _Exchange(nn.Module):
    """Blocks in every branch, then the sum over branches; with ``finest``, only the first branch goes on."""

    def __init__(self, widths: Sequence[int], finest: bool = False) -> None:
        super().__init__()
        count = len(widths)
        self.branches = nn.ModuleList(nn.Sequential(*(_Basic(width) for _ in range(BLOCKS))) for width in widths)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_between(widths, source, target) for source in range(count)) for target in range(1 if finest else count)
        )

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        found = [blocks(x) for blocks, x in zip(self.branches, branches, strict=True)]
        return [_added(row, found).relu() for row in self.fuse_layers]  # type: ignore[arg-type]  # rows are lists of modules


def _added(row: nn.ModuleList, branches: list[Tensor]) -> Tensor:
    """Σ_j f_j(x_j)."""
    return torch.stack([layer(x) for layer, x in zip(row, branches, strict=True)]).sum(0)


def _between(widths: Sequence[int], source: int, target: int) -> nn.Module:
    """From one branch to another; the width changes with the last convolution."""
    if source == target:
        return nn.Identity()
    if source > target:
        return _unit(widths[source], widths[target], 1, 1, nn.Upsample(scale_factor=2 ** (source - target)))
    down = [_unit(widths[source], widths[source], 3, 2, nn.ReLU()) for _ in range(target - source - 1)]
    return nn.Sequential(*down, _unit(widths[source], widths[target], 3, 2))


def _transition(before: Sequence[int], after: Sequence[int]) -> nn.ModuleList:
    """Into the branches of the next stage: those there are, and one more from the coarsest."""
    kept = [nn.Identity() if a == b else _unit(a, b, 3, 1, nn.ReLU()) for a, b in zip(before, after, strict=False)]
    return nn.ModuleList([*kept, nn.Sequential(_unit(before[-1], after[-1], 3, 2, nn.ReLU()))])


# ---- files -------------------------------------------------------------------------------------------------------------


def _no_pointer(path: PathLike) -> Path:
    path = existing_file(path, _WHAT)
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise InputError(f"{path}: a pointer of Git LFS, expected {_WHAT}; fetch the file itself with git lfs pull")
    return path


def _checked(found: Any, expected: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """float32 weights of these names and shapes; counters of batches, which evaluation does not use, may be missing."""
    named = isinstance(found, Mapping) and found and all(isinstance(value, Tensor) for value in found.values())
    if not named:
        raise InputError(f"{path}: no table of named tensors, expected {_WHAT}; save the network's state_dict")
    weights = {str(name).removeprefix("module."): value for name, value in found.items()}
    last = weights.get("final_layer.weight", expected["final_layer.weight"])
    if len(last) != len(HEATMAP_16.joints):
        kind = f"{len(last)} joints{' (those of COCO)' if len(last) == 17 else ''}"
        raise InputError(f"{path}: of {kind}, expected {_WHAT}; take the file for MPII")
    counters = {name: torch.zeros((), dtype=torch.long) for name in expected if name.endswith("num_batches_tracked")}
    if wrong := sorted(expected.keys() ^ (weights | counters).keys()):
        state = "is missing" if wrong[0] in expected else "is not known"
        raise InputError(f"{path}: {wrong[0]} {state} ({len(wrong)} such names), expected {_WHAT}; is it another network?")
    for name, tensor in expected.items():
        if name not in counters and weights[name].shape != tensor.shape:
            shapes = f"{tuple(weights[name].shape)}, expected {tuple(tensor.shape)}"
            raise InputError(f"{path}: {name} is {shapes}: not {_WHAT}; is it of another width?")
    floats = {name: value.float() for name, value in weights.items() if name not in counters}
    if bad := next((name for name, value in floats.items() if not bool(value.isfinite().all())), None):
        raise InputError(f"{path}: {bad} holds NaN or infinity, expected finite weights; fetch the file again")
    return floats | counters
