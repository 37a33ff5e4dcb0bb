"""Training of lifting models on windows of clips.

Every random draw is a function of (seed, step, rank), so that a run stopped at any moment and resumed from its last snapshot ends in the
same bits as one that was never stopped.
"""

import dataclasses
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dposer.data.heatmap_mixtures import StoredMaps
from dposer.data.lifting_clip import LiftingClip
from dposer.errors import InputError
from dposer.files import load_tensors, save_tensors
from dposer.lifting.checkpoint import LiftingCheckpoint
from dposer.lifting.config import LiftingConfig, OptimConfig
from dposer.lifting.methods import build_model
from dposer.lifting.model import MAX_BATCH, LiftingModel
from dposer.lifting.noise import Noise
from dposer.lifting.observed import mirrored, observe
from dposer.lifting.occlusion import Occlusion
from dposer.lifting.windows import clip_starts, flip, gather, train_starts
from dposer.metrics.poses import mpjpe
from dposer.prior.training import Ema, World, average_gradients
from dposer.randomness import keyed_generator

logger = logging.getLogger(__name__)

SNAPSHOT = "snapshot.pt"


@dataclass(frozen=True)
class Pair:
    """What a network sees of a clip and what it should say, F frames."""

    observed: Tensor
    """(F, J, I), see :mod:`dposer.lifting.observed`."""
    pose: Tensor
    """(F, J, 3) metres, relative to the root, which is zero."""

    @classmethod
    def of(cls, clip: LiftingClip, config: LiftingConfig) -> "Pair":
        """Raises :class:`InputError` for a clip without 3D joints."""
        if clip.joints is None:
            raise InputError(f"{clip.name}: no 3D joints, which training needs; leave this subject out")
        pose = clip.joints - clip.joints[:, clip.root : clip.root + 1]
        return cls(observed_of(clip, config), torch.from_numpy(np.ascontiguousarray(pose, dtype=np.float32)))


def observed_of(clip: LiftingClip, config: LiftingConfig) -> Tensor:
    """(F, J, I): the clip's heatmaps where the network sees those and the clip has them, else of its keypoints."""
    if config.inputs == "heatmap" and clip.heatmaps is not None:
        return torch.from_numpy(np.ascontiguousarray(clip.heatmaps[:], dtype=np.float32))
    return observe(clip.keypoints, clip.size, config, clip.mixture)


