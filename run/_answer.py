"""What many hypotheses say together, as files: one pose, a few representatives with weights, which joints are ambiguous, a page."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dposer.body.skeleton import Layout
from dposer.data.heatmap_crops import crop
from dposer.data.heatmap_mixtures import COLUMNS, SIDE, render
from dposer.files import save_npz
from dposer.geometry.lens import Lens
from dposer.lifting.consensus import Choice, Consensus, consensus
from dposer.lifting.observed import heatmaps_of_clip
from dposer.lifting.ranking import Ranking, bodies_of, rank
from dposer.prior.pose_prior import PosePrior
from dposer.viz import save_image
from dposer.viz.hypotheses import HypothesisCloud, figure_sheet
from dposer.viz.hypotheses_page import save_hypotheses_page

_PICTURES, _FRAMES, _POSES = 8, 60, 6000
"""On a page: pictures, frames, and hypotheses of all frames together."""
_RANKED = 1000
"""Representatives of all frames that have bodies fitted to them."""


@dataclass(frozen=True)
class Answer:
    """Of F frames; metres."""

    hypotheses: Tensor
    """(H, F, J, 3)."""
    layout: Layout
    keypoints: np.ndarray
    """(F, J, 3) pixels and confidence."""
    lens: Lens | None
    """None: not known."""
    root: Tensor
    """(F, 3)."""
    how: Choice
    count: int
    prior: PosePrior | None
    """Of bodies."""
    ranked: bool
    """Whether representatives are weighed by it, and by the camera."""
    truth: Tensor | None
    heatmaps: np.ndarray | None
    """(F, 16, 4096), if they were given."""
    box: np.ndarray | None
    pictures: Callable[[], Iterator[np.ndarray]]
    """Of the frames, (h, w, 3) uint8 RGB; may end before they do."""
    seed: int

    @cached_property
    def found(self) -> Consensus:
        return consensus(self.hypotheses.transpose(0, 1), self.how, self.count, **self._camera)

    @property
    def _camera(self) -> dict[str, Any]:
        points = torch.as_tensor(self.keypoints, dtype=torch.float32)
        return {"keypoints": points[..., :2], "lens": self.lens, "confidence": points[..., 2]} if self.lens is not None else {}

    @cached_property
    def ranking(self) -> Ranking | None:
        """Of the representatives, where they are asked to be ranked and are not too many."""
        poses = self.found.representatives
        if not self.ranked or len(poses) * poses.shape[1] > _RANKED:
            return None
        generator = torch.Generator().manual_seed(self.seed)
        return rank(poses, self.layout, self.prior, shares=self.found.weights, generator=generator, **self._camera)

    @cached_property
    def cloud(self) -> HypothesisCloud:
        truth = None if self.truth is None else self.truth.numpy()
        return HypothesisCloud.of(self.layout, self.hypotheses.transpose(0, 1).numpy(), self.found.arrays(), truth)

    @property
    def frame(self) -> int:
        """Where hypotheses are farthest apart."""
        return int(self.found.spread.mean(-1).argmax())

    def arrays(self) -> dict[str, np.ndarray]:
        """What goes into the file of arrays."""
        found = {name: value for name, value in self.found.arrays().items() if name not in ("mean", "spread")}
        values = {("consensus" if name == "pose" else name): value for name, value in found.items()}
        if self.ranking is not None:
            extra = {"rank_weights": self.ranking.weights, "plausibility": self.ranking.plausibility, "missed": self.ranking.reprojection}
            values |= {name: value.numpy() for name, value in extra.items() if value is not None}
        return values

    def report(self) -> dict[str, Any]:
        """Figures of the most ambiguous frame, and how often each joint is ambiguous."""
        shares = self.found.ambiguous.float().mean(0)
        rows = []
        for k, weight in enumerate(self.found.weights[self.frame].tolist()):
            rows.append({"weight": round(weight, 4)})
            if self.ranking is not None:
                known = {"ranked": self.ranking.weights, "plausibility": self.ranking.plausibility, "missed_px": self.ranking.reprojection}
                rows[-1] |= {name: round(float(value[self.frame, k]), 4) for name, value in known.items() if value is not None}
        ambiguous = {name: round(float(share), 4) for name, share in zip(self.layout.joints, shares, strict=True) if share > 0}
        return {"consensus": self.how, "frame": self.frame, "representatives": rows, "ambiguous": ambiguous}

    # ---- files

    @cached_property
    def _told(self) -> tuple[Tensor, np.ndarray]:
        """Heatmaps (F, 16, C), given or as they stand for keypoints, and their crops (F, 3)."""
        if self.heatmaps is None or self.box is None:
            return heatmaps_of_clip(self.keypoints, self.layout)
        return torch.from_numpy(self.heatmaps), self.box

    def maps(self, frame: int) -> np.ndarray:
        """(16, 64, 64)."""
        maps = self._told[0][frame]
        return (render(maps) if maps.shape[-1] == COLUMNS else maps.unflatten(-1, (SIDE, SIDE))).numpy()

    def _photo(self, frame: int) -> np.ndarray | None:
        """The crop (255, 255, 3) uint8 that the maps are of."""
        if frame not in self._photos:
            return None
        seen = crop(self._photos[frame], self._told[1][frame])
        return (seen * 255).round().byte().permute(1, 2, 0).numpy()

    @cached_property
    def _paged(self) -> np.ndarray:
        """Frames of the page."""
        return np.unique(np.linspace(0, len(self.cloud) - 1, _FRAMES).round().astype(int))

    @cached_property
    def _pictured(self) -> list[int]:
        """Places among them that have a picture: some, evenly, and where hypotheses are farthest apart."""
        evenly = np.linspace(0, len(self._paged) - 1, _PICTURES).round().astype(int).tolist()
        return sorted({*evenly, int(np.argmin(abs(self._paged - self.frame)))})

    @cached_property
    def _photos(self) -> dict[int, np.ndarray]:
        wanted = {self.frame, *self._paged[self._pictured].tolist()}
        return {frame: image for frame, image in enumerate(self.pictures()) if frame in wanted}

    def save_sheet(self, path: Path) -> str:
        frame = self.frame
        title = f"frame {frame}" if len(self.cloud) > 1 else None
        save_image(path, figure_sheet(self.cloud, self.maps(frame), self._photo(frame), frame, title=title))
        return "heatmaps, and the hypotheses with their consensus" + ("" if title is None else f" where they are farthest apart: {title}")

    def save_page(self, path: Path) -> str:
        chosen = self._paged
        part = _frames(self.cloud, chosen)
        pictures = {
            place: figure_sheet(_frames(self.cloud, chosen[[place]]), self.maps(chosen[place]), self._photo(int(chosen[place])), height=420)
            for place in self._pictured
        }
        columns = {}
        if self.ranking is not None:
            titles = {
                "ranked": self.ranking.weights,
                "plausibility %": self.ranking.plausibility,
                "missed by px": self.ranking.reprojection,
            }
            columns = {name: value.numpy()[chosen] for name, value in titles.items() if value is not None}
        notes = (
            f"{len(self.hypotheses)} hypotheses of each frame; consensus: {self.how}.",
            "A joint is ambiguous where hypotheses are more than 100 mm from their mean (root mean square), or in two camps.",
        )
        save_hypotheses_page(
            path, part, title=path.stem.removesuffix("_page"), notes=notes, pictures=pictures, columns=columns,
            names=[f"frame {number}" for number in chosen], shown=max(20, _POSES // len(chosen)),
        )  # fmt: skip
        return "hypotheses in space, to be turned in a browser"

    def save_bodies(self, path: Path) -> str:
        """Of the consensus of one frame and of its representatives, before the camera."""
        poses = torch.cat((self.found.pose[:1], self.found.representatives[0]))
        generator = torch.Generator().manual_seed(self.seed)
        bodies = bodies_of(poses + self.root[:1, None], self.layout, self.prior, generator=generator)
        names = ("pose_body", "root_orient", "trans", "betas")
        arrays = {name: getattr(bodies, name).numpy() for name in names}
        save_npz(path, arrays | {"weights": np.concatenate(([1.0], self.found.weights[0].numpy())), "gender": "neutral"})
        missed = 1000 * float(bodies.residuals.nanmean())
        return f"SMPL-X bodies before the camera, first of the consensus, then of representatives; {missed:.0f} mm from the poses"


def _frames(cloud: HypothesisCloud, chosen: np.ndarray) -> HypothesisCloud:
    values = {name: value for name, value in vars(cloud).items() if name not in ("layout", "hypotheses", "truth")}
    truth = None if cloud.truth is None else cloud.truth[chosen]
    return HypothesisCloud.of(cloud.layout, cloud.hypotheses[chosen], {name: value[chosen] for name, value in values.items()}, truth)
