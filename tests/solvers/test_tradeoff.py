"""The price of completions: counted, timed, and honest about solvers that cannot."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dposer.body import BodyModel
from dposer.body.parts import part_missing
from dposer.prior import PosePrior
from dposer.solvers import complete, mode_settings
from dposer.solvers.completion_scores import BASELINES, FIGURES, completion_scores
from dposer.solvers.tradeoff import SOLVERS, Solver, solver_tradeoff


def test_rows_hold_errors_and_prices_and_are_kept(poses: Tensor, tmp_path: Path) -> None:
    prior, body = PosePrior.from_pretrained(), BodyModel()
    solvers = [Solver("short", "DPoser", steps=4), Solver("long", "DPoser", "v1", steps=10), Solver("impossible", "DPoser", steps=3)]
    rows = solver_tradeoff(prior, body, poses[:3], ("left_leg", "trunk"), solvers, hypotheses=4, seed=3, training=poses[3:])
    labels = [*(f"{name} of the training poses" for name in BASELINES), "short", "long", "impossible"]
    assert [(row.part, row.label) for row in rows] == [(part, label) for part in ("left_leg", "trunk") for label in labels]
    by_label = {row.label: row for row in rows if row.part == "trunk"}
    assert by_label["short"].figures["evaluations"] == 4 and by_label["long"].figures["evaluations"] == 10
    assert set(by_label["long"].figures) == set(FIGURES) and by_label["long"].figures["ms"] > 0 and by_label["long"].preset == "v1"
    assert by_label["impossible"].figures == {} and "steps = 3" in by_label["impossible"].reason

    generator = torch.Generator().manual_seed(3)
    guesses = complete(prior, poses[:3], part_missing("trunk"), 4, "DPoser", generator, mode_settings(prior, "DPoser", "v1", 10))
    expected = completion_scores(body, guesses, poses[:3], "trunk").report()
    for key, value in expected.items():
        assert by_label["long"].figures[key] == pytest.approx(value, rel=1e-5)

    again = solver_tradeoff(prior, body, poses[:3], ("trunk",), solvers, hypotheses=4, seed=3, folder=tmp_path)
    assert not any(row.kept for row in again)
    kept = solver_tradeoff(prior, body, poses[:3], ("trunk",), solvers, hypotheses=4, seed=3, folder=tmp_path)
    assert [row.kept for row in kept] == [True, True, False] and [row.figures for row in kept] == [row.figures for row in again]
    (other,) = solver_tradeoff(prior, body, poses[:3], ("trunk",), solvers[:1], hypotheses=4, seed=4, folder=tmp_path)
    assert not other.kept

    prior.calibration = None  # as published weights are
    (row,) = solver_tradeoff(prior, body, poses[:1], ("trunk",), solvers[:1], hypotheses=1)
    assert set(FIGURES) - set(row.figures) == {"plausibility", "APD"}  # nor has one hypothesis a distance to others


def test_the_default_solvers_have_names_of_their_own_and_one_is_the_published() -> None:
    assert len({solver.label for solver in SOLVERS}) == len(SOLVERS)
    assert [solver.preset for solver in SOLVERS if solver.published] == ["v1"]
    assert all(isinstance(solver.label, str) and solver.label for solver in SOLVERS)
