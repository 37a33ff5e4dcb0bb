"""Denoising score matching of body poses: E_{t, x_0, z} ‖ε_θ(α_t x_0 + σ_t z, t) − z‖².

Source: Song et al., ICLR 2021 (arXiv 2011.13456), eq. 7; recipe of DPoser (arXiv 2312.05541).

The corpus lives on the device, a step is one call without host synchronisation (a CUDA graph where there is CUDA),
and every random draw is a function of (seed, step, rank), so that a run killed at any moment and resumed from its last
snapshot ends in the same bits as one that was never stopped.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dposer.body.rotations import mirror_pose
from dposer.diffusion.objective import denoising_loss, draw_times
from dposer.diffusion.schedule import VPSDE, Schedule
from dposer.errors import InputError
from dposer.files import load_tensors, save_tensors
from dposer.prior.config import OptimConfig, PriorConfig
from dposer.prior.masks import draw_known, masked_loss
from dposer.prior.networks import build_denoiser, build_network, build_schedule
from dposer.prior.normalizer import Normalizer
from dposer.prior.pose_prior import PosePrior

logger = logging.getLogger(__name__)

SNAPSHOT = "snapshot.pt"
AuxiliaryLoss = Callable[[PosePrior, Tensor, Tensor, Tensor], Tensor]


class Ema:
    """Exponential moving average θ̄ ← d θ̄ + (1 − d) θ with d = min(rate, (1 + n) / (10 + n)) after n updates.

    Args:
        every: steps between two updates.
        after: steps for which θ̄ is a copy; then d = min(rate, 1 − (1 + n)^(−2/3)), n being steps since then. 0: the rule above.
    """

    def __init__(self, parameters: Sequence[Tensor], rate: float, every: int = 1, after: int = 0):
        self.rate, self.updates, self.every, self.after = rate, 0, every, after
        self.parameters = list(parameters)
        self.shadow = [p.detach().clone() for p in parameters]
        self._weight = torch.zeros((), device=parameters[0].device)

    def next_decay(self) -> None:
        """Advance n and place 1 − d on the device; kept apart from :meth:`update` so that a CUDA graph can hold the latter."""
        self.updates += 1
        self._weight.fill_(1 - min(self.rate, self._most()))

    def _most(self) -> float:
        if not self.after:
            return (1 + self.updates) / (10 + self.updates)
        since = self.updates * self.every - self.after - 1
        return 1 - (1 + since) ** (-2 / 3) if since >= 0 else 0.0

    @torch.no_grad()
    def update(self) -> None:
        torch._foreach_lerp_(self.shadow, self.parameters, self._weight)  # type: ignore[call-overload]  # stubs lack the tensor weight


@dataclass(frozen=True)
class World:
    """This process's place among the data-parallel ones."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "World":
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()


