"""GraFormer, which lifts a frame by itself, and the refiners that carry the pose of a lifter a few diffusion steps back towards a true one.

Sources: Zhao et al., GraFormer (CVPR 2022); Gong et al., DiffPose (CVPR 2023, arXiv 2211.16940): method single-graph; Jiang and Chen,
Latent Cross-Channel Diffusion (ICASSP 2024, arXiv 2401.09836): cross-channel; Song et al., DDIM (ICLR 2021).
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from dposer.data.gmm import COLUMNS, mixture_of
from dposer.diffusion.denoiser import Denoiser
from dposer.diffusion.samplers import sample
from dposer.diffusion.schedule import gaussian_like
from dposer.errors import InputError
from dposer.lifting.config import LiftingConfig
from dposer.lifting.graformer import CrossChannel, GraFormer
from dposer.lifting.model import MAX_BATCH, LiftingModel, Progress, noise_schedule
from dposer.lifting.noise import Noise, NoiseStreams
from dposer.lifting.observed import points_of
from dposer.lifting.windows import flip

_SPREADS = (0.01, 0.5)
"""Least and greatest deviation of the noise of a keypoint that its mixture can ask for, screen units."""
_OF_MIXTURES = {"noise_from": "mixture", "component": "draw", "forward": "mixture", "start": "drawn"}
"""Settings that mean nothing without mixtures."""
_SIDEWAYS, _SIDEWAYS_TOLD = (0, 2), (0, 4)
"""Which numbers of a state and of what is told of a joint change sign in the mirror."""


class GraFormerLifter(LiftingModel):
    """GraFormer: keypoints of a frame → its pose. Frames do not see each other; H = K = 1 whatever is asked for."""

    draws = False

    def __init__(self, config: LiftingConfig) -> None:
        super().__init__(config)
        self.network = _graformer(config)

    def estimate(self, observed: Tensor, pose: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return _by_frame(self.network, points_of(observed, self.config.inputs))

    def lift(self, context: Tensor, steps: int, streams: NoiseStreams) -> Tensor:
        points = points_of(context, self.config.inputs)
        pose = _by_frame(self.network, points)
        if self.config.flip:
            pose = (pose + self.flipped(_by_frame(self.network, self.flipped(points)))) / 2
        return _centered(pose, self.root)[:, None]


class Refiner(LiftingModel):
    """x = (keypoint, pose of a lifter), 5 numbers a joint, taken for a state at a small time and denoised by a few steps of DDIM.

    Training adds noise to (keypoint, true pose) and has the network estimate it, each number's noise being as wide as its units ask for;
    it needs no lifter, so weights can also be trained from none. To lift, :meth:`start_from` a GraFormer's weights first: the lifter is
    part of this model, stays as it is, and is stored with it. :meth:`refine` takes the pose of any other.
    """

    quick = usual = 2

    def __init__(self, config: LiftingConfig) -> None:
        super().__init__(config)
        r = config.refine
        asked = [f"refine.{name}" for name, value in _OF_MIXTURES.items() if getattr(r, name) == value]
        if asked and config.inputs != "mixture":
            raise InputError(f"inputs = {config.inputs!r}: {', '.join(asked)} asks for a mixture; set inputs = 'mixture'")
        self.draws = r.start == "drawn" or r.eta > 0
        self.lifter = _graformer(config).requires_grad_(False)
        n = config.network
        sizes = (n.channels, n.depth, n.heads, n.dropout)
        self.network: nn.Module
        if config.method == "cross-channel":
            self.network = CrossChannel(config.skeleton, *sizes, unused=config.compat)
        else:
            self.network = GraFormer(config.skeleton, 5, 5, *sizes, timed=True)
        self.schedule = noise_schedule(config.diffusion)

    def start_from(self, theirs: LiftingConfig, weights: Mapping[str, Tensor]) -> None:
        """Take over a GraFormer's weights as the lifter, or all of the same method's.

        Raises:
            InputError: they are of another method or size.
        """
        if theirs.method != "graformer":
            own = self.state_dict()  # which variant has layers that nothing uses is all that can differ
            super().start_from(theirs, {name: weights.get(name, tensor) for name, tensor in own.items()})
            return
        sizes = [(c.layout, c.network.channels, c.network.depth, c.network.heads) for c in (theirs, self.config)]
        if sizes[0] != sizes[1]:
            raise self.other_weights(theirs, "the lifter is a GraFormer of as many channels, layers and heads")
        self.lifter.load_state_dict({name.removeprefix("network."): tensor for name, tensor in weights.items()})

    def estimate(self, observed: Tensor, pose: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self._denoised(observed, pose, generator)[2].view_as(pose)

    def loss(self, observed: Tensor, pose: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """mean over frames of Σ (e − ê)² over joints and their 5 numbers, e being the noise as scaled. The lifter plays no part."""
        noise, found, clean = self._denoised(observed, pose, generator)
        distance = (clean.view_as(pose) - pose).norm(dim=-1).mean()
        return {"loss": (noise - found).square().sum((-1, -2)).mean(), "position": distance.detach()}

    def _denoised(self, observed: Tensor, pose: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        """e, ê and the clean pose that ê stands for, (B F, 1, J, ·): every frame at a time of its own."""
        draw = self.config.refine.component == "draw"
        told = self._told(observed, gaussian_like(observed[..., :1], generator) if draw else None).flatten(0, 1)[:, None]
        t = antithetic_times(len(told), self.config.diffusion.timesteps, generator, pose.device)
        start = _start(told, pose.flatten(0, 1)[:, None])
        noise = _scale(told) * gaussian_like(start, generator)
        clean, found = Denoiser(self, self.schedule).clean_and_noise(self.schedule.perturb(start, t, noise), t, told=told)
        return noise, found, clean[..., 2:]

    def _told(self, observed: Tensor, z: Tensor | None = None) -> Tensor:
        """(B, F, J, 6): of every keypoint its place, the deviation of its noise, and the place that noise leaves behind in the end.

        Args:
            z: (B, F, J, 1 or 3) ~ N(0, I) decides the component of the mixture, else the first is taken; and the deviation from its mean.
        """
        r = self.config.refine
        points = points_of(observed, self.config.inputs)
        noise, centre = torch.full_like(points, r.noise), torch.zeros_like(points)
        if self.config.inputs == "mixture":
            weight, mean, spread = observed.unflatten(-1, (-1, COLUMNS)).split((1, 2, 2), -1)
            if z is not None:
                below = torch.special.ndtr(z[..., None, :1]) > weight.cumsum(-2)
                drawn = below.sum(-2, keepdim=True).clamp(max=weight.shape[-2] - 1)
                points, width = (some.take_along_dim(drawn, -2).squeeze(-2) for some in (mean, spread))
            else:
                width = spread[..., 0, :]
            if r.noise_from == "mixture":
                noise = width if self.config.compat else (width / self.schedule.sigma(self.schedule.t_max)).clamp(*_SPREADS)
            if r.forward == "mixture":
                centre = (weight * mean).sum(-2)
            if z is not None and z.shape[-1] == 3:
                points = points + r.spread * width * z[..., 1:]
        return torch.cat((points, noise, centre), -1)

    def forward(self, x: Tensor, t: Tensor, told: Tensor) -> Tensor:
        """ê as :class:`Denoiser` asks for it: (rows, F, J, 5) from the state without its centre, t (rows,), told (rows, F, J, 6)."""
        x = x + functional.pad(told[..., 4:], (0, 3))
        state, t = x.flatten(0, 1), t.repeat_interleave(x.shape[1])
        if self.config.method == "cross-channel":
            noisy = self.config.refine.guidance == "noisy"
            found = self.network(state, t, state[..., :2] if noisy else told[..., :2].flatten(0, 1))
        else:
            found = self.network(state, t)
        return found.unflatten(0, x.shape[:2])

    def lift(self, context: Tensor, steps: int, streams: NoiseStreams) -> Tensor:
        """GraFormer's pose, refined: (rows, F, J, I) → (rows, 1, F, J, 3). A hypothesis may draw keypoints of its own to lift."""
        draw = self.config.refine.start == "drawn"
        told = self._told(context, streams(context.new_empty(*context.shape[:-1], 3)) if draw else None)
        points = told[..., :2]
        pose = self._lifted(points)
        # published: the mirrored keypoints are not lifted again
        turned = self.flipped(pose) if self.config.compat or not self.config.flip else self._lifted(self.flipped(points))
        return self._refined(told, pose, turned, steps, None, streams)[:, None]

    def _lifted(self, points: Tensor) -> Tensor:
        return _centered(_by_frame(self.lifter, points), self.root)

    @torch.no_grad()
    def refine(
        self, observed: Tensor, pose: Tensor, steps: int | None = None, span: int | None = None, streams: NoiseStreams | None = None
    ) -> Tensor:
        """The pose of any lifter, (N, F, J, 3) metres, refined; its root at zero.

        Args:
            observed: (N, F, J, I) what it was lifted from, in the form of ``config.inputs``.
            steps: S; None: 2.
            span: T', see :meth:`span_of`; None: that of ``config.refine``.
            streams: of the N rows; only looked at where ``config.refine.eta`` > 0, None: those of seed 0.

        Raises:
            InputError: no steps, or a span that the process does not have.
        """
        streams = streams or Noise.of(0, "", range(len(pose))).streams([(row, 0) for row in range(len(pose))])
        pose = _centered(pose, self.root)
        return self._refined(self._told(observed), pose, self.flipped(pose), self.quick if steps is None else steps, span, streams)

    def _refined(self, told: Tensor, pose: Tensor, turned: Tensor, steps: int, span: int | None, streams: NoiseStreams) -> Tensor:
        """``turned``: the pose that the mirrored keypoints were lifted to."""
        r, layout, rows = self.config.refine, self.config.skeleton, len(pose)
        if self.config.flip:
            told, pose = torch.cat((told, flip(told, layout, _SIDEWAYS_TOLD))), torch.cat((pose, turned))

        def noise(like: Tensor) -> Tensor:
            z = streams(like[:rows])
            return _scale(told) * (torch.cat((z, flip(z, layout, _SIDEWAYS))) if self.config.flip else z)

        denoiser, start, times = Denoiser(self, self.schedule), _start(told, pose), self.times(steps, span)
        found: Tensor = sample(denoiser, start, sampler="ddim", times=times, eta=r.eta, noise=noise, told=told)[..., 2:]
        if self.config.flip:
            found = (found[:rows] + self.flipped(found[rows:])) / 2
        return _centered(found, self.root)

    def times(self, steps: int, span: int | None = None) -> Tensor:
        """Those visited, down to −1, clean data: (at most steps + 1,).

        Raises:
            InputError: no steps, or a span that the process does not have.
        """
        span, most = self.config.refine.span if span is None else span, self.config.diffusion.timesteps
        if steps < 1 or not 1 <= span <= most:
            raise InputError(
                f"{steps} steps over a span of {span}, expected 1 or more over 1 to the {most} times of the process; see refine.span"
            )
        if self.config.refine.skip == "quad":
            times = (torch.linspace(0, (0.8 * span) ** 0.5, steps, dtype=torch.float64) ** 2).trunc().unique()
        else:
            times = torch.arange(0, span, max(span // steps, 1), dtype=torch.float64)
            if not self.config.compat:
                times = times[:steps]  # published: more steps where the span is no multiple of them
        return torch.cat((times.flip(0), torch.tensor([-1.0], dtype=torch.float64)))

    def span_of(self, error: float, steps: int = 2) -> int:
        """The span whose first time has noise √(1 − ᾱ) nearest to ``error``: the deviation of a lifter's errors along an axis, metres."""
        spans = range(1, self.config.diffusion.timesteps + 1)
        first = torch.stack([self.times(steps, span)[0] for span in spans])
        return spans[int((self.schedule.sigma(first) - error).abs().argmin())]


class Refined(LiftingModel):
    """A lifter, and a refiner of every frame of its hypotheses. It is not trained; its parts are.

    A refiner that knows mixtures gets those of the keypoints where the lifter knows none. Missing keypoints that the lifter is shown as
    zeros reach the refiner as zeros.

    Args:
        base: the lifter.
        refiner: of the same layout.
        error: of ``base``, see :meth:`Refiner.span_of`; None: the refiner's own span.
        steps: S of the refiner.

    Raises:
        InputError: their layouts differ.
    """

    def __init__(self, base: LiftingModel, refiner: Refiner, error: float | None = None, steps: int = 2) -> None:
        super().__init__(base.config)
        if base.config.layout != refiner.config.layout:
            raise InputError(
                f"{base.config.method} has the joints of {base.config.layout}, the refiner {refiner.config.method} those of "
                f"{refiner.config.layout}, expected the same; train the refiner for them"
            )
        self.base, self.refiner, self.steps = base, refiner, steps
        self.draws, self.quick, self.usual = base.draws, base.quick, base.usual
        self.span = None if error is None else refiner.span_of(error, steps)

    def estimate(self, observed: Tensor, pose: Tensor, generator: torch.Generator | None = None) -> Tensor:
        raise TypeError("a refined lifter is not trained; train the lifter and the refiner")

    def lift(self, context: Tensor, steps: int, streams: NoiseStreams) -> Tensor:
        raise TypeError("a refined lifter is not lifted in parts; use predict")

    @torch.no_grad()
    def predict(
        self,
        observed: Tensor,
        hypotheses: int = 1,
        steps: int = 1,
        noise: Noise | None = None,
        max_batch: int = MAX_BATCH,
        progress: Progress | None = None,
    ) -> Tensor:
        """(B, 1, H, F, J, 3): the poses after the last of the K steps of the lifter, refined."""
        noise = Noise.of(0, "", range(len(observed))) if noise is None else noise
        poses = self.base.predict(observed, hypotheses, steps, noise, max_batch, progress)[:, -1]
        pairs = [(window, hypothesis) for window in range(len(poses)) for hypothesis in range(poses.shape[1])]
        noise = Noise(tuple(f"{key} refined" for key in noise.keys))
        seen, rows, found = self._seen(observed), poses.flatten(0, 1), []
        some = max(1, max_batch // (1 + self.refiner.config.flip))
        for i in range(0, len(pairs), some):
            part = pairs[i : i + some]
            inputs = seen[[window for window, _ in part]]
            found.append(self.refiner.refine(inputs, rows[i : i + some], self.steps, self.span, noise.streams(part)))
        return torch.cat(found).unflatten(0, poses.shape[:2])[:, None]

    def _seen(self, observed: Tensor) -> Tensor:
        """What the refiner is shown."""
        theirs, mine = self.config.inputs, self.refiner.config.inputs
        if theirs == mine:
            return observed
        points = points_of(observed, theirs)
        if mine == "points":
            return points
        return mixture_of(points, observed[..., 2] if theirs == "visible" else torch.ones_like(points[..., 0]), self.config.skeleton)


def antithetic_times(count: int, timesteps: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """(count,) float32 steps: half of them t ~ U{0, ..., T − 1}, the others T − 1 − t."""
    source = device if generator is None else generator.device
    half = torch.randint(timesteps, (count // 2 + 1,), generator=generator, device=source)
    return torch.cat((half, timesteps - 1 - half))[:count].to(device, torch.float32)


def _graformer(config: LiftingConfig) -> GraFormer:
    if config.inputs == "visible":
        raise InputError(f"inputs = 'visible': not of {config.method}, expected points or mixture; choose --config.inputs")
    n = config.network
    return GraFormer(config.skeleton, 2, 3, n.channels, n.depth, n.heads, n.dropout)


def _by_frame(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return network(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def _centered(pose: Tensor, root: int) -> Tensor:
    return pose - pose[..., root : root + 1, :]


def _start(told: Tensor, pose: Tensor) -> Tensor:
    """(..., J, 5): the state, keypoints counted from where their noise leaves them."""
    return torch.cat((told[..., :2] - told[..., 4:], pose), -1)


def _scale(told: Tensor) -> Tensor:
    """(..., J, 5): deviations of the noise, 1 in space."""
    return functional.pad(told[..., 2:4], (0, 3), value=1.0)
