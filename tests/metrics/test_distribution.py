import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from dposer.errors import InputError
from dposer.metrics import dnn, fid, frechet_distance, gaussian_statistics, precision_recall_density_coverage


def _normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_frechet_distance_of_commuting_gaussians() -> None:
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(63, 63)))
    a, b = rng.uniform(0, 2, size=(2, 63))
    a[:20] = 0  # a singular one too
    shift = rng.normal(size=63)
    expected = (shift**2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    found = frechet_distance(shift, (basis * a) @ basis.T, np.zeros(63), (basis * b) @ basis.T)
    assert math.isclose(found, expected, rel_tol=1e-7)


def test_frechet_distance_of_gaussians_that_do_not_commute() -> None:
    # In two dimensions tr √M = √(tr M + 2 √det M).
    a, b = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[1.0, -0.7], [-0.7, 3.0]])
    coupling = math.sqrt(np.trace(a @ b) + 2 * math.sqrt(np.linalg.det(a @ b)))
    expected = np.trace(a) + np.trace(b) - 2 * coupling
    assert math.isclose(frechet_distance(np.zeros(2), a, np.zeros(2), b), expected, rel_tol=1e-12)
    assert math.isclose(frechet_distance(np.zeros(2), b, np.zeros(2), a), expected, rel_tol=1e-12)


def test_fid_of_transformed_samples() -> None:
    x = _normal(500, 63)
    assert fid(x, x) < 1e-10
    assert math.isclose(fid(x + 0.1, x), 63 * 0.01, rel_tol=1e-9)
    _, covariance = gaussian_statistics(x - x.mean(0))
    assert math.isclose(fid(3 * (x - x.mean(0)), x - x.mean(0)), 4 * float(covariance.trace()), rel_tol=1e-9)
    few = _normal(10, 63, seed=1)  # fewer samples than dimensions: a singular covariance
    assert fid(few, few) < 1e-10
    assert math.isclose(fid(few, x), fid(x, few), rel_tol=1e-9)


def test_gaussian_statistics_are_numpys() -> None:
    x = _normal(40, 5)
    mean, covariance = gaussian_statistics(torch.from_numpy(x))
    np.testing.assert_allclose(mean, x.mean(0))
    np.testing.assert_allclose(covariance, np.cov(x, rowvar=False))


def _naive_prdc(y: np.ndarray, x: np.ndarray, k: int) -> tuple[float, float, float, float]:
    radius_x, radius_y = (np.sort(cdist(p, p), axis=1)[:, k] for p in (x, y))
    d = cdist(x, y)
    return (
        float((d < radius_x[:, None]).any(0).mean()),
        float((d < radius_y).any(1).mean()),
        float((d < radius_x[:, None]).sum() / (k * len(y))),
        float((d.min(1) < radius_x).mean()),
    )


def test_prdc_of_points_on_a_line() -> None:
    reference = np.array([[0.0], [1], [2], [3]])  # k = 1: balls of radius 1
    samples = np.array([[0.5], [0.6], [10.0], [10.1]])  # k = 1: radius 0.1
    found = precision_recall_density_coverage(samples, reference, k=1)
    # Two samples lie in the balls of 0 and 1 each; no reference point lies in a ball of radius 0.1.
    assert found == (0.5, 0.0, 1.0, 0.5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(5, 40), m=st.integers(5, 40), k=st.integers(1, 4), chunk=st.integers(1, 50))
def test_prdc_is_its_definition(seed: int, n: int, m: int, k: int, chunk: int) -> None:
    samples, reference = 1.3 * _normal(n, 3, seed=seed), _normal(m, 3, seed=seed + 1)
    found = precision_recall_density_coverage(samples, reference, k=k, chunk=chunk)
    np.testing.assert_allclose(found, _naive_prdc(samples, reference, k))


