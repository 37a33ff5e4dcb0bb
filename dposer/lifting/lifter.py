"""The public face: 2D keypoints of one person in, hypotheses of the 3D pose out."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dposer.assets import asset
from dposer.body.skeleton import HEATMAP_16
from dposer.data.heatmap_mixtures import CELLS, COLUMNS, hidden_heatmaps
from dposer.errors import InputError
from dposer.files import PathLike
from dposer.geometry.lens import Lens
from dposer.lifting.checkpoint import LiftingCheckpoint, load_lifting
from dposer.lifting.config import LiftingConfig
from dposer.lifting.hypotheses import AGGREGATES, solve_root
from dposer.lifting.inputs import check_plausible, fill_gaps
from dposer.lifting.model import MAX_BATCH, LiftingModel, Progress
from dposer.lifting.noise import Noise
from dposer.lifting.observed import observe
from dposer.lifting.refiners import Refined, Refiner
from dposer.lifting.windows import clip_starts, gather, merge, overlapping_starts

SHIPPED = {
    method: f"lifting-{method}-open.safetensors"
    for method in ("mixste", "d3dp", "ddhpose", "diffhpe", "diffhpe-2d", "graformer", "cross-channel", "single-graph", "diffpose")
}
"""Weights that come with the library, trained on the open benchmark."""


_DISTANCE = 2 * math.sqrt(2 / math.pi)
"""Mean length of a vector of three independent N(0, 1)."""


@dataclass(frozen=True)
class Lifted:
    """F frames, H hypotheses; metres, axes of the camera (x right, y down, z forward)."""

    hypotheses: Tensor
    """(H, F, J, 3) relative to the root, which is zero."""
    poses: Tensor
    """(F, J, 3) relative to the root: the hypotheses made into one."""
    root: Tensor
    """(F, 3) where the root is: as given, or solved from the keypoints and the lens."""
    spread: Tensor
    """(F, J) root mean square distance of the hypotheses from their mean."""
    steps: int
    """Of the sampler, that the method took."""
    aggregate: str
    """How ``poses`` were made."""
    filled: Tensor
    """(F, J) bool: keypoints that were missing and were filled in."""
    notes: tuple[str, ...]
    """What a user should know."""


class Lifter:
    """A trained lifting method.

    >>> from dposer.lifting import Lifter
    >>> lifted = Lifter.from_pretrained("ddhpose")(keypoints, size=(1920, 1080), hypotheses=20, steps=10)
    >>> lifted.poses  # (F, 17, 3) metres

    Args:
        checkpoint: its settings and weights.
    """

    def __init__(self, checkpoint: LiftingCheckpoint, device: torch.device | str | None = None) -> None:
        self.checkpoint = checkpoint
        self.model: LiftingModel = checkpoint.model(device)
        self.device = torch.device(device or "cpu")

    @classmethod
    def from_pretrained(cls, name_or_path: PathLike = "ddhpose", device: torch.device | str | None = None) -> "Lifter":
        """A shipped method by its name (:data:`SHIPPED`), or a file.

        Raises:
            InputError: neither, or a broken file.
        """
        if str(name_or_path) in SHIPPED:
            return cls(load_lifting(asset("pretrained_models", SHIPPED[str(name_or_path)])), device)
        if not Path(name_or_path).exists():
            raise InputError(f"{name_or_path}: neither a file nor one of {', '.join(SHIPPED)}; check the path")
        return cls(load_lifting(name_or_path), device)

    @property
    def config(self) -> LiftingConfig:
        return self.checkpoint.config

    def refined(self, refiner: "Lifter", error: float | None = None) -> "Lifter":
        """The same, every pose of it refined by a cross-channel or single-graph method.

        Args:
            error: standard deviation of this lifter's errors along an axis, metres, by which the refiner sets how far its steps go back;
                None: what it would be if errors were Gaussian, from the MPJPE on validation subjects that its checkpoint tells, and
                else the refiner's own.

        Raises:
            InputError: not a refiner, or one of other joints.
        """
        if not isinstance(refiner.model, Refiner):
            raise InputError(f"{refiner.config.method} refines nothing, expected a cross-channel or single-graph method")
        known = self.checkpoint.provenance.get("validation_mpjpe_mm")
        if error is None and isinstance(known, int | float):
            error = known / 1000 / _DISTANCE
        both = Lifter(self.checkpoint, self.device)
        both.model = Refined(both.model, refiner.model, error).eval()
        return both

    @torch.no_grad()
    def __call__(
        self,
        keypoints: Tensor | np.ndarray,
        size: tuple[float, float],
        lens: Lens | None = None,
        root: Tensor | None = None,
        *,
        hypotheses: int = 20,
        steps: int | None = None,
        aggregate: str = "auto",
        overlap: int = 0,
        max_batch: int = MAX_BATCH,
        seed: int = 0,
        name: str = "",
        progress: Progress | None = None,
        mixture: np.ndarray | None = None,
        heatmaps: np.ndarray | None = None,
    ) -> Lifted:
        """Lift a clip of any length.

        Args:
            keypoints: (F, J, 2) pixels or (F, J, 3) with confidence, in the layout and at the rate of :attr:`config`; missing ones
                (confidence 0, NaN) are filled in.
            size: width and height of the picture.
            lens: of the camera, in pixels; None: in the middle, as long as the diagonal, which only the root and "joint", "limb" and
                "soft" aggregates depend on.
            root: (F, 3) its true path, if known.
            hypotheses, steps: H, K. A regressor has one of each; None: as many steps as serve the method.
            aggregate: "auto" (the mean) or a key of :data:`~dposer.lifting.hypotheses.AGGREGATES`.
            overlap: frames by which windows overlap; they are blended there. 0: as published.
            max_batch: sequences that the network sees at once.
            seed, name: decide the noise, together with the place of a window in its clip.
            progress: told (done, total) sequences.
            mixture: (F, J, M, 5) the keypoints as mixtures of Gaussians (:mod:`dposer.data.gmm`), for methods that see those; else they
                are made of keypoints and confidences.
            heatmaps: (F, 16, 10) or (F, 16, 4096) what the keypoints were found in (:mod:`dposer.data.heatmap_mixtures`), for methods
                that see those; else they are made of keypoints and confidences. Joints that are missing are taken out of them.

        Raises:
            InputError: wrong shapes, numbers that are no pixels, no person.
        """
        keypoints, filled = self._whole(keypoints)
        points = keypoints[..., :2]
        frames, length = self.config.network.frames, len(points)
        if mixture is not None and (mixture.ndim, *mixture.shape[:2], mixture.shape[-1]) != (4, *points.shape[:2], 5):
            raise InputError(f"mixture of shape {mixture.shape}, expected ({', '.join(map(str, points.shape[:2]))}, components, 5)")
        if heatmaps is not None and self.config.inputs != "heatmap":
            raise InputError(f"heatmaps: {self.config.method} sees none, expected keypoints alone; diffpose does")
        if not 0 <= overlap < frames:
            raise InputError(f"overlap = {overlap}, expected from 0 to below the {frames} frames of a window")
        if aggregate != "auto" and aggregate not in AGGREGATES:
            raise InputError(f"aggregate {aggregate!r}, expected auto, {', '.join(AGGREGATES)}")
        notes = list(check_plausible(keypoints, self.config.skeleton, (int(size[0]), int(size[1]))))
        if length < frames:
            notes.append(f"{length} frames, fewer than the {frames} of a window: the last was repeated")
        starts = overlapping_starts(length, frames, frames - overlap) if overlap else clip_starts(length, frames)
        pixels = torch.from_numpy(points.astype(np.float32))
        observed = observe(keypoints, size, self.config, mixture) if heatmaps is None else self._seen(heatmaps, filled)
        windows = gather(observed, starts, frames)
        steps = (steps or self.model.usual) if self.model.usual > 1 else 1  # some take one, whatever is asked for
        found = self._predicted(windows, hypotheses, steps, Noise.of(seed, name, starts), max_batch, progress)
        # (windows, H, F, J, 3): time comes first while windows are merged
        whole = merge(found.transpose(1, 2), starts, length, fade=overlap > 0).transpose(0, 1)
        if lens is None:
            lens = Lens.of_size(*size)
            notes.append(f"no camera given: taken to have a focal length of {float(lens.focal[0]):.0f} pixels; depth scales with it")
        confidence = torch.from_numpy((~filled).astype(np.float32))
        roots = solve_root(whole, pixels, lens, confidence) if root is None else root.expand(len(whole), -1, -1)
        aggregate = "mean" if aggregate == "auto" else aggregate
        poses = AGGREGATES[aggregate](whole, roots, pixels, lens, confidence, self.config.skeleton)
        path = solve_root(poses[None], pixels, lens, confidence)[0] if root is None else root
        spread = whole.var(0, correction=0).sum(-1).sqrt()
        return Lifted(whole, poses, path, spread, steps, aggregate, torch.from_numpy(filled), tuple(notes))

    def _predicted(self, windows: Tensor, hypotheses: int, steps: int, noise: Noise, max_batch: int, progress: Progress | None) -> Tensor:
        """(windows, H, F, J, 3) after the last step; some windows at a time, since steps are many."""
        some = max(1, self.model.light * max_batch // hypotheses)
        poses: list[Tensor] = []
        for first in range(0, len(windows), some):

            def tell(done: int, total: int, first: int = first) -> None:
                assert progress is not None
                each = total // len(windows[first : first + some])
                progress(first * each + done, len(windows) * each)

            part = slice(first, first + some)
            every = self.model.predict(windows[part].to(self.device), hypotheses, steps, noise[part], max_batch, tell if progress else None)
            poses.append(every[:, -1].cpu())
        return torch.cat(poses)

    def _seen(self, heatmaps: np.ndarray, missing: np.ndarray) -> Tensor:
        """(F, 16, C) without the joints that are missing (F, J)."""
        joints = len(HEATMAP_16.joints)
        if heatmaps.ndim != 3 or heatmaps.shape[:2] != (len(missing), joints) or heatmaps.shape[2] not in (COLUMNS, CELLS):
            raise InputError(f"heatmaps of shape {heatmaps.shape}, expected ({len(missing)}, {joints}, {COLUMNS} or {CELLS})")
        return hidden_heatmaps(torch.from_numpy(heatmaps.astype(np.float32)), torch.from_numpy(missing), self.config.skeleton)

    def _whole(self, keypoints: Tensor | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(F, J, 3) pixels without gaps and confidence, and which were filled in (F, J)."""
        array = np.asarray(keypoints.detach().cpu() if isinstance(keypoints, Tensor) else keypoints, dtype=np.float64)
        layout = self.config.skeleton
        if array.ndim != 3 or array.shape[1] != len(layout.joints) or array.shape[2] not in (2, 3) or not len(array):
            raise InputError(
                f"keypoints of shape {array.shape}, expected (frames, {len(layout.joints)}, 2 or 3) in the order of {layout.name}; "
                "convert other layouts by dposer.lifting.inputs.to_layout"
            )
        if array.shape[2] == 2:
            array = np.concatenate((array, np.isfinite(array).all(-1, keepdims=True)), -1)
        points, filled = fill_gaps(array, layout)
        return np.concatenate((points, np.where(filled, 0.0, array[..., 2])[..., None]), -1), filled
