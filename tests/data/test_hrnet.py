"""HRNet-W32: the published size and names, files in and out, and what a wrong file is told."""

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dposer.data.hrnet import DEVIATION, INPUT, MEAN, HRNet
from dposer.errors import InputError


@cache
def shapes() -> dict[str, Tensor]:
    with torch.device("meta"):
        return HRNet().state_dict()


@cache
def weights() -> dict[str, Tensor]:
    """One number for each tensor, all in one storage, so that files are small."""
    numbers = torch.arange(len(shapes())) / 1000
    return {name: numbers[i].expand(tensor.shape).to(tensor.dtype) for i, (name, tensor) in enumerate(shapes().items())}


def test_the_size_is_the_published_one() -> None:
    trained = [tensor.numel() for name, tensor in shapes().items() if name.endswith(("weight", "bias"))]
    assert sum(trained) == 28_536_080  # of 17 joints 33 more: "28.5 M"


def test_names_and_shapes_are_those_of_the_public_files() -> None:
    found = {name: tuple(tensor.shape) for name, tensor in shapes().items()}
    assert {
        "conv1.weight": (64, 3, 3, 3),
        "bn2.num_batches_tracked": (),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer1.3.conv3.weight": (256, 64, 1, 1),
        "transition1.0.0.weight": (32, 256, 3, 3),
        "transition1.1.0.0.weight": (64, 256, 3, 3),
        "stage2.0.branches.1.3.bn2.running_var": (64,),
        "transition2.2.0.0.weight": (128, 64, 3, 3),
        "stage3.3.fuse_layers.0.2.0.weight": (32, 128, 1, 1),
        "stage3.3.fuse_layers.2.0.0.0.weight": (32, 32, 3, 3),
        "stage3.3.fuse_layers.2.0.1.1.bias": (128,),
        "transition3.3.0.1.weight": (256,),
        "stage4.1.fuse_layers.3.0.2.0.weight": (256, 32, 3, 3),
        "stage4.2.fuse_layers.0.3.0.weight": (32, 256, 1, 1),
        "final_layer.weight": (16, 32, 1, 1),
        "final_layer.bias": (16,),
    }.items() <= found.items()
    assert not any(name.startswith(("stage4.2.fuse_layers.1", "transition2.0", "transition2.1", "stage2.1")) for name in found)
    assert len(found) == 1754


def test_the_bare_file_loads_to_the_letter(tmp_path: Path) -> None:
    stored, path = weights(), tmp_path / "weights.pth"
    torch.save(stored, path, _use_new_zipfile_serialization=False)  # as old as the authors' file
    network = HRNet.from_file(path)
    assert not network.tuned
    assert not network.training
    found = network.state_dict()
    assert found.keys() == stored.keys()
    for name in ("conv1.weight", "stage3.2.branches.1.0.bn1.running_mean", "final_layer.bias"):
        assert torch.equal(found[name], stored[name])


def test_crops_are_normalised_and_maps_are_a_quarter_as_wide(tmp_path: Path) -> None:
    """Without weights but for the last bias, maps are that bias."""
    numbers = torch.tensor([0.0, 1.0])
    stored = {name: numbers[int("running_var" in name)].expand(tensor.shape) for name, tensor in shapes().items() if tensor.ndim}
    torch.save({"net": stored | {"final_layer.bias": torch.arange(16.0)}}, tmp_path / "fine_HRNet.pt")  # without counters of batches
    network = HRNet.from_file(tmp_path / "fine_HRNet.pt")
    assert network.tuned
    seen: list[Tensor] = []
    network.register_forward_pre_hook(lambda _, crops: seen.append(crops[0]))
    image = (torch.tensor(MEAN) + torch.tensor([0.0, 1.0, -1.0]) * torch.tensor(DEVIATION))[:, None, None].expand(1, 3, INPUT, INPUT)
    maps = network.heatmaps(image)
    assert maps.shape == (1, 16, 64, 64)
    assert torch.equal(maps, torch.arange(16.0)[None, :, None, None].expand_as(maps))
    torch.testing.assert_close(seen[0], torch.tensor([0.0, 1.0, -1.0])[:, None, None].expand(1, 3, INPUT, INPUT))
    with pytest.raises(InputError, match=r"\(1, 3, 256, 256\), expected \(B, 3, 255, 255\)"):
        network.heatmaps(torch.zeros(1, 3, 256, 256))


def test_wrong_files_are_told_in_one_line(tmp_path: Path) -> None:
    good, wider = weights(), {"transition1.0.0.weight": torch.zeros(48, 256, 3, 3)}
    files: dict[str, tuple[object, str]] = {
        "coco.pth": ({"final_layer.weight": torch.zeros(17, 32, 1, 1)}, "17 joints .those of COCO."),
        "wide.pth": (good | wider, r"transition1.0.0.weight is \(48, 256, 3, 3\), expected \(32, 256, 3, 3\)"),
        "another.pth": ({"backbone.conv1.weight": torch.zeros(1)}, "backbone.conv1.weight is not known"),
        "list.pth": ([torch.zeros(3)], "no table of named tensors"),
    }
    for name, (content, line) in files.items():
        torch.save(content, tmp_path / name)
        with pytest.raises(InputError, match=f"{name}.*{line}") as told:
            HRNet.from_file(tmp_path / name)
        assert "\n" not in str(told.value)
    (tmp_path / "pointer.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 115014873\n")
    with pytest.raises(InputError, match="git lfs pull"):
        HRNet.from_file(tmp_path / "pointer.pt")
