"""Figures of generated poses: right on cases with known answers, honest about what they are compared with."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dposer.body import BodyModel
from dposer.data.amass import read_poses
from dposer.errors import InputError
from dposer.files import save_npz
from dposer.metrics import fid, gaussian_statistics, precision_recall_density_coverage
from dposer.prior import PosePrior
from dposer.solvers.generation_scores import (
    PROTOCOLS,
    PUBLISHED,
    Counts,
    Reference,
    balanced_draw,
    gaussian_samples,
    generation_figures,
    generation_report,
    self_intersection_report,
    stored_samples,
)


def test_balanced_draws_repeat_with_their_seed(poses: Tensor) -> None:
    subject = torch.arange(500) // 400
    draw = balanced_draw(poses, subject, 200, 1)
    assert torch.equal(draw, balanced_draw(poses, subject, 200, 1))
    rare = torch.tensor([(poses[400:] == row).all(1).any().item() for row in draw])
    assert 0.35 < float(rare.float().mean()) < 0.65


def test_a_reference_keeps_half_for_itself_and_gives_each_subject_the_same_weight(poses: Tensor) -> None:
    alone = Reference.split(poses)
    assert not set(map(bytes, alone.poses.numpy())) & set(map(bytes, alone.others.numpy()))
    assert len(alone.poses) == len(alone.poses.unique(dim=0)) <= 250
    assert len(Reference.split(poses, size=40).poses) == 40

    people = 0.1 * torch.randn(10_000, 63, generator=torch.Generator().manual_seed(0))
    people[9000:] += 3
    alike = Reference.split(people, torch.arange(10_000) // 9000, size=300)
    unlike = Reference.split(people, size=300)
    for reference, mean in ((alike, 1.5), (unlike, 0.3)):
        for found in (reference.statistics[0], reference.poses.double().mean(0), reference.others.double().mean(0)):
            assert float(found.mean()) == pytest.approx(mean, abs=0.15)
    with pytest.raises(InputError, match="7 different poses, expected at least 8"):
        Reference.split(poses[:7])


def test_weighted_statistics_are_those_of_repeated_poses(poses: Tensor) -> None:
    times = torch.arange(1, 21)
    mean, covariance = gaussian_statistics(poses[:20], times)
    repeated = poses[:20].repeat_interleave(times, dim=0)
    torch.testing.assert_close(mean, repeated.double().mean(0))
    torch.testing.assert_close(covariance / covariance.trace(), repeated.double().T.cov() / repeated.double().T.cov().trace())


def test_figures_are_those_of_the_metrics_and_only_those_that_can_be_had(poses: Tensor, body: BodyModel) -> None:
    reference = Reference.split(poses)
    samples = poses[::5] + 0.05
    figures = generation_figures(samples, reference, body=body, training=poses, counts=Counts(dnn=10, si=0))
    assert list(figures) == ["APD", "FID", "precision", "recall", "density", "coverage", "dNN"]
    assert [figures[key] for key in ("precision", "recall", "density", "coverage")] == list(
        precision_recall_density_coverage(samples, reference.poses)
    )
    only = Reference(reference.statistics)
    assert list(generation_figures(samples, only, body=body, counts=Counts(si=0))) == ["APD", "FID"]
    assert generation_figures(samples, only, ("FID",), body=body) == {"FID": figures["FID"]}
    whole = generation_report(samples, poses, body=body)
    assert whole["FID"] == fid(samples, poses) and "dNN" not in whole


def test_the_costly_figures_look_at_the_first_poses_only(poses: Tensor, body: BodyModel) -> None:
    reference = Reference.split(poses)
    first = torch.cat([poses[:20], 10 * poses[20:40]])
    few = Counts(apd=20, dnn=20, si=1)
    figures = ("APD", "dNN", "SI")
    cut = generation_figures(first, reference, figures, body=body, training=poses, counts=few)
    assert cut == generation_figures(poses[:20], reference, figures, body=body, training=poses, counts=few)
    assert cut["SI"] == self_intersection_report(poses[:1], body)


def test_published_statistics_are_read_and_checked(tmp_path: Path, poses: Tensor, body: BodyModel) -> None:
    path = tmp_path / "statistics.npz"
    mean, covariance = gaussian_statistics(poses)
    save_npz(path, {"mu": mean.numpy(), "sigma": covariance.numpy()})
    assert generation_figures(poses, Reference.read_statistics(path), ("FID", "recall"), body=body)["FID"] < 1e-9
    for broken in ({"mu": np.zeros(63)}, {"mu": np.zeros(66), "sigma": np.eye(66)}, {"mu": np.full(63, np.nan), "sigma": np.eye(63)}):
        save_npz(path, broken)
        with pytest.raises(InputError, match=r"statistics\.npz"):
            Reference.read_statistics(path)


def test_a_fitted_gaussian_has_the_moments_of_its_poses(poses: Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = gaussian_samples(poses, 20_000, generator)
    assert drawn.dtype == poses.dtype and fid(drawn, poses) < 0.02
    subject = (torch.arange(500) >= 490).long()
    assert fid(gaussian_samples(poses, 20_000, generator, subject), poses) > 0.05


def test_published_protocols_and_figures() -> None:
    assert PUBLISHED["DPoser"] == {"APD": 14.28, "FID": 0.07, "precision": 0.72, "recall": 0.80, "dNN": 2.63}
    assert PROTOCOLS["v1"].sampling["corrector"] == "langevin" and PROTOCOLS["v1"].sampling["t_end"] == 5e-3
    assert PROTOCOLS["v2"].samples == PROTOCOLS["paper"].samples == 50_000 and not PROTOCOLS["paper"].balanced


def test_stored_samples_come_in_parts_that_stay(tmp_path: Path, prior: PosePrior) -> None:
    options = {"sampler": "dpm++", "steps": 3}
    first, place, kept = stored_samples(prior, 505, options, 0, tmp_path)
    assert first.shape == (505, 63) and kept == 0 and len(list(place.glob("*.npz"))) == 2
    again, same, kept = stored_samples(prior, 500, options, 0, tmp_path)
    assert torch.equal(again, first[:500]) and same == place and kept == 500
    other, elsewhere, kept = stored_samples(prior, 500, options, 1, tmp_path)
    assert elsewhere != place and kept == 0 and not torch.equal(other, again)
    assert torch.equal(torch.from_numpy(read_poses(sorted(place.glob("*.npz"))[0])), again)


def test_samples_of_the_shipped_prior_are_spread_like_real_poses(prior: PosePrior, body: BodyModel, poses: Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    report = generation_report(prior.sample(500, generator=generator), poses, training=poses, body=body)
    real = generation_report(poses[::2], poses[1::2], body=body)
    assert abs(report["APD"] / real["APD"] - 1) < 0.2
    assert report["FID"] < 0.8 and report["recall"] > 0.4 and report["dNN"] > 0
    assert self_intersection_report(prior.sample(2, generator=generator), body) < 8
    assert not math.isnan(report["density"])
