"""The benchmarks of motion run on a few clips, and what they are measured on is what it claims to be."""

import numpy as np
import pytest
import torch

from benchmarks import motion, motion_speed
from benchmarks.motion_data import Motions, joined
from dposer.assets import asset
from dposer.body import BodyModel
from dposer.data.amass import AmassSequence, read_amass, write_amass
from dposer.errors import InputError
from dposer.prior import PosePrior
from dposer.solvers.denoising_scores import published_figures


def part(clip: AmassSequence, rows: slice) -> AmassSequence:
    return AmassSequence(clip.pose_body[rows], clip.root_orient[rows], clip.trans[rows], clip.betas, clip.gender, clip.fps)


def places(body: BodyModel, motion: AmassSequence) -> torch.Tensor:
    """(F, 22, 3) in the world."""
    pose, root, trans = (torch.tensor(array, dtype=torch.float32) for array in (motion.pose_body, motion.root_orient, motion.trans))
    return body(pose, root, trans=trans, vertices=None, joints="body").joints


@pytest.fixture(scope="module")
def clip() -> AmassSequence:
    return read_amass(asset("examples", "motion.npz"))


@pytest.fixture(scope="module")
def motions(clip: AmassSequence, tmp_path_factory: pytest.TempPathFactory) -> Motions:
    folder = tmp_path_factory.mktemp("motions")
    for start, split in enumerate(("train", "valid", "test")):
        for subject in range(2):
            first = 80 * start + 40 * subject
            write_amass(folder / split / f"{subject}" / "walk_stageii.npz", part(clip, slice(first, first + 40)))
    return Motions(folder, PosePrior.from_pretrained(), BodyModel())


def test_fragments_are_of_every_subject_and_do_not_overlap(motions: Motions, clip: AmassSequence) -> None:
    fragments = motions.fragments("valid", 5, frames=12)
    assert fragments.poses.shape == (6, 12, 63) and fragments.joints.shape == (6, 12, 22, 3)
    starts = {int((torch.tensor(clip.pose_body) - piece[0]).abs().sum(1).argmin()) for piece in fragments.poses}
    assert starts == {80, 92, 104, 120, 132, 144}
    assert torch.equal(fragments.observed(0.02, 1), fragments.observed(0.02, 1))
    with pytest.raises(InputError, match="no motion there has 41 frames"):
        motions.fragments("test", 1, frames=41)
    with pytest.raises(InputError, match="run.prepare_data"):
        motions.fragments("training", 1)


def test_clips_are_joined_without_a_jump(motions: Motions, clip: AmassSequence) -> None:
    whole = joined([part(clip, slice(0, 60)), part(clip, slice(150, 210)), part(clip, slice(30, 90))])
    steps, usual = (torch.linalg.vector_norm(places(motions.body, some).diff(dim=0), dim=-1).max() for some in (whole, clip))
    assert len(whole) == 180 and float(steps) < 2 * float(usual)
    np.testing.assert_allclose(np.ptp(whole.trans[:, 2]), np.ptp(clip.trans[:, 2]), atol=0.3)


def test_the_denoising_table_has_every_way(motions: Motions) -> None:
    text = motion.denoising(motions, 1, levels=(0.04,), frames=10, accelerations=(10.0,), weights=(0.1,))
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + 8 + len(published_figures("AMASS", 0.04)) and "24.19 → 19.87 mm (-18 %)" in text and "2 fragments" in text


def test_a_hidden_limb_and_sparse_targets_have_tables(motions: Motions) -> None:
    assert "### Legs hidden" in motion.partial(motions, 1, parts=("legs",), frames=6)
    assert "no prior" in motion.ik(motions, 4)


def test_speed_is_told_beside_the_originals_way(motions: Motions) -> None:
    assert "whole mesh by smplx" in motion_speed.speed(motions, noise_std=0.02, frames=2, repeats=1, per_subject=1)


def test_a_long_sequence_is_measured_in_a_process_of_its_own(motions: Motions) -> None:
    assert "| 0.1 min |" in motion_speed.long_motion(motions, minutes=(0.1,))
