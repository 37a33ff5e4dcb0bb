"""Training: windows, resumption to the bit, what is refused; and the public face on what was trained."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from dposer.body.skeleton import H36M_17
from dposer.data.lifting_clip import LiftingClip
from dposer.errors import InputError
from dposer.geometry.lens import Lens
from dposer.lifting import Lifter
from dposer.lifting.checkpoint import load_lifting, save_lifting
from dposer.lifting.config import LiftingConfig, LossConfig, NetworkConfig, OptimConfig
from dposer.lifting.training import Plateau, Trainer, WindowSet, learning_rate, validation_error
from dposer.lifting.windows import flip
from dposer.prior.training import Ema

SIZE = (1000, 1000)
CONFIG = LiftingConfig(
    method="ddhpose",
    network=NetworkConfig(frames=9, channels=16, depth=2, heads=2),
    loss=LossConfig("bones"),
    optim=OptimConfig(lr=3e-3, epochs=2, batch=4, ema=0.9),
)


def _clips(*lengths: int) -> list[LiftingClip]:
    lens, clips = Lens.of((1100, 1100), (500, 500)), []
    for number, length in enumerate(lengths):
        random = np.random.default_rng(number)
        rest = random.normal(0, 0.3, (1, 17, 3))
        joints = (rest - rest[:, :1] + random.normal(0, 0.01, (length, 17, 3)).cumsum(0) + [0, 0, 4]).astype(np.float32)
        pixels = lens.project(torch.tensor(joints)).numpy()
        keypoints = np.concatenate((pixels, np.ones((length, 17, 1))), -1).astype(np.float32)
        clips.append(LiftingClip("S1", f"Walk {number}", "0", keypoints, joints, SIZE, lens, H36M_17, 50.0))
    return clips


def test_windows_are_those_of_their_clips_and_the_second_half_is_mirrored() -> None:
    clips = _clips(20, 5)
    data = WindowSet(clips, CONFIG, torch.device("cpu"))
    assert len(data) == 2 * (3 + 1)
    keypoints, poses = data.windows(torch.arange(8), torch.Generator())
    torch.testing.assert_close(flip(poses[:4], H36M_17), poses[4:])
    torch.testing.assert_close(flip(keypoints[:4], H36M_17), keypoints[4:])
    relative = torch.tensor(clips[0].joints - clips[0].joints[:, :1])  # type: ignore[operator, index]
    torch.testing.assert_close(poses[1], relative[6:15])  # 27 frames for 20: 3 hang over at the head
    assert torch.equal(poses[3, 0], poses[3, 1]) and torch.equal(poses[3, -1], poses[3, -2])
    anywhere = WindowSet(clips, dataclasses.replace(CONFIG, optim=OptimConfig(random_start=True)), torch.device("cpu"))
    _, poses = anywhere.windows(torch.zeros(60, dtype=torch.long), torch.Generator().manual_seed(0))
    starts = {int((relative - pose[0]).flatten(1).norm(dim=1).argmin()) for pose in poses}
    assert starts == set(range(12))


def test_people_of_other_sizes_look_the_same() -> None:
    sized = WindowSet(_clips(20), dataclasses.replace(CONFIG, optim=OptimConfig(sizes=0.05)), torch.device("cpu"))
    plain = WindowSet(_clips(20), CONFIG, torch.device("cpu"))
    rows = torch.zeros(2000, dtype=torch.long)
    (seen, larger), (same, poses) = (data.windows(rows, torch.Generator().manual_seed(0)) for data in (sized, plain))
    ratio = larger.flatten(1).norm(dim=1) / poses.flatten(1).norm(dim=1)
    torch.testing.assert_close(larger, ratio[:, None, None, None] * poses)
    assert torch.equal(seen, same) and float(ratio.log().std()) == pytest.approx(0.05, rel=0.1)


def test_averages_are_copies_at_first() -> None:
    """Every 10 steps; for 100 steps a copy, then at most 1 − (1 + n)^(−2/3)."""
    weight = torch.zeros(1)
    average = Ema([weight], 0.995, every=10, after=100)
    for update in range(1, 13):
        weight += 1
        average.next_decay()
        average.update()
        if update <= 10:
            assert average.shadow[0] == weight
    decay = 1 - (1 + 19) ** (-2 / 3)  # of step 120; at 110, n = 9
    before = 10 + (1 - (1 - 10 ** (-2 / 3)))
    assert float(average.shadow[0]) == pytest.approx(decay * before + (1 - decay) * 12, abs=1e-5)


def _run(folder: Path, stops: tuple[int, ...]) -> Trainer:
    """Trains to the end, stopped and begun again after the given numbers of batches."""
    for stop in (*stops, None):
        trainer = Trainer(CONFIG, _clips(60, 31), folder, snapshot_steps=1)
        trainer.resume()
        for count, _ in enumerate(step for _ in iter(lambda trainer=trainer: trainer.done, True) for step in trainer.run()):
            if stop is not None and count + 1 > stop:
                break
    trainer.save()
    return trainer


def test_a_stopped_run_ends_in_the_same_bits(tmp_path: Path) -> None:
    whole, pieces = _run(tmp_path / "a", ()), _run(tmp_path / "b", (2, 3))
    assert whole.step == pieces.step == 2 * whole.epoch_steps and whole.done
    mine, theirs = whole.checkpoint().weights, pieces.checkpoint().weights
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())
    again = Trainer(dataclasses.replace(CONFIG, seed=5), _clips(60, 31), tmp_path / "a")
    with pytest.raises(InputError, match="seed was 1, is 5"):
        again.resume()
    with pytest.raises(InputError, match="another training set"):
        Trainer(CONFIG, _clips(60), tmp_path / "a").resume()


@pytest.mark.parametrize("method", ["d3dp", "ddhpose"])
def test_mixste_is_where_the_others_can_start(method: str, tmp_path: Path) -> None:
    clips = _clips(31)
    regressor = Trainer(dataclasses.replace(CONFIG, method="mixste", loss=LossConfig("position")), clips, tmp_path)
    trainer = Trainer(dataclasses.replace(CONFIG, method=method), clips, tmp_path)  # type: ignore[arg-type]
    trainer.start_from(regressor.checkpoint())
    weights, given = dict(trainer.model.named_parameters()), regressor.checkpoint().weights
    first = weights["network.patch.weight"]
    assert torch.equal(first[:, :2], given["network.patch.weight"]) and first[:, 2:].any() and weights["network.time.3.weight"].any()
    assert all(torch.equal(weights[name], tensor) for name, tensor in given.items() if name != "network.patch.weight")
    assert not any(weight.any() for name, weight in weights.items() if "qkv_xc" in name)
    with pytest.raises(InputError, match="give weights of mixste, and their network"):
        regressor.start_from(trainer.checkpoint())


def test_a_plateau_halves_the_rate() -> None:
    plateau, rates = Plateau(OptimConfig(schedule="plateau", decay=0.5, patience=2, threshold=0.1)), []
    for error in (10, 9.5, 9.2, 8.9, 8.8, 8.7, 8.6, 7.0):  # 8.9 is the first 10 % below 10
        plateau.judge(error)
        rates.append(plateau.rate)
    assert rates == [1, 1, 1, 1, 1, 1, 0.5, 0.5]


def test_learning_rates() -> None:
    published = OptimConfig(lr=1.0, decay=0.5)
    assert [learning_rate(step, 3, published) for step in (0, 2, 3, 6)] == [1, 1, 0.5, 0.25]
    slower = OptimConfig(lr=1.0, decay=0.5, decay_epochs=2)
    assert [learning_rate(step, 3, slower) for step in (0, 5, 6, 12)] == [1, 1, 0.5, 0.25]
    ours = OptimConfig(lr=1.0, schedule="cosine", epochs=2, warmup=2)
    assert [learning_rate(step, 4, ours) for step in (0, 4, 8)] == pytest.approx([0.5, 0.5, 0])


def test_a_trained_model_lifts_a_clip_of_any_length(tmp_path: Path) -> None:
    trainer = Trainer(CONFIG, _clips(60, 31), tmp_path)
    path = tmp_path / "small.safetensors"
    save_lifting(path, trainer.checkpoint({"note": "untrained"}))
    assert load_lifting(path).provenance == {"note": "untrained"}
    lifter = Lifter.from_pretrained(path)
    (clip,) = _clips(22)
    lifted = lifter(clip.keypoints, SIZE, clip.lens, hypotheses=3, steps=2)
    assert (
        lifted.hypotheses.shape == (3, 22, 17, 3)
        and lifted.steps == 2
        and lifted.poses.shape == (22, 17, 3)
        and lifted.root.shape == (22, 3)
    )
    torch.testing.assert_close(lifted.poses, lifted.hypotheses.mean(0))
    assert not lifted.poses[:, 0].any() and not lifted.filled.any() and not any("camera" in note for note in lifted.notes)
    torch.testing.assert_close(lifter(clip.keypoints, SIZE, clip.lens, hypotheses=3, steps=2, max_batch=1).poses, lifted.poses)
    holes = clip.keypoints.copy()
    holes[3:6, 13] = np.nan
    holes[:, 16, 2] = 0
    found = lifter(holes, SIZE, hypotheses=2, steps=1, aggregate="joint", overlap=4)
    assert found.filled[3:6, 13].all() and found.filled[:, 16].all() and int(found.filled.sum()) == 25
    assert bool(torch.isfinite(found.poses).all()) and any("focal length of 1414" in note for note in found.notes)
    short = lifter(clip.keypoints[:4], SIZE, clip.lens, hypotheses=1, steps=1)
    assert short.poses.shape == (4, 17, 3) and any("4 frames" in note for note in short.notes)
    assert validation_error(lifter.model, _clips(60, 31), every=2) > 0


@pytest.mark.parametrize(
    ("keypoints", "options", "message"),
    [
        (np.zeros((5, 16, 2)), {}, "expected \\(frames, 17, 2 or 3\\) in the order of h36m17"),
        (np.full((5, 17, 2), np.nan), {}, "no person"),
        (np.ones((5, 17, 2)), {"aggregate": "best"}, "aggregate 'best', expected auto"),
        (np.ones((5, 17, 2)), {"overlap": 9}, "overlap = 9"),
    ],
)
def test_what_cannot_be_lifted_is_named(keypoints: np.ndarray, options: dict[str, object], message: str) -> None:
    lifter = Lifter(Trainer(CONFIG, _clips(9), Path()).checkpoint())
    with pytest.raises(InputError, match=message):
        lifter(keypoints, SIZE, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="neither a file nor one of mixste"):
        Lifter.from_pretrained("ddpose")


def test_a_broken_checkpoint_is_named(tmp_path: Path) -> None:
    checkpoint = Trainer(CONFIG, _clips(9), tmp_path).checkpoint()
    path = tmp_path / "x.safetensors"
    save_lifting(path, checkpoint)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_lifting(path)
    other = dataclasses.replace(checkpoint, config=dataclasses.replace(CONFIG, method="d3dp"))
    save_lifting(path, other)
    with pytest.raises(InputError, match="network.group.* not known, expected those of d3dp"):
        load_lifting(path)
    save_lifting(path, dataclasses.replace(checkpoint, config=dataclasses.replace(CONFIG, network=NetworkConfig(9, 32, 2, 2))))
    with pytest.raises(InputError, match="has shape"):
        load_lifting(path)
    checkpoint.weights["network.group"][:] = np.nan
    with pytest.raises(InputError, match="NaN"):
        save_lifting(path, checkpoint)
