"""How fast hypotheses are sampled, beside a loop over hypotheses and mirror images as the original's code runs, and beside the machine."""

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.motion import tell
from benchmarks.motion_speed import peak
from benchmarks.timing import seconds
from dposer.diffusion.denoiser import Denoiser
from dposer.diffusion.samplers import sample
from dposer.lifting.config import ConditionConfig, DiffusionConfig, LiftingConfig, NetworkConfig
from dposer.lifting.d3dp import D3DP
from dposer.lifting.ddhpose import ChildAttention, HierarchicalDenoiser, TreeAttention, chains
from dposer.lifting.diffhpe import DiffHPE
from dposer.lifting.lifter import SHIPPED, Lifter
from dposer.lifting.methods import build_model
from dposer.lifting.mixste import Attention, Block, MixSTE
from dposer.lifting.model import sampling_times
from dposer.lifting.noise import Noise
from run._report import markdown

_SIZES = {
    "the shipped size, 9 windows of 27 frames": (NetworkConfig(27, 64, 4, 4, 0.0), 9, 20, 10),
    "the papers' size, a window of 243 frames": (NetworkConfig(243, 512, 8, 8, 0.0), 1, 1, 1),
}
_BATCHES = (1, 8, 64, 512)


def speed() -> str:
    """D3DP and DDHPose."""
    top = _matmul_peak()
    rows = []
    for title, (network, windows, hypotheses, steps) in _SIZES.items():
        for method in ("d3dp", "ddhpose"):
            torch.manual_seed(0)
            model = build_model(LiftingConfig(method=method, variant="compat", network=network)).eval()  # type: ignore[arg-type]
            assert isinstance(model, D3DP)
            keypoints = 0.3 * torch.randn(windows, network.frames, 17, 2)
            noise = Noise.of(0, "clip", range(windows))
            mine = _timed(lambda m=model, k=keypoints, h=hypotheses, s=steps, n=noise: m.predict(k, h, s, n))
            theirs = _timed(lambda m=model, k=keypoints, h=hypotheses, s=steps, n=noise: looped(m, k, h, s, n))
            torch.testing.assert_close(mine[1], theirs[1], atol=1e-3, rtol=1e-3)
            passes = 2 * windows * hypotheses * steps
            work = 2 * multiplications(model.network, network.frames) * passes
            rows.append(
                [title, method, f"{hypotheses}, {steps}", f"{mine[0]:.2f}", f"{theirs[0]:.2f}", f"{theirs[0] / mine[0]:.2f}×",
                 f"{1000 * mine[0] / passes:.2f}", f"{work / mine[0] / 1e9:.0f}", f"{100 * work / mine[0] / top:.0f} %"]
            )  # fmt: skip
            tell(" ".join(rows[-1]))
    header = ["", "", "H, K", "s", "s, looped", "ratio", "ms per sequence and step", "GFLOP/s", "of the machine's peak"]
    note = (
        f"Machine's peak: {top / 1e9:.0f} GFLOP/s, the best of large float32 matrix products on its {torch.get_num_threads()} threads. "
        "Looped: one hypothesis and one mirror image after another, attention written out and tokens copied from one order to the other, "
        "with the same noise, so that both give the same poses."
    )
    return "\n\n".join([note, markdown(header, rows), memory(), wrapper(), rates()])


def wrapper(windows: int = 2, hypotheses: int = 5) -> str:
    """DiffHPE's Wrapper of the published size beside a loop over samples that evaluates the trunk anew at every step."""
    network = NetworkConfig(frames=27, channels=64, depth=16, drop_path=0.0)
    process = DiffusionConfig(timesteps=50, beta_end=0.5)
    torch.manual_seed(0)
    config = LiftingConfig(
        method="diffhpe",
        flip=False,
        network=network,
        diffusion=process,
        condition=ConditionConfig("features", channels=64, depth=8, heads=8),
    )
    model = build_model(config).eval()
    assert isinstance(model, DiffHPE)
    keypoints, noise = 0.3 * torch.randn(windows, 27, 17, 2), Noise.of(0, "clip", range(windows))
    looped, reference = _timed(lambda: _trunk_at_every_step(model, keypoints, hypotheses, noise))
    rows = [["one sample after another, trunk at every step", str(process.timesteps), f"{looped:.2f}", "1.0×"]]
    for steps in (process.timesteps, model.usual):
        mine, found = _timed(lambda steps=steps: model.predict(keypoints, hypotheses, steps, noise))
        if steps == process.timesteps:
            torch.testing.assert_close(found, reference, atol=1e-3, rtol=1e-3)
        rows.append(["samples in a batch, trunk once a window", str(steps), f"{mine:.2f}", f"{looped / mine:.1f}×"])
        tell(" ".join(rows[-1]))
    note = (
        f"DiffHPE-Wrapper of the published size, {windows} windows of 27 frames, {hypotheses} samples; all steps give the same poses both "
        f"ways, {model.usual} steps are what `run.lift` takes:"
    )
    return f"{note}\n\n{markdown(['', 'steps', 's', 'ratio'], rows)}"