@pytest.mark.parametrize("chunk", [3, 64, None])
def test_prdc_of_near_duplicates_in_chunks_is_its_definition(chunk: int | None) -> None:
    # Frames of a motion: far from the origin, a thousandth apart, which float32 products of coordinates would lose.
    reference = 3 + 1e-3 * _normal(120, 63, seed=2)
    samples = reference[:90] + np.linspace(0, 2e-3, 90)[:, None] * _normal(90, 63, seed=3)
    found = precision_recall_density_coverage(samples.astype(np.float32), reference.astype(np.float32), chunk=chunk)
    expected = _naive_prdc(samples.astype(np.float32).astype(float), reference.astype(np.float32).astype(float), 3)
    np.testing.assert_allclose(found, expected)
    assert 0 < found.precision < 1 and 0 < found.recall < 1


def test_prdc_extremes() -> None:
    x = _normal(100, 63)
    same = precision_recall_density_coverage(x, x)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    assert precision_recall_density_coverage(x + 100, x) == (0, 0, 0, 0)
    repeated = np.repeat(x[:1], 10, axis=0)  # balls without radius hold nothing, not even their own centre
    assert precision_recall_density_coverage(repeated, repeated) == (0, 0, 0, 0)


def _geodesic(a: np.ndarray, b: np.ndarray) -> float:
    return float((Rotation.from_rotvec(a.reshape(-1, 3)).inv() * Rotation.from_rotvec(b.reshape(-1, 3))).magnitude().sum())


def test_dnn_of_a_member_is_zero() -> None:
    reference = 0.5 * _normal(300, 63)
    assert dnn(reference[40:60], reference).max() < 1e-6


def test_dnn_is_the_angle_to_the_nearest_pose() -> None:
    samples, reference = 0.4 * _normal(20, 63, seed=1), 0.4 * _normal(200, 63, seed=2)
    quaternions = [Rotation.from_rotvec(p.reshape(-1, 3)).as_quat(canonical=True).reshape(len(p), -1) for p in (samples, reference)]
    nearest = cdist(*quaternions).argmin(1)
    expected = [_geodesic(s, reference[i]) for s, i in zip(samples, nearest, strict=True)]
    np.testing.assert_allclose(dnn(samples, reference), expected, rtol=1e-9)


def test_dnn_of_a_known_turn() -> None:
    reference = np.zeros((2, 63))
    reference[1] = 1.0
    samples = np.zeros((1, 63))
    samples[0, [0, 10]] = 0.3, 0.2
    assert math.isclose(float(dnn(samples, reference)[0]), 0.5, rel_tol=1e-9)
    samples[0] = 0
    samples[0, 0] = 1e-5  # arccos itself would lose it
    assert math.isclose(float(dnn(samples, reference)[0]), 1e-5, rel_tol=1e-6)


def test_dnn_ignores_full_turns() -> None:
    samples, reference = 0.4 * _normal(10, 63, seed=1), 0.4 * _normal(100, 63, seed=2)
    vectors = samples.reshape(-1, 3)
    wrapped = vectors * (1 - 2 * np.pi / np.linalg.norm(vectors, axis=1, keepdims=True))
    np.testing.assert_allclose(dnn(wrapped.reshape(10, 63), reference), dnn(samples, reference), rtol=1e-9)
    assert dnn(wrapped.reshape(10, 63), samples).max() < 1e-6


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_dnn_in_chunks_is_dnn(chunk: int) -> None:
    samples, reference = torch.from_numpy(0.4 * _normal(30, 63, seed=1)), torch.from_numpy(0.4 * _normal(100, 63, seed=2))
    torch.testing.assert_close(dnn(samples, reference, chunk=chunk), dnn(samples, reference))


def test_bad_sets_are_named() -> None:
    good = np.zeros((10, 63))
    bad = good.copy()
    bad[3, 3] = np.nan
    for call in (
        lambda: fid(bad, good),
        lambda: fid(good[:1], good),
        lambda: dnn(good, good[:, :60]),
        lambda: dnn(good[:, :62], good[:, :62]),
        lambda: dnn(good[:0], good),
        lambda: precision_recall_density_coverage(good[:3], good),
        lambda: precision_recall_density_coverage(good, good, k=0),
        lambda: precision_recall_density_coverage(good, good, chunk=0),
        lambda: dnn(good, good, chunk=0),
        lambda: frechet_distance(np.zeros(3), np.eye(3), np.zeros(2), np.eye(2)),
    ):
        with pytest.raises(InputError, match="expected") as error:
            call()
        assert "\n" not in str(error.value)
