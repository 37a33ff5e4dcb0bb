"""Masks of every pattern, what becomes of hidden keypoints, and draws that belong to a window."""

from typing import Any

import pytest
import torch
from torch import Tensor

from dposer.body.skeleton import H36M_17, MPI_INF_3DHP_17
from dposer.errors import InputError
from dposer.lifting.config import LiftingConfig, NetworkConfig, OcclusionConfig
from dposer.lifting.occlusion import Disturbance, Occlusion, filled, named_joints
from dposer.randomness import keyed_generator

F, J = 27, 17
RIGHT_LEG, LEFT_ARM = [1, 2, 3], [11, 12, 13]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def masks(pattern: str, share: float = 0.2, count: int = 300, frames: int = F, limbs: str = "") -> Tensor:
    return Occlusion(OcclusionConfig(pattern, share, limbs=limbs), H36M_17).masks(count, frames, seeded())


def setting(pattern: str, **more: Any) -> LiftingConfig:
    return LiftingConfig(network=NetworkConfig(frames=F), occlusion=OcclusionConfig(pattern), **more)


@pytest.mark.parametrize(
    ("pattern", "share", "frames", "joints"),
    [("arm_leg", 0.4, 10, RIGHT_LEG + LEFT_ARM), ("joints", 0.4, 10, RIGHT_LEG), ("frames", 0.2, 5, list(range(J)))],
)
def test_frames_and_joints_of_the_patterns(pattern: str, share: float, frames: int, joints: list[int]) -> None:
    hidden = masks(pattern, share)
    assert hidden.shape == (300, F, J) and bool((hidden.sum((1, 2)) == frames * len(joints)).all())
    assert hidden.any(1).all(0).nonzero().flatten().tolist() == joints and not hidden[..., [j for j in range(J) if j not in joints]].any()
    when = hidden[..., joints[0]]
    starts, lasts = when.float().argmax(1), F - 1 - when.flip(1).float().argmax(1)
    if pattern == "arm_leg":
        assert bool((lasts - starts + 1 > frames).any()) and float(when.float().mean(0).std()) < 0.05  # anywhere, each frame alike
    else:
        assert bool((lasts - starts + 1 == frames).all()) and set(starts.tolist()) == set(range(F - frames + 1))
        counts = starts.bincount().double()
        assert float(((counts - counts.mean()).square() / counts.mean()).sum()) < 2 * len(counts)  # chi square
    assert bool(masks(pattern, 1.0, 2)[..., joints].all()) and not masks(pattern, 0.0, 2).any()


def test_single_keypoints_and_the_mixture_of_patterns() -> None:
    hidden = masks("random")
    assert float(hidden.float().mean()) == pytest.approx(0.2, abs=0.005)
    assert float((hidden[:, :, 0] & hidden[:, :, 1]).float().mean()) == pytest.approx(0.04, abs=0.01)
    sizes = masks("mixed", 0.9, 2000).sum((1, 2))
    for size in (0, 60, 30, 85):
        assert float((sizes == size).float().mean()) == pytest.approx(0.2, abs=0.04)
    rest = sizes[~torch.isin(sizes, torch.tensor([0, 60, 30, 85]))].double()
    assert float(rest.mean()) == pytest.approx(0.2 * F * J, rel=0.05)


def test_limbs_by_name_and_several_patterns() -> None:
    hidden = masks("joints", 0.5, limbs="right_arm, head")
    assert hidden.any((0, 1)).nonzero().flatten().tolist() == [9, 14, 15, 16] and bool((hidden.sum((1, 2)) == 13 * 4).all())
    both = masks("joints:0.4+frames:0.2")
    assert bool((both.all(2).sum(1) == 5).all()) and bool((both[..., 1].sum(1) >= 10).all())
    assert named_joints("left_leg", MPI_INF_3DHP_17).nonzero().flatten().tolist() == [11, 12, 13]
    with pytest.raises(InputError, match="'tail': no limb or joint of h36m17"):
        Occlusion(OcclusionConfig("frames", limbs="tail"), H36M_17)
    for pattern, message in (
        ("legs", "expected none, random"),
        ("frames:x", "no number"),
        ("joints:1.2", "a share"),
        ("mixed:0.1", "several"),
        ("noise:-1", "0 or more pixels"),
    ):
        with pytest.raises(InputError, match=message):
            OcclusionConfig(pattern)