@torch.no_grad()
def _trunk_at_every_step(model: DiffHPE, keypoints: Tensor, hypotheses: int, noise: Noise) -> Tensor:
    """As the published code runs: every sample of the batch of windows by itself."""

    class Again(nn.Module):
        def forward(self, state: Tensor, t: Tensor, told: Tensor) -> Tensor:
            return model(state, t, model.context(told))

    d, samples = model.config.diffusion, []
    for number in range(hypotheses):
        streams = noise.streams([(window, number) for window in range(len(keypoints))])
        denoiser = Denoiser(Again(), model.schedule, clip=d.bound)
        start, times = streams(keypoints.new_empty(*keypoints.shape[:-1], 3)), sampling_times(d.timesteps, d.timesteps)
        samples.append(sample(denoiser, start, sampler="ddim", times=times, eta=1.0, noise=streams, told=keypoints))
    poses = torch.stack(samples, 1)[:, None]
    poses[..., model.root, :] = 0
    return poses


def rates(frames: int = 270, hypotheses: int = 5) -> str:
    """Frames a second of every method that ships."""
    keypoints = np.concatenate((np.random.default_rng(0).uniform(300, 700, (frames, 17, 2)), np.ones((frames, 17, 1))), -1)
    rows = []
    for name in SHIPPED:
        lifter = Lifter.from_pretrained(name)
        drawn, steps = hypotheses if lifter.model.draws else 1, lifter.model.usual
        took, _ = _timed(lambda lifter=lifter, steps=steps: lifter(keypoints, (1000, 1000), hypotheses=hypotheses, steps=steps).poses)
        rows.append([name, str(drawn), str(steps), f"{frames / took:.0f}"])
        tell(" ".join(rows[-1]))
    note = f"Frames a second of the weights that ship, keypoints to poses, clip of {frames} frames:"
    return f"{note}\n\n{markdown(['', 'hypotheses', 'steps', 'frames a second'], rows)}"


def memory() -> str:
    """Peak memory by ``max_batch``, each in a process of its own."""
    _, windows, hypotheses, _ = next(iter(_SIZES.values()))
    rows = []
    for batch in _BATCHES:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            duration, before, most = pool.submit(_batched, batch, torch.get_num_threads()).result()
        rows.append([str(batch), f"{duration:.2f}", f"{before:.2f}", f"{most:.2f}"])
        tell(" ".join(rows[-1]))
    note = f"DDHPose of the shipped size, {windows} windows, H = {hypotheses}, K = 2, by `--max-batch`:"
    return f"{note}\n\n{markdown(['sequences at once', 's', 'GB before', 'GB at most'], rows)}"


def _batched(batch: int, threads: int) -> tuple[float, float, float]:
    """Seconds, and the process's memory before and at most."""
    torch.set_num_threads(threads)
    network, windows, hypotheses, _ = next(iter(_SIZES.values()))
    model = build_model(LiftingConfig(method="ddhpose", network=network)).eval()
    keypoints = 0.3 * torch.randn(windows, network.frames, 17, 2)
    before, start = peak(), time.perf_counter()
    model.predict(keypoints, hypotheses, 2, max_batch=batch)
    return time.perf_counter() - start, before, peak()


def _timed(function: Callable[[], Tensor]) -> tuple[float, Tensor]:
    function()
    start = time.perf_counter()
    found = function()
    return time.perf_counter() - start, found


