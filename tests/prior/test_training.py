"""Training: resume is bit-exact, the EMA and the rates follow their formulas, bad runs stop with one line."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dposer.data.processed import PoseSplit, write_split
from dposer.errors import InputError
from dposer.prior.config import DataConfig, ModelConfig, OptimConfig, PriorConfig, TrainingConfig
from dposer.prior.training import BatchSampler, Ema, Trainer, World, learning_rate

ROOT = Path(__file__).parents[2]
SMALL = PriorConfig(
    data=DataConfig(mirror=True, balance=0.5, rotation_noise=0.01),
    model=ModelConfig(HIDDEN_DIM=64, EMBED_DIM=32, N_BLOCKS=1),
    training=TrainingConfig(batch_size=32, n_iters=30, log_freq=5, eval_freq=15, snapshot_freq=10),
    optim=OptimConfig(warmup=5, lr=1e-3),
)


@pytest.fixture
def poses(generator: torch.Generator) -> Tensor:
    return 0.3 * torch.randn(200, 63, generator=generator)


@pytest.fixture
def subject() -> Tensor:
    return torch.arange(200) % 3


def _weights(trainer: Trainer) -> list[Tensor]:
    return [p.detach().clone() for p in trainer.parameters] + [p.clone() for p in trainer.ema.shadow]


@pytest.mark.parametrize("data", [SMALL.data, DataConfig(rot_rep="rot6d"), DataConfig(min_max=True)])
def test_a_killed_run_resumes_to_the_same_bits(tmp_path: Path, poses: Tensor, subject: Tensor, data: DataConfig) -> None:
    config = replace(SMALL, data=data)
    whole = Trainer(config, poses, tmp_path / "whole", subject=subject)
    losses = dict(whole.run())
    killed = Trainer(config, poses, tmp_path / "killed", subject=subject)
    for step, _ in killed.run():
        if step == 25:  # past the snapshot of step 20: five steps are lost
            break
    torch.manual_seed(99)  # another process has another random state
    resumed = Trainer(config, poses, tmp_path / "killed", subject=subject)
    assert resumed.resume() and resumed.step == 20
    assert {step: losses[step] for step in (25, 30)} == dict(resumed.run())
    assert all(torch.equal(a, b) for a, b in zip(_weights(whole), _weights(resumed), strict=True))


def test_another_recipe_or_data_set_cannot_be_resumed(tmp_path: Path, poses: Tensor, subject: Tensor) -> None:
    list(Trainer(SMALL, poses, tmp_path, subject=subject).run(10))
    with pytest.raises(InputError, match=r"optim.lr was 0.001, is 0.1"):
        Trainer(replace(SMALL, optim=replace(SMALL.optim, lr=0.1)), poses, tmp_path, subject=subject).resume()
    with pytest.raises(InputError, match="another training set"):
        Trainer(SMALL, poses + 1, tmp_path, subject=subject).resume()


def test_a_snapshot_that_is_cut_short_is_refused(tmp_path: Path, poses: Tensor, subject: Tensor) -> None:
    list(Trainer(SMALL, poses, tmp_path, subject=subject).run(10))
    snapshot = tmp_path / "snapshot.pt"
    snapshot.write_bytes(snapshot.read_bytes()[:1000])
    with pytest.raises(InputError, match="snapshot.pt"):
        Trainer(SMALL, poses, tmp_path, subject=subject).resume()


def test_training_lowers_the_loss(tmp_path: Path, poses: Tensor, subject: Tensor) -> None:
    config = replace(SMALL, training=replace(SMALL.training, n_iters=300, log_freq=50, snapshot_freq=300))
    losses = [loss for _, loss in Trainer(config, poses, tmp_path, subject=subject).run()]
    assert losses[-1] < 0.8 * losses[0]


def test_the_auxiliary_loss_and_the_discrete_losses_train(tmp_path: Path, poses: Tensor) -> None:
    plain = replace(SMALL, data=DataConfig(), training=replace(SMALL.training, n_iters=5))
    auxiliary = replace(plain, training=replace(plain.training, auxiliary_loss=True))
    calls = []

    def count(prior: object, pose: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        calls.append(x_t.shape)
        return torch.zeros(())

    list(Trainer(auxiliary, poses, tmp_path / "a", auxiliary=count).run())
    assert calls == [torch.Size([32, 63])] * 5
    for sde in ("vpsde", "vesde"):
        discrete = replace(plain, training=replace(plain.training, sde=sde, continuous=False))
        assert all(loss > 0 for _, loss in Trainer(discrete, poses, tmp_path / sde).run())


def test_divergence_stops_the_run_and_keeps_the_last_snapshot(tmp_path: Path, poses: Tensor, subject: Tensor) -> None:
    trainer = Trainer(SMALL, poses, tmp_path, subject=subject)
    list(trainer.run(10))
    with torch.no_grad():
        trainer.parameters[0].fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="lower optim.lr"):
        list(trainer.run())
    resumed = Trainer(SMALL, poses, tmp_path, subject=subject)
    assert resumed.resume() and resumed.step == 10


def test_ema_follows_its_recurrence(generator: torch.Generator) -> None:
    parameter = nn.Parameter(torch.zeros(3))
    ema = Ema([parameter], rate=0.5)
    expected = torch.zeros(3)
    for n in range(1, 30):
        with torch.no_grad():
            parameter.copy_(torch.randn(3, generator=generator))
        ema.next_decay()
        ema.update()
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * parameter.detach()
        torch.testing.assert_close(ema.shadow[0], expected)


def test_learning_rates() -> None:
    published = OptimConfig()
    assert [learning_rate(s, published, 400_001) for s in (0, 2500, 5000, 400_000)] == pytest.approx([0, 1e-4, 2e-4, 2e-4])
    cosine = OptimConfig(schedule="cosine")
    assert [learning_rate(s, cosine, 200_000) for s in (100_000, 200_000)] == pytest.approx([1e-4, 0])


def test_an_epoch_visits_each_pose_once_and_ranks_share_it() -> None:
    cpu = torch.device("cpu")
    whole = BatchSampler(100, 20, 0, World(), None, cpu)
    epoch = torch.cat([whole(step) for step in range(5)])
    assert sorted(epoch.tolist()) == list(range(100))
    halves = [BatchSampler(100, 20, 0, World(rank, 2), None, cpu)(3) for rank in (0, 1)]
    assert torch.equal(torch.cat(halves), whole(3))


def test_balanced_draws_give_each_subject_its_share() -> None:
    subject = torch.tensor([0] * 900 + [1] * 100)
    weights = torch.bincount(subject).double()[subject] ** -1.0
    draws = torch.cat([BatchSampler(1000, 500, 0, World(), weights, torch.device("cpu"))(step) for step in range(20)])
    assert abs(float((subject[draws] == 1).double().mean()) - 0.5) < 0.02


def test_two_processes_train_one_model(tmp_path: Path, poses: Tensor, subject: Tensor) -> None:
    for split in ("train", "valid"):
        write_split(tmp_path / "data" / "version1", split, PoseSplit(poses, torch.zeros(200, 3), torch.zeros(200, 10), subject))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "run.train"]
    command += ["--dataset-folder", str(tmp_path / "data"), "--output", str(tmp_path), "--name", "pair", "--device", "cpu"]
    command += ["--config.model.HIDDEN_DIM", "64", "--config.model.EMBED_DIM", "32", "--config.training.batch_size", "32"]
    command += ["--config.training.n_iters", "20", "--config.training.snapshot_freq", "10", "--config.optim.warmup", "1"]
    result = subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "pair" / "last.safetensors").is_file() and (tmp_path / "pair" / "snapshot.pt").is_file()