class WindowSet:
    """All windows of the training clips, from one copy of their frames."""

    def __init__(self, clips: Sequence[LiftingClip], config: LiftingConfig, device: torch.device) -> None:
        if not clips:
            raise InputError("training set: no clip, expected some; check the subjects and actions")
        self.stored = StoredMaps.joined([clip.heatmaps for clip in clips]) if config.inputs == "heatmap" else None
        """Heatmaps that stay in their file, in place of ``observed``."""
        seen = [clip if self.stored is None else dataclasses.replace(clip, heatmaps=None) for clip in clips]
        pairs = [Pair.of(clip, config) for clip in seen]
        self.observed = torch.cat([pair.observed for pair in pairs]).to(device)
        self.poses = torch.cat([pair.pose for pair in pairs]).to(device)
        self.frames, self.random_start, self.config = config.network.frames, config.optim.random_start, config
        lengths = torch.tensor([len(pair.pose) for pair in pairs])
        starts = [train_starts(int(length), self.frames) for length in lengths]
        clip = torch.repeat_interleave(torch.arange(len(pairs)), torch.tensor([len(some) for some in starts]))
        self._first = (lengths.cumsum(0) - lengths)[clip]
        self._length, self._start = lengths[clip], torch.cat(starts)
        self.flips = config.optim.flip
        self._occlusion = Occlusion(config.occlusion, config.skeleton)

    def __len__(self) -> int:
        return len(self._start) * (1 + self.flips)

    def windows(self, numbers: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """What is observed of some windows, occluded, and their poses; the second half of all windows are the mirrored ones."""
        turned, rows = numbers >= len(self._start), numbers % len(self._start)
        first, length, start = self._first[rows], self._length[rows], self._start[rows]
        if self.random_start:
            room = (length - self.frames).clamp(min=0)
            drawn = (torch.rand(len(rows), generator=generator) * (room + 1)).long().clamp(max=room)
            start = torch.where(length > self.frames, drawn, start)
        index = (start[:, None] + torch.arange(self.frames)).clamp(min=0).minimum(length[:, None] - 1) + first[:, None]
        index, side = index.to(self.poses.device), turned.to(self.poses.device)[:, None, None, None]
        observed, poses = self._observed(index), self.poses[index]
        if self.flips:
            layout = self.config.skeleton
            observed = torch.where(side, mirrored(observed, self.config.inputs, layout), observed)
            poses = torch.where(side, flip(poses, layout), poses)
        if self.config.optim.sizes:
            size = torch.randn(len(poses), 1, 1, 1, generator=generator).to(poses)
            poses = poses * (self.config.optim.sizes * size).exp()
        return self._occlusion.apply(observed, self.config, generator), poses

    def _observed(self, index: Tensor) -> Tensor:
        if self.stored is None:
            return self.observed[index]
        return torch.from_numpy(self.stored[index.flatten().cpu().numpy()]).unflatten(0, index.shape).to(self.poses)


class Trainer:
    """Trains the method of a recipe and writes resumable snapshots.

    Args:
        config: the recipe.
        clips: with 3D joints.
        folder: where snapshots go.
        snapshot_steps: between snapshots; one is also written after each epoch.
    """

    def __init__(
        self,
        config: LiftingConfig,
        clips: Sequence[LiftingClip],
        folder: Path,
        device: torch.device | str = "cpu",
        snapshot_steps: int = 500,
    ) -> None:
        self.config, self.folder, self.device, self.world = config, folder, torch.device(device), World.current()
        self.snapshot_steps = snapshot_steps
        if config.optim.batch % self.world.size:
            raise InputError(f"optim.batch = {config.optim.batch}, expected a multiple of the {self.world.size} processes")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = build_model(config).to(self.device)
        self.data = WindowSet(clips, config, self.device)
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.ema = Ema(self.parameters, config.optim.ema, config.optim.ema_every, config.optim.ema_after) if config.optim.ema else None
        kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[config.optim.optimizer]
        self.optimizer = kind(
            self.parameters, lr=config.optim.lr, weight_decay=config.optim.weight_decay, fused=self.device.type in ("cpu", "cuda")
        )
        self.step, self.best, self.plateau = 0, math.inf, Plateau(config.optim)
        self._order: tuple[int, Tensor] = (-1, torch.empty(0, dtype=torch.long))

    def start_from(self, checkpoint: LiftingCheckpoint) -> None:
        """Begin with trained weights, see :meth:`LiftingModel.start_from`."""
        self.model.start_from(checkpoint.config, checkpoint.weights)
        if self.ema is not None:
            torch._foreach_copy_(self.ema.shadow, [parameter.detach() for parameter in self.parameters])

    @property
    def epoch_steps(self) -> int:
        """Steps of an epoch; its last batch may be short."""
        return -(-(self.config.optim.epoch_windows or len(self.data)) // self.config.optim.batch)

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self.step // self.epoch_steps

    @property
    def done(self) -> bool:
        return self.epoch >= self.config.optim.epochs

    def run(self) -> Iterator[tuple[int, dict[str, float]]]:
        """The rest of the epoch, yielding (step, losses) of each batch.

        Raises:
            FloatingPointError: the loss is no longer finite; the last snapshot is from before that.
        """
        self.model.train()
        stop = (self.epoch + 1) * self.epoch_steps
        while self.step < stop:
            losses = self._advance()
            if not math.isfinite(losses["loss"]):
                raise FloatingPointError(f"the loss became {losses['loss']} at step {self.step}; resume with a lower optim.lr")
            yield self.step, losses
            if self.step % self.snapshot_steps == 0 and self.step < stop:
                self.save()

    def _advance(self) -> dict[str, float]:
        optim = self.config.optim
        rate = learning_rate(self.step, self.epoch_steps, optim) * self.plateau.rate
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        generator = keyed_generator("cpu", self.config.seed, self.step, self.world.rank)
        observed, poses = self.data.windows(self._batch(), generator)
        _seed(self.device, self.config.seed, self.step, self.world.rank)  # stochastic depth draws from the default generator
        with torch.autocast(self.device.type, torch.bfloat16, enabled=optim.amp and self.device.type == "cuda"):
            losses = self.model.loss(observed, poses, generator if self.device.type == "cpu" else None)
        self.optimizer.zero_grad()
        losses["loss"].backward()
        if self.world.size > 1:
            average_gradients(self.parameters, self.world.size)
        if optim.clip:
            nn.utils.clip_grad_norm_(self.parameters, optim.clip, foreach=True)
        self.optimizer.step()
        self.step += 1
        if self.ema is not None and self.step % self.ema.every == 0:
            self.ema.next_decay()
            self.ema.update()
        return {name: float(value.detach()) for name, value in losses.items()}

    def _batch(self) -> Tensor:
        """Numbers of this process's windows of the current step."""
        epoch, place = divmod(self.step, self.epoch_steps)
        if self._order[0] != epoch:
            generator = keyed_generator("cpu", self.config.seed, "epoch", epoch)
            wanted = self.config.optim.epoch_windows or len(self.data)
            orders = [torch.randperm(len(self.data), generator=generator) for _ in range(-(-wanted // len(self.data)))]
            self._order = (epoch, torch.cat(orders)[:wanted])
        some = self._order[1][place * self.config.optim.batch : (place + 1) * self.config.optim.batch]
        rest = -len(some) % self.world.size  # of a short last batch every process still gets as many
        return torch.cat((some, self._order[1][:rest]))[self.world.rank :: self.world.size]

    def judge(self, error: float) -> bool:
        """Take note of the validation error of an epoch; whether it is the lowest so far."""
        lowest = error < self.best
        self.best = min(self.best, error)
        self.plateau.judge(error)
        return lowest

    def trained(self) -> LiftingModel:
        """A copy in evaluation mode, with the averaged weights if there are any."""
        return self.checkpoint().model(self.device)

    def checkpoint(self, provenance: dict[str, Any] | None = None, averaged: bool = True) -> LiftingCheckpoint:
        """The current weights, averaged if they are, on the CPU; those that are trained if not ``averaged``."""
        weights = {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}
        if self.ema is not None and averaged:
            names = [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]
            weights |= {name: tensor.cpu().clone() for name, tensor in zip(names, self.ema.shadow, strict=True)}
        return LiftingCheckpoint(self.config, weights, provenance or {})

    def save(self) -> None:
        """Write the resumable snapshot (rank 0), whole or not at all."""
        if self.world.rank:
            return
        state = {
            "step": self.step,
            "best": self.best,
            "plateau": [self.plateau.mark, self.plateau.waited, self.plateau.cuts],
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "config": self.config.to_dict(),
            "data": self._fingerprint(),
        }
        if self.ema is not None:
            state |= {"ema": self.ema.shadow, "ema_updates": self.ema.updates}
        save_tensors(self.folder / SNAPSHOT, state)

    def resume(self) -> bool:
        """Continue from the folder's snapshot if there is one.

        Raises:
            InputError: it belongs to another recipe or another training set.
        """
        path = self.folder / SNAPSHOT
        if not path.is_file():
            return False
        state: dict[str, Any] = load_tensors(path, "a training snapshot")
        theirs = LiftingConfig.from_dict(state["config"], str(path)).to_dict()
        if changed := _changes(theirs, self.config.to_dict()):
            raise InputError(f"{path}: belongs to another recipe ({'; '.join(changed)}); use the same one or a new --name")
        if state["data"] != self._fingerprint():
            raise InputError(f"{path}: belongs to another training set; give the same data, subjects and actions, or a new --name")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            torch._foreach_copy_(self.ema.shadow, [tensor.to(self.device) for tensor in state["ema"]])
            self.ema.updates = state["ema_updates"]
        self.step, self.best = state["step"], state["best"]
        self.plateau.mark, self.plateau.waited, self.plateau.cuts = state["plateau"]
        logger.info("resumed at step %d from %s", self.step, path)
        return True

    def _fingerprint(self) -> list[float]:
        double = self.data.poses.double()
        return [float(len(double)), round(float(double.sum()), 2), round(float(self.data.observed.double().sum()), 2)]


def learning_rate(step: int, epoch_steps: int, config: OptimConfig) -> float:
    """lr · decay^⌊epoch / decay_epochs⌋, or lr · ½ (1 + cos(π step / steps)); with a linear warm-up. That of a plateau is lr here."""
    rate = config.lr * (min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0)
    if config.schedule == "cosine":
        return rate * 0.5 * (1 + math.cos(math.pi * min(1.0, step / (config.epochs * epoch_steps))))
    if config.schedule == "plateau":
        return rate
    return rate * config.decay ** (step // epoch_steps // config.decay_epochs)


class Plateau:
    """Times ``decay`` whenever for more than ``patience`` epochs the error was not a share ``threshold`` below its mark, its last such low.

    Without effect but with ``schedule="plateau"``.
    """

    def __init__(self, config: OptimConfig) -> None:
        self.config = config
        self.mark, self.waited, self.cuts = math.inf, 0, 0

    @property
    def rate(self) -> float:
        return self.config.decay**self.cuts if self.config.schedule == "plateau" else 1.0

    def judge(self, error: float) -> None:
        """Take note of an epoch."""
        if error < self.mark * (1 - self.config.threshold):
            self.mark, self.waited = error, 0
            return
        self.waited += 1
        if self.waited > self.config.patience:
            self.waited, self.cuts = 0, self.cuts + 1


def validation_error(model: LiftingModel, clips: Sequence[LiftingClip], every: int = 1, max_batch: int = MAX_BATCH) -> float:
    """MPJPE in metres of one hypothesis in few steps, over every ``every``-th window of the clips, each alike; occluded as in training."""
    config, frames, errors = model.config, model.config.network.frames, []
    occlusion = Occlusion(config.occlusion, config.skeleton)
    device = next(model.parameters()).device
    for number, clip in enumerate(clips):
        pair = Pair.of(clip, config)
        starts = clip_starts(len(clip), frames)[number % every :: every]
        if not len(starts):
            continue
        generators = [keyed_generator("cpu", "validation", clip.name, int(start)) for start in starts]
        observed = occlusion.apply(gather(pair.observed, starts, frames), config, generators).to(device)
        poses = model.predict(observed, steps=model.quick, noise=Noise.of(0, clip.name, starts), max_batch=max_batch)[:, -1, 0].cpu()
        errors.append(mpjpe(poses, gather(pair.pose, starts, frames)))
    if not errors:
        raise InputError("validation set: no clip, expected some; check its subjects")
    return float(torch.cat(errors).mean())


def _changes(theirs: dict[str, Any], mine: dict[str, Any], prefix: str = "") -> list[str]:
    """Keys whose values differ; the number of epochs may grow."""
    changes: list[str] = []
    for key, value in mine.items():
        other = theirs.get(key)
        if isinstance(value, dict) and isinstance(other, dict):
            changes += _changes(other, value, f"{prefix}{key}.")
        elif other != value and key != "epochs":
            changes.append(f"{prefix}{key} was {other!r}, is {value!r}")
    return changes


def _seed(device: torch.device, *key: int) -> None:
    generator = torch.default_generator if device.type == "cpu" else torch.cuda.default_generators[device.index or 0]
    generator.manual_seed(keyed_generator("cpu", "default", *key).initial_seed())