def _matmul_peak(size: int = 2048) -> float:
    """FLOP per second of the largest matrix products."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    return 2 * size**3 / min(seconds(lambda: a @ b, 3) for _ in range(3))


def multiplications(network: nn.Module, frames: int) -> int:
    """Multiply-adds of one sequence in linear layers and attention."""
    assert isinstance(network, MixSTE)
    joints, channels = network.spatial_position.shape[1:]
    tokens, total = frames * joints, 0
    for module in network.modules():
        if isinstance(module, nn.Linear):
            total += tokens * module.in_features * module.out_features
    if network.time is not None:  # once a sequence, not once a token
        total -= (tokens - 1) * sum(part.in_features * part.out_features for part in network.time if isinstance(part, nn.Linear))
    for module in network.modules():
        if isinstance(module, TreeAttention) and hasattr(module, "qkv_xc"):
            total -= tokens * channels * channels  # the dead layer
    return total + 2 * len(network.spatial) * tokens * channels * (joints + frames)


# ---- the original's way ------------------------------------------------------------------------------------------------


@torch.no_grad()
def looped(model: D3DP, keypoints: Tensor, hypotheses: int, steps: int, noise: Noise) -> Tensor:
    """Like ``model.predict``, one hypothesis after another and the mirrored input after the straight one."""
    copy = build_model(model.config).eval()
    assert isinstance(copy, D3DP)
    copy.load_state_dict(model.state_dict())
    copy.network = _OneByOne(model)
    found = []
    for window in range(len(keypoints)):
        one = [_hypothesis(copy, keypoints[window : window + 1], steps, noise, window, number) for number in range(hypotheses)]
        found.append(torch.stack(one, 1))
    poses = torch.stack(found)
    poses[..., model.root, :] = 0
    return poses


def _hypothesis(model: D3DP, keypoints: Tensor, steps: int, noise: Noise, window: int, number: int) -> Tensor:
    return model.lift(keypoints, steps, noise.streams([(window, number)]))[0]


class _OneByOne(nn.Module):
    """Each sequence alone through :func:`_written_out`."""

    def __init__(self, model: D3DP) -> None:
        super().__init__()
        assert isinstance(model.network, MixSTE)
        self.network, self.layout = model.network, model.config.skeleton

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.cat([_written_out(self.network, one[None], time[None]) for one, time in zip(x, t, strict=True)])


def _written_out(net: MixSTE, x: Tensor, t: Tensor) -> Tensor:
    """The network with tokens copied between (b f) j c and (b j) f c, attention by softmax, edges averaged one after another."""
    batch, frames, joints, _ = x.shape
    u = net.patch(x).reshape(batch * frames, joints, -1) + net.token_bias()
    assert net.time is not None
    u = u + net.time(t).repeat_interleave(frames, 0)[:, None]
    context: Tensor | None = None
    for level, (spatial, temporal) in enumerate(zip(net.spatial, net.temporal, strict=True)):
        u = net.spatial_norm(_block(spatial, u, None, net))
        u = u.unflatten(0, (batch, frames)).permute(0, 2, 1, 3).reshape(batch * joints, frames, -1)
        u = u + net.temporal_position if level == 0 else u
        u = net.temporal_norm(_block(temporal, u, context, net))
        if level == 0 and isinstance(net, HierarchicalDenoiser):
            context = net.context(u.unflatten(0, (batch, joints))).flatten(0, 1)
        u = u.unflatten(0, (batch, joints)).permute(0, 2, 1, 3).reshape(batch * frames, joints, -1)
    return net.head(u).unflatten(0, (batch, frames))


def _block(block: nn.Module, u: Tensor, context: Tensor | None, net: MixSTE) -> Tensor:
    assert isinstance(block, Block) and isinstance(block.attn, Attention)
    normed, attention = block.norm1(u), block.attn
    q, k, v = attention.qkv(normed).unflatten(-1, (3, attention.heads, -1)).permute(2, 0, 3, 1, 4)
    logits = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    if isinstance(attention, ChildAttention):
        assert context is not None
        below = attention.qkv_xc(block.norm1(context)).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        logits = logits + q @ below.transpose(-2, -1) * q.shape[-1] ** -0.5
    if isinstance(attention, TreeAttention):
        assert isinstance(net, HierarchicalDenoiser)
        for chain in chains(net.parents):
            for a, b, c in zip(chain, chain[1:], chain[2:], strict=False):
                logits[..., b, c] = (logits[..., b, c] + logits[..., a, b]) / 2
                logits[..., c, b] = (logits[..., c, b] + logits[..., a, b]) / 2
    mixed = (logits.softmax(-1) @ v).transpose(1, 2).reshape(u.shape)
    u = u + attention.proj(mixed)
    return u + block.mlp(block.norm2(u))
