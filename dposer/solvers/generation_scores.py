"""How good generated poses are, by the protocol of the published tables, and those tables.

Source: DPoser (arXiv 2312.05541) and DPoser-X (arXiv 2508.00599), sections on pose generation, and their released code.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dposer.body.model import BodyModel
from dposer.data.processed import balanced_indices, subject_weights
from dposer.errors import InputError
from dposer.files import PathLike, finite, load_npz, save_json, save_npz
from dposer.metrics.distribution import dnn, frechet_distance, gaussian_statistics, precision_recall_density_coverage
from dposer.metrics.poses import apd
from dposer.metrics.self_intersection import self_intersection
from dposer.prior.pose_prior import PosePrior, Progress

PRDC_FIGURES = ("precision", "recall", "density", "coverage")
FIGURES = ("APD", "FID", *PRDC_FIGURES, "dNN", "SI", "bits/dim")
UNITS: Mapping[str, str] = {"APD": "cm", "dNN": "rad", "SI": "%"}
NEIGHBOURS = 3
"""k of precision, recall, density and coverage."""

PUBLISHED: Mapping[str, Mapping[str, float]] = {
    name: dict(zip(("APD", "FID", "precision", "recall", "dNN"), values, strict=True))
    for name, values in {
        "real poses": (15.44, 0.005, 0.86, 0.90, 0.001),
        "DPoser": (14.28, 0.07, 0.72, 0.80, 2.63),
        "DPoser, 10-step DDIM": (19.03, 0.58, 0.10, 0.95, 2.95),
        "GMM": (16.28, 1.02, 0.13, 0.34, 4.37),
        "VPoser": (10.75, 0.66, 0.29, 0.42, 3.74),
        "GAN-S": (15.68, 0.18, 0.61, 0.41, 2.98),
        "Pose-NDF": (18.75, 5.92, 0.02, 0.00, 9.08),
        "NRDF": (22.82, 0.64, 0.03, 0.99, 6.69),
    }.items()
}
"""Trained on AMASS and compared with AMASS: to be set beside figures of other data only with that said."""


@dataclass(frozen=True)
class Protocol:
    """How many poses are drawn, how, and what they are compared with."""

    samples: int = 500
    sampling: Mapping[str, Any] = field(default_factory=lambda: {"sampler": "dpm++", "steps": 20})
    """Options of :meth:`PosePrior.sample`."""
    split: str = "test"
    balanced: bool = True
    """Each subject of the reference alike, or each pose."""
    figures: tuple[str, ...] = FIGURES
    si: int = 50
    """On how many poses self-intersection is taken."""


_SLOW: Mapping[str, Any] = {"sampler": "euler_maruyama", "steps": 1000}
PROTOCOLS: Mapping[str, Protocol] = {
    "fast": Protocol(),
    "v1": Protocol(500, {**_SLOW, "corrector": "langevin", "t_end": 5e-3}, figures=("APD", "SI"), si=500),
    "v2": Protocol(50_000, _SLOW, "train", False, ("APD", "FID", *PRDC_FIGURES, "SI"), 500),
    "paper": Protocol(50_000, _SLOW, "train", False, ("APD", "FID", "precision", "recall", "dNN")),
}
"""``fast``: the default of this library. ``v1``, ``v2``: the releases. ``paper``: the columns of the published table."""


@dataclass(frozen=True)
class Counts:
    """On how many poses, the first ones, the costly figures are taken."""

    apd: int = 500
    dnn: int = 5000
    si: int = 50
    bpd: int = 100


@dataclass(frozen=True)
class Reference:
    """Real poses that others are compared with."""

    statistics: tuple[Tensor, Tensor]
    """Mean (63,) and covariance (63, 63), for the FID."""
    poses: Tensor = torch.empty(0, 63)
    """(M, 63) for precision, recall, density and coverage, in random order."""
    others: Tensor = torch.empty(0, 63)
    """(K, 63) real poses that neither of the two knows, in random order: what reality scores."""

    @classmethod
    def split(cls, poses: Tensor, subject: Tensor | None = None, size: int = 10_000, seed: int = 42) -> "Reference":
        """Half of the poses (N, 63) to compare with, at most ``size`` of them, and as many of the other half.

        With ``subject`` (N,) each person counts the same: in the statistics by weight, in the sets by as many draws.

        Raises:
            InputError: too few poses.
        """
        rows = _distinct(poses, seed)
        least = 2 * (NEIGHBOURS + 1)
        if len(rows) < least:
            raise InputError(
                f"reference: {len(rows)} different poses, expected at least {least}: half to compare with, half to be compared"
            )
        halves = rows[: len(rows) // 2], rows[len(rows) // 2 :]
        persons = [None if subject is None else subject[half] for half in halves]
        chosen, others = (balanced_draw(poses[half], who, size, seed) for half, who in zip(halves, persons, strict=True))
        weights = None if persons[0] is None else subject_weights(persons[0])
        return cls(gaussian_statistics(poses[halves[0]], weights), *(some[_distinct(some, seed)] for some in (chosen, others)))

    @classmethod
    def read_statistics(cls, path: PathLike) -> "Reference":
        """The mean and covariance of a published ``statistics.npz`` (``mu``, ``sigma``).

        Raises:
            InputError: another kind of file.
        """
        arrays = load_npz(path, "the mean and covariance of poses", required=("mu", "sigma"))
        mean, covariance = (finite(arrays[key], f"{path}: {key}") for key in ("mu", "sigma"))
        if mean.shape != (63,) or covariance.shape != (63, 63):
            raise InputError(f"{path}: mu of shape {mean.shape} and sigma of {covariance.shape}, expected (63,) and (63, 63)")
        return cls((torch.from_numpy(mean).double(), torch.from_numpy(covariance).double()))


def balanced_draw(poses: Tensor, subject: Tensor | None, count: int, seed: int) -> Tensor:
    """``count`` poses, each subject as likely as any other where subjects are known (then with replacement)."""
    generator = torch.Generator().manual_seed(seed)
    if subject is None:
        return poses[torch.randperm(len(poses), generator=generator)[:count]]
    return poses[balanced_indices(subject, count, generator)]


def _distinct(poses: Tensor, seed: int) -> Tensor:
    """Rows without repetitions, in random order. Repeated poses would have nearest-neighbour balls without radius."""
    rows = np.ascontiguousarray(poses.cpu().numpy())
    _, first = np.unique(rows.view(np.dtype((np.void, rows[0].nbytes))).ravel(), return_index=True)  # bytes sort faster than numbers
    return torch.from_numpy(np.sort(first))[torch.randperm(len(first), generator=torch.Generator().manual_seed(seed))]


@torch.no_grad()
def generation_figures(
    poses: Tensor,
    reference: Reference,
    figures: Sequence[str] = FIGURES,
    *,
    body: BodyModel | None = None,
    training: Tensor | None = None,
    prior: PosePrior | None = None,
    counts: Counts | None = None,
    bar: Callable[[str], Progress] | None = None,
) -> dict[str, float]:
    """Those of ``figures`` that can be had of poses (N, 63); the others are left out.

    Args:
        reference: FID needs its statistics, precision, recall, density and coverage its poses.
        body: for APD and SI; default the open body.
        training: (K, 63), for dNN.
        prior: for bits/dim, of these poses under it.
        bar: given the name of a slow figure, returns what is told of its progress.

    Raises:
        InputError: too few poses for a figure, or poses with NaN.
    """
    body, counts, report = body or BodyModel(), counts or Counts(), {}
    if "APD" in figures:
        report["APD"] = 100 * float(apd(joint_positions(body, poses[: counts.apd])))
    if "FID" in figures:
        report["FID"] = frechet_distance(*gaussian_statistics(poses), *(some.to(poses.device) for some in reference.statistics))
    if len(reference.poses) and set(figures) & set(PRDC_FIGURES):
        agreement = precision_recall_density_coverage(poses, reference.poses, NEIGHBOURS)._asdict()
        report |= {key: float(value) for key, value in agreement.items() if key in figures}
    if "dNN" in figures and training is not None:
        report["dNN"] = float(dnn(poses[: counts.dnn], training).mean())
    if "SI" in figures and counts.si:
        report["SI"] = self_intersection_report(poses[: counts.si], body, bar and bar("self-intersection"))
    if "bits/dim" in figures and prior is not None and counts.bpd:
        report["bits/dim"] = float(prior.bits_per_dim(poses[: counts.bpd]).mean())
    return report


def generation_report(
    samples: Tensor, reference: Tensor, training: Tensor | None = None, body: BodyModel | None = None
) -> dict[str, float]:
    """APD (cm) of all samples, FID, precision, recall, density, coverage and, given the training poses, dNN (rad).

    Args:
        samples: (N, 63) axis-angle.
        reference: (M, 63) real poses for FID and precision/recall.
        training: (K, 63) poses among which the nearest neighbour is sought for dNN.
        body: default the open body.
    """
    real = Reference(gaussian_statistics(reference), reference)
    counts = Counts(apd=len(samples), dnn=len(samples), si=0)
    return generation_figures(samples, real, body=body, training=training, counts=counts)


@torch.no_grad()
def self_intersection_report(samples: Tensor, body: BodyModel | None = None, progress: Progress | None = None) -> float:
    """SI: mean over the samples of the percentage of faces that intersect others."""
    body = body or BodyModel()
    total = 0.0
    for i in range(len(samples)):  # one mesh at a time: its broad phase is what fills memory
        vertices = body(samples[i : i + 1].to(body.device)).vertices
        assert vertices is not None
        total += float(self_intersection(vertices[0].cpu().numpy(), body.faces))
        if progress is not None:
            progress(i + 1, len(samples))
    return total / len(samples)


@torch.no_grad()
def joint_positions(body: BodyModel, poses: Tensor, chunk: int = 4096) -> Tensor:
    """(N, 22, 3) body joints in metres, root at zero rotation and translation, mean shape."""
    return torch.cat([body(part.to(body.device), vertices=None, joints="body").joints for part in poses.split(chunk)])


def gaussian_samples(poses: Tensor, count: int, generator: torch.Generator, subject: Tensor | None = None) -> Tensor:
    """x = μ + Σ^½ z of the Gaussian fitted to poses (N, 63), each subject alike where they are given: (count, 63)."""
    mean, covariance = gaussian_statistics(poses, None if subject is None else subject_weights(subject))
    values, vectors = torch.linalg.eigh(covariance)
    z = torch.randn(count, len(mean), generator=generator, dtype=torch.float64)
    return (mean + (z * values.clamp(min=0).sqrt()) @ vectors.T).to(poses.dtype)


_PART = 500
"""Samples a file; a run that is stopped loses no more than these."""


def stored_samples(
    prior: PosePrior,
    count: int,
    sampling: Mapping[str, Any],
    seed: int,
    folder: PathLike,
    progress: Callable[[str], Progress] | None = None,
) -> tuple[Tensor, Path, int]:
    """Draw ``count`` poses in parts, keeping each in a file, and read those that earlier calls have kept.

    The files lie in ``folder/<key>``, the key being made of everything that decides the poses: weights, options, seed
    and kind of device. They can be read by :func:`dposer.data.amass.read_poses`.

    Args:
        sampling: options of :meth:`PosePrior.sample`.
        progress: given a title for each part that is drawn, returns what is told of its progress.

    Returns:
        The poses (count, 63), where they are kept, and how many of them were already there.

    Raises:
        InputError: refused options, a folder that cannot be written, or a kept file that is damaged.
    """
    settings = {"weights": fingerprint(prior), "sampling": dict(sampling), "seed": seed, "device": prior.device.type}
    place = Path(folder) / hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    save_json(place / "settings.json", settings)
    parts, kept = [], 0
    for start in range(0, count, _PART):
        size = min(_PART, count - start)
        path = place / f"samples_{start:06d}_{size}.npz"
        if path.is_file():
            kept += size
        else:
            title = f"samples {start + 1} to {start + size} of {count}"
            entropy = np.random.SeedSequence([seed, start]).generate_state(1, np.uint64)[0]
            generator = torch.Generator(prior.device).manual_seed(int(entropy >> np.uint64(1)))
            poses = prior.sample(size, generator=generator, progress=progress and progress(title), **sampling)
            save_npz(path, {"pose_samples": poses.cpu().numpy()})
        parts.append(_read_part(path, size))
    return torch.cat(parts), place, kept


def _read_part(path: Path, size: int) -> Tensor:
    array = load_npz(path, "kept samples", required=("pose_samples",))["pose_samples"]
    if array.shape != (size, 63):
        raise InputError(f"{path}: pose_samples of shape {array.shape}, expected ({size}, 63); delete the file to draw them again")
    return torch.from_numpy(finite(array, str(path))).float()


def fingerprint(prior: PosePrior) -> str:
    """A digest of a prior's weights, normaliser and settings."""
    digest = hashlib.sha256(json.dumps(prior.config.to_dict(), sort_keys=True).encode())
    for part in (prior.denoiser, prior.normalizer):
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