def test_draws_belong_to_a_window() -> None:
    def drawn(keys: list[int]) -> Disturbance:
        return occlusion.draw(len(keys), F, [keyed_generator("cpu", key) for key in keys])

    occlusion = Occlusion(OcclusionConfig("mixed+random+noise"), H36M_17)
    whole, part = drawn([1, 2, 3, 4]), drawn([4, 2])
    assert torch.equal(whole.hidden[[3, 1]], part.hidden) and torch.equal(whole.shift[[3, 1]], part.shift)
    assert not torch.equal(whole.hidden[0], whole.hidden[1])
    for seed, same in ((0, True), (1, False)):
        assert torch.equal(occlusion.masks(3, F, seeded()), occlusion.masks(3, F, seeded(seed))) is same


def test_noise_is_in_pixels_and_as_published_in_halves_of_the_picture() -> None:
    observed = torch.zeros(50, F, J, 2)
    for variant, sigma in (("clean", 0.01), ("compat", 5.0)):
        config = setting("noise", variant=variant)
        assert float(Occlusion(config.occlusion, H36M_17).apply(observed, config, seeded()).std()) == pytest.approx(sigma, rel=0.02)


def test_what_becomes_of_hidden_keypoints() -> None:
    observed = torch.rand(2, F, J, 2, generator=seeded()) + 0.1
    for inputs in ("points", "visible"):
        shown = torch.cat((observed, torch.ones(2, F, J, 1)), -1) if inputs == "visible" else observed
        zero, fill = (setting("frames:0.3+noise:3", inputs=inputs, hidden=how) for how in ("zero", "filled"))
        drawn = Occlusion(zero.occlusion, H36M_17).draw(2, F, seeded())
        assert bool((drawn.of(shown, zero)[drawn.hidden] == 0).all())
        found = drawn.of(shown, fill)
        torch.testing.assert_close(found[..., :2][~drawn.hidden], (observed + drawn.shift)[~drawn.hidden])
        torch.testing.assert_close(found[..., :2], filled(observed + drawn.shift, ~drawn.hidden, H36M_17))
        assert inputs == "points" or torch.equal(found[..., 2] == 0, drawn.hidden)
        nothing = setting("none", inputs=inputs)
        assert Occlusion(nothing.occlusion, H36M_17).apply(shown, nothing, seeded()) is shown


def test_a_mixture_moves_as_a_whole_and_is_hidden_as_such() -> None:
    observed = torch.rand(2, F, J, 10, generator=seeded()) + 0.1
    config = setting("joints:0.4+noise:3", inputs="mixture")
    drawn = Occlusion(config.occlusion, H36M_17).draw(2, F, seeded())
    found = drawn.of(observed, config)
    moved = (found - observed).unflatten(-1, (2, 5))[~drawn.hidden]
    torch.testing.assert_close(moved[..., 1:3], drawn.shift[~drawn.hidden][:, None].expand(-1, 2, -1))
    assert not moved[..., [0, 3, 4]].any() and not (found == observed)[drawn.hidden].all()


def test_missing_keypoints_do_not_tell_what_is_hidden() -> None:
    """Frames 3 and 4 were filled in from frame 5, which is hidden now; joint 9 was filled in from elsewhere, and stays."""
    observed = torch.cat((torch.arange(8.0).expand(2, J, 8).permute(2, 1, 0)[None] + 1, torch.ones(1, 8, J, 1)), -1)
    observed[:, 3:5, 8, 2] = observed[:, :, 9, 2] = 0
    hidden = torch.zeros(1, 8, J, dtype=torch.bool)
    hidden[:, 5:, 8] = True
    config = LiftingConfig(inputs="visible")
    found = Disturbance(hidden, torch.zeros(1, 8, J, 2)).of(observed, config)
    assert found[0, :, 8, 0].tolist() == [1, 2, 3, 3, 3, 3, 3, 3] and torch.equal(found[..., 9, :], observed[..., 9, :])


def test_filling() -> None:
    points = torch.zeros(3, 6, J, 2)
    points[0] = torch.tensor([9.0, 0, 9, 9, 6, 9])[:, None, None] + torch.arange(J)[:, None]
    seen = torch.zeros(3, 6, J, dtype=torch.bool)
    seen[0, [1, 4]] = True
    seen[0, :, [2, 3, 4, 5, 6]] = False  # the right knee takes the hip's place, and so does the ankle; the left leg the pelvis's
    found = filled(points, seen, H36M_17)
    line = torch.tensor([0.0, 0, 2, 4, 6, 6])
    stand_in = torch.arange(J).index_copy(0, torch.arange(2, 7), torch.tensor([1, 1, 0, 0, 0]))
    torch.testing.assert_close(found[0], (line[:, None, None] + stand_in[:, None]).expand(6, J, 2))
    assert not found[1:].any()
    seen[2, 0, 3], points[2, 0, 3] = True, 5.0  # nothing but an ankle: no ancestor of anything
    assert bool((filled(points, seen, H36M_17)[2] == 5).all())