class BatchSampler:
    """Indices of the batch of a step: shuffled epochs, or draws with weight n_s^(−balance) for a pose of a subject with n_s frames."""

    def __init__(self, count: int, batch: int, seed: int, world: World, weights: Tensor | None, device: torch.device):
        if batch % world.size:
            raise InputError(f"training.batch_size = {batch}, expected a multiple of the {world.size} processes")
        if weights is None and count < batch:
            raise InputError(f"training set: {count} poses, expected at least one batch of {batch}; lower training.batch_size")
        self.count, self.batch, self.seed, self.world, self.device = count, batch, seed, world, device
        self.cumulative = None if weights is None else (weights.double().cumsum(0) / weights.double().sum())
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.long)

    def __call__(self, step: int) -> Tensor:
        local = self.batch // self.world.size
        if self.cumulative is None:
            epoch, place = divmod(step, self.count // self.batch)
            if epoch != self._epoch:
                self._epoch = epoch
                self._order = torch.randperm(self.count, generator=self._generator(epoch)).to(self.device)
            batch = self._order[place * self.batch : (place + 1) * self.batch]
        else:
            uniform = torch.rand(self.batch, dtype=torch.float64, generator=self._generator(step))
            batch = torch.searchsorted(self.cumulative, uniform).clamp_(max=self.count - 1).to(self.device)
        return batch[self.world.rank * local : (self.world.rank + 1) * local]

    def _generator(self, number: int) -> torch.Generator:
        return torch.Generator().manual_seed(hash((self.seed, number)) & (2**63 - 1))


class Trainer:
    """Trains a pose prior and writes resumable snapshots.

    Args:
        config: the recipe.
        poses: (N, 63) training poses, axis-angle radians.
        folder: where snapshots go.
        subject: (N,) subject of each pose, needed if ``config.data.balance > 0``.
        device: default CPU.
        auxiliary: (prior, clean poses, noisy normalised poses, t) → scalar, added if ``config.training.auxiliary_loss``.
    """

    def __init__(
        self,
        config: PriorConfig,
        poses: Tensor,
        folder: Path,
        *,
        subject: Tensor | None = None,
        device: torch.device | str = "cpu",
        auxiliary: AuxiliaryLoss | None = None,
    ):
        _check_masks(config)
        self.config, self.folder, self.device, self.world = config, folder, torch.device(device), World.current()
        self.auxiliary = auxiliary if config.training.auxiliary_loss else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            network = build_network(config.model, 126 if config.data.rot_rep == "rot6d" else 63)
        training_poses = torch.cat([poses, mirror_pose(poses)]) if config.data.mirror else poses
        self.normalizer = Normalizer.fit(training_poses, config.data).to(self.device)
        self.network = network.to(self.device)
        self.denoiser = build_denoiser(self.network, config)
        self.denoiser.schedule = _training_schedule(config)
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.ema = Ema(self.parameters, config.model.ema_rate)
        self.optimizer = _optimizer(self.parameters, config.optim, self.device)
        self.sampler = BatchSampler(
            len(poses), config.training.batch_size, config.seed, self.world, _weights(subject, config.data.balance), self.device
        )
        self.poses = poses.to(self.device)
        self.step = 0
        self._last_loss = torch.zeros((), device=self.device)
        self._batch = torch.empty(config.training.batch_size // self.world.size, dtype=torch.long, device=self.device)
        self._graph: torch.cuda.CUDAGraph | None = None

    def start_from(self, prior: PosePrior) -> None:
        """Begin with the weights and the normaliser of a trained prior, which may lack a mask.

        Raises:
            InputError: its network has other sizes than the recipe's.
        """
        theirs, mine = prior.denoiser.network.state_dict(), self.network.state_dict()
        wrong = [name for name, tensor in theirs.items() if name not in mine or mine[name].shape != tensor.shape]
        if wrong or mine.keys() - theirs.keys() - {"known_dense.weight"}:
            raise InputError(
                f"the weights to start from: {wrong[0] if wrong else 'layers'} differ from the recipe's; give its model section"
            )
        self.network.load_state_dict(theirs, strict=False)
        torch._foreach_copy_(self.ema.shadow, [p.detach() for p in self.parameters])
        self.normalizer = prior.normalizer.to(self.device)

    def prior(self, averaged: bool = True) -> PosePrior:
        """The current prior in evaluation mode, by default with the averaged weights (a copy)."""
        network = build_network(self.config.model, self.normalizer.dim).to(self.device)
        network.load_state_dict(self.network.state_dict())
        if averaged:
            with torch.no_grad():
                for parameter, average in zip((p for p in network.parameters() if p.requires_grad), self.ema.shadow, strict=True):
                    parameter.copy_(average)
        return PosePrior(network, self.normalizer, self.config).eval().requires_grad_(False)

    def run(self, until: int | None = None) -> Iterator[tuple[int, float]]:
        """Train up to step ``until`` (default: the recipe's ``n_iters``), yielding (step, mean loss) every ``log_freq`` steps.

        Raises:
            FloatingPointError: the loss is no longer finite; the last snapshot is from before that.
        """
        settings = self.config.training
        until = settings.n_iters if until is None else until
        total, count = torch.zeros((), device=self.device), 0
        while self.step < until:
            if self.step % settings.snapshot_freq == 0:
                _seed(self.device, self.config.seed, self.step, self.world.rank)
            total += self._advance()
            count += 1
            if self.step % settings.log_freq == 0 or self.step == until:
                mean = float(total) / count
                if not math.isfinite(mean):
                    raise FloatingPointError(
                        f"the training loss became {mean} by step {self.step}; resume from the last snapshot with a lower optim.lr"
                    )
                yield self.step, mean
                total.zero_()
                count = 0
            if self.step % settings.snapshot_freq == 0 or self.step == settings.n_iters:
                self.save()

    def _advance(self) -> Tensor:
        """One optimiser step; returns its loss, still on the device."""
        self._batch.copy_(self.sampler(self.step))
        self.ema.next_decay()
        for group in self.optimizer.param_groups:
            rate = learning_rate(self.step, self.config.optim, self.config.training.n_iters)
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        if self.device.type == "cuda" and self.world.size == 1 and self.auxiliary is None:
            if self._graph is None and self.ema.updates > 3:  # lazily made optimiser state must exist before capture
                self._graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self._graph):
                    self._update()
            if self._graph is not None:
                self._graph.replay()
            else:
                self._update()
        else:
            self._update()
        self.step += 1
        return self._last_loss

    def _update(self) -> None:
        self.network.train()
        loss = self._loss(self._augmented(self.poses[self._batch]))
        self.optimizer.zero_grad(set_to_none=False)
        loss.backward()
        if self.world.size > 1:
            average_gradients(self.parameters, self.world.size)
        if self.config.optim.grad_clip > 0:
            nn.utils.clip_grad_norm_(self.parameters, self.config.optim.grad_clip, foreach=True)
        self.optimizer.step()
        self.ema.update()
        self._last_loss.copy_(loss.detach())

    def _augmented(self, pose: Tensor) -> Tensor:
        data = self.config.data
        if data.mirror:
            flip = torch.rand(len(pose), 1, device=self.device) < 0.5
            pose = torch.where(flip, mirror_pose(pose), pose)
        if data.rotation_noise > 0:
            pose = pose + data.rotation_noise * torch.randn_like(pose)
        return pose

    def _loss(self, pose: Tensor) -> Tensor:
        settings = self.config.training
        x = self.normalizer.normalize(pose)
        t = self._times(len(x))
        noise = torch.randn_like(x)
        if settings.mask_rate > 0:
            return masked_loss(self.denoiser, x, draw_known(len(x), x.shape[1], settings.mask_rate, x.device), t, noise)
        loss = denoising_loss(
            self.denoiser, x, t=t, noise=noise, reduce_mean=settings.reduce_mean, likelihood_weighting=settings.likelihood_weighting
        )
        if self.auxiliary is not None:
            prior = PosePrior(self.network, self.normalizer, self.config)
            loss = loss + self.auxiliary(prior, pose, self.denoiser.schedule.perturb(x, t, noise), t)
        return loss

    def _times(self, batch: int) -> Tensor:
        """(batch,) times, or (K,) shared by batch / K samples each, one in each K-th of (ε, 1): the marginal stays uniform."""
        settings, schedule = self.config.training, self.denoiser.schedule
        if not settings.continuous:
            return draw_times(schedule, batch, levels=self.config.model.num_scales, device=self.device)
        if not settings.shared_times:
            return draw_times(schedule, batch, device=self.device)
        k = settings.shared_times
        strata = (torch.arange(k, device=self.device) + torch.rand(k, device=self.device)) / k
        return 1e-5 + strata * (1 - 1e-5)

    def save(self) -> None:
        """Write the resumable snapshot (rank 0), whole or not at all."""
        if any(not bool(torch.isfinite(p).all()) for p in self.ema.shadow):
            raise FloatingPointError(f"weights are no longer finite at step {self.step}; the last snapshot is kept")
        if self.world.rank == 0:
            save_tensors(
                self.folder / SNAPSHOT,
                {
                    "step": self.step,
                    "network": self.network.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "ema": self.ema.shadow,
                    "ema_updates": self.ema.updates,
                    "config": self.config.to_dict(),
                    "poses": _fingerprint(self.poses),
                },
            )

    def resume(self) -> bool:
        """Continue from the folder's snapshot if there is one.

        Raises:
            InputError: it belongs to another recipe or another training set.
        """
        path = self.folder / SNAPSHOT
        if not path.is_file():
            return False
        state: dict[str, Any] = load_tensors(path, "a training snapshot")
        mine = self.config.to_dict()
        changed = [
            f"{section}.{key} was {value!r}, is {mine[section][key]!r}"
            for section, values in state["config"].items()
            if isinstance(values, dict)
            for key, value in values.items()
            if mine[section][key] != value and key != "n_iters"
        ]
        if changed:
            raise InputError(f"{path}: belongs to another recipe ({'; '.join(changed)}); use the same one or a new --name")
        if state["poses"] != _fingerprint(self.poses):
            raise InputError(f"{path}: belongs to another training set; give the same --dataset-folder and --version or a new --name")
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch._foreach_copy_(self.ema.shadow, [tensor.to(self.device) for tensor in state["ema"]])
        self.ema.updates, self.step = state["ema_updates"], state["step"]
        logger.info("resumed at step %d from %s", self.step, path)
        return True


def learning_rate(step: int, config: OptimConfig, n_iters: int) -> float:
    """Linear warm-up lr · min(step / warmup, 1) counted before the update, times ½(1 + cos(π step / n_iters)) for ``cosine``."""
    rate = config.lr * (min(step / config.warmup, 1.0) if config.warmup else 1.0)
    return rate * (0.5 * (1 + math.cos(math.pi * min(step / n_iters, 1.0))) if config.schedule == "cosine" else 1.0)


def _optimizer(parameters: list[nn.Parameter], config: OptimConfig, device: torch.device) -> torch.optim.Optimizer:
    capturable = device.type == "cuda"
    lr = torch.tensor(config.lr, device=device) if capturable else config.lr
    shared: dict[str, Any] = {
        "lr": lr, "betas": (config.beta1, 0.999), "eps": config.eps, "weight_decay": config.weight_decay, "capturable": capturable,
    }  # fmt: skip
    if config.optimizer == "RAdam":
        return torch.optim.RAdam(parameters, **shared)
    kind = torch.optim.AdamW if config.optimizer == "AdamW" else torch.optim.Adam
    return kind(parameters, fused=True, **shared)


def _training_schedule(config: PriorConfig) -> Schedule:
    """The SDE, or for the legacy losses its chain of discrete levels (DDPM for VP; SMLD keeps VE and draws its levels)."""
    schedule = build_schedule(config)
    if config.training.continuous or config.training.sde == "vesde":
        return schedule
    if not isinstance(schedule, VPSDE):
        raise InputError(f"training.sde = '{config.training.sde}' has no discrete loss; use vpsde or vesde, or training.continuous = True")
    return schedule.discretize(config.model.num_scales)


def _check_masks(config: PriorConfig) -> None:
    training = config.training
    if bool(training.mask_rate) != config.model.masked or not 0 <= training.mask_rate <= 1:
        raise InputError(f"training.mask_rate = {training.mask_rate} with model.masked = {config.model.masked}: both or neither, rate to 1")
    if training.mask_rate and (training.auxiliary_loss or training.likelihood_weighting or not training.continuous):
        raise InputError("training.mask_rate: only the plain continuous loss is defined with masks; leave the other losses off")


def _weights(subject: Tensor | None, balance: float) -> Tensor | None:
    if balance == 0:
        return None
    if subject is None:
        raise InputError(f"data.balance = {balance} needs the subject of each pose (subject.pt), which this data set lacks; set it to 0")
    frames = torch.bincount(subject).double()
    return frames[subject] ** -balance


def average_gradients(parameters: Sequence[Tensor], processes: int) -> None:
    """Every process's gradients ← their mean over all processes."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= processes
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def _seed(device: torch.device, seed: int, step: int, rank: int) -> None:
    """Seed the device's default generator, the only one that dropout draws from, at the start of each snapshot interval."""
    number = hash((seed, step, rank)) & (2**63 - 1)
    generator = torch.default_generator if device.type == "cpu" else torch.cuda.default_generators[device.index or 0]
    generator.manual_seed(number)


def _fingerprint(poses: Tensor) -> list[float]:
    """Enough to tell one training set from another: size, sum and sum of squares."""
    double = poses.double()
    return [float(len(poses)), round(float(double.sum()), 3), round(float((double**2).sum()), 3)]
