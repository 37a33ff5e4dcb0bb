"""Scores of fitted surfaces: what each error is blind to, which hypothesis counts, and the published table."""

import math

import pytest
import roma
import torch
from torch import Tensor

from dposer.body import BodyModel
from dposer.errors import InputError
from dposer.solvers.mesh_scores import FIGURES, PUBLISHED_EHF, MeshScores, mesh_scores, regressed_joints


@pytest.fixture(scope="module")
def surfaces(body: BodyModel, poses: Tensor) -> Tensor:
    """(4, V, 3)."""
    vertices = body(poses[:4]).vertices
    assert vertices is not None
    return vertices


def test_a_perfect_fit_has_no_error(body: BodyModel, surfaces: Tensor) -> None:
    report = mesh_scores(body, surfaces[:, None], surfaces).report()
    assert tuple(report) == FIGURES and max(report.values()) < 0.01


def test_translation_costs_nothing_and_a_similarity_nothing_but_pelvis_aligned(
    body: BodyModel, surfaces: Tensor, generator: torch.Generator
) -> None:
    moved = surfaces + torch.tensor([0.3, -1.0, 4.0])
    assert max(mesh_scores(body, moved[:, None], surfaces).report().values()) < 0.01
    turned = 1.2 * moved @ roma.rotvec_to_rotmat(torch.tensor([0.2, -0.4, 0.1])).mT
    report = mesh_scores(body, turned[:, None], surfaces).report()
    assert report["PA-MPJPE"] < 0.01 and report["PA-PVE"] < 0.01
    assert report["MPJPE"] > 50 and report["PVE"] > 50


def test_errors_of_growth_about_the_pelvis(body: BodyModel, surfaces: Tensor) -> None:
    joints = regressed_joints(body, surfaces)
    pelvis = joints[:, :1]
    grown = 1.1 * (surfaces - pelvis) + pelvis
    report = mesh_scores(body, grown[:, None], surfaces).report()
    assert report["MPJPE"] == pytest.approx(100 * float((joints - pelvis).norm(dim=-1).mean()), rel=1e-4)
    assert report["PVE"] == pytest.approx(100 * float((surfaces - pelvis).norm(dim=-1).mean()), rel=1e-4)
    assert report["PA-MPJPE"] < 0.01


def test_regressed_joints_are_those_of_a_body_at_rest(body: BodyModel) -> None:
    rest = body(torch.zeros(1, 63), betas=torch.linspace(-1, 1, 10)[None])
    torch.testing.assert_close(regressed_joints(body, rest.vertices), rest.joints[:, :22], atol=1e-5, rtol=0)


def test_the_objective_chooses_and_the_error_knows_best(body: BodyModel, surfaces: Tensor, generator: torch.Generator) -> None:
    noise = torch.tensor([0.03, 0.01, 0.02])[:, None, None] * torch.randn(4, 3, *surfaces.shape[1:], generator=generator)
    found = surfaces[:, None] + noise
    objective = torch.tensor([[2.0, 3.0, 1.0], [1.0, 2.0, 3.0], [math.nan, 1.0, 2.0], [1.0, 1.0, math.nan]])
    scores = mesh_scores(body, found, surfaces, objective)
    single = [mesh_scores(body, found[:, [i]], surfaces) for i in range(3)]
    for name in FIGURES:
        assert scores.chosen()[name].tolist() == pytest.approx([single[row].chosen()[name][i].item() for i, row in enumerate([2, 0, 1, 0])])
        assert scores.best()[name].tolist() == pytest.approx(torch.stack([s.chosen()[name] for s in single]).amin(0).tolist())
    report = scores.report()
    assert set(report) == {*FIGURES, *(f"best {name}" for name in FIGURES)}
    assert all(report[f"best {name}"] <= report[name] for name in FIGURES)
    assert mesh_scores(body, found, surfaces).chosen()["PVE"].tolist() == single[0].chosen()["PVE"].tolist()


def test_parts_come_together(body: BodyModel, surfaces: Tensor) -> None:
    found = surfaces.roll(1, 0)[:, None]
    whole = mesh_scores(body, found, surfaces)
    parts = [mesh_scores(body, found[rows], surfaces[rows]).arrays() for rows in (slice(1), slice(1, 4))]
    assert MeshScores.from_arrays(parts).report() == pytest.approx(whole.report(), rel=1e-4)


def test_shapes_that_do_not_belong_together_are_named(body: BodyModel, surfaces: Tensor) -> None:
    for found, truth, objective in (
        (surfaces, surfaces, None),
        (surfaces[:, None], surfaces[:2], None),
        (surfaces[:, None], surfaces, torch.zeros(4, 2)),
        (surfaces[:, None, :100], surfaces[:, :100], None),
    ):
        with pytest.raises(InputError, match="expected"):
            mesh_scores(body, found, truth, objective)


def test_the_published_table() -> None:
    for methods in PUBLISHED_EHF.values():
        assert min(methods, key=lambda method: methods[method]["PA-MPJPE"]) == "DPoser"
    assert PUBLISHED_EHF["from scratch"]["DPoser"]["best PA-MPJPE"] == 53.28
