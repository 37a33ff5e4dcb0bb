"""How fast: kinematics, metrics, rendering, training."""

import copy
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.timing import compared, milliseconds, seconds
from dposer.body import BodyModel
from dposer.metrics.distribution import dnn, fid, precision_recall_density_coverage
from dposer.metrics.poses import apd
from dposer.metrics.self_intersection import self_intersection
from dposer.prior.config import DataConfig, ModelConfig, PriorConfig, TrainingConfig
from dposer.prior.networks import build_network, build_schedule
from dposer.prior.normalizer import Normalizer
from dposer.prior.training import Trainer
from dposer.viz import render_mesh
from run._report import markdown


def kinematics(batch: int = 60) -> str:
    """Forward and backward: joints alone, against the full mesh in every step."""
    body = BodyModel()
    pose = (0.3 * torch.randn(batch, 63, generator=torch.Generator().manual_seed(0))).requires_grad_()

    def run(**options: object) -> None:
        pose.grad = None
        out = body(pose, **options)
        (out.joints.sum() if out.vertices is None else out.vertices.sum()).backward()

    full = seconds(run)
    rows = [
        ("22 joints", seconds(lambda: run(vertices=None, joints="body"), 30, 3), full),
        ("55 joints", seconds(lambda: run(vertices=None), 30, 3), full),
        ("66 keypoints", seconds(lambda: run(vertices="keypoints"), 30, 3), full),
    ]
    text = compared(rows, theirs="our full mesh")
    theirs = _smplx_full_mesh(pose)
    if theirs is not None:
        text += "\n\n" + compared([("22 joints", rows[0][1], theirs), ("full mesh", full, theirs)], theirs="smplx, full mesh")
    return f"Forward and backward, batch {batch}, {body.num_vertices} vertices.\n\n{text}"


def _smplx_full_mesh(pose: Tensor) -> float | None:
    try:
        import smplx
    except ImportError:
        return None
    from dposer.assets import asset

    path = asset("body_models", "smplx", "SMPLX_OPEN.npz")
    model = smplx.create(str(path), model_type="smplx", ext="npz", use_pca=False, flat_hand_mean=True, batch_size=len(pose))

    def run() -> None:
        pose.grad = None
        model(body_pose=pose).vertices.sum().backward()

    return seconds(run, 3)


def metrics(seed: int, count: int = 500) -> str:
    """APD over all pairs, and self-intersection of a mesh."""
    generator = torch.Generator().manual_seed(seed)
    body = BodyModel()
    poses = 0.3 * torch.randn(count, 63, generator=generator)
    joints = body(poses, vertices=None, joints="body").joints.detach()

    def pair_loop() -> float:
        total, pairs = 0.0, 0
        for a in range(count):
            for b in range(a + 1, count):
                total += torch.linalg.vector_norm(joints[a] - joints[b], dim=-1).mean().item()
                pairs += 1
        return total / pairs

    vertices = body(poses[:1]).vertices
    assert vertices is not None
    mesh = vertices[0].detach().numpy()
    one = seconds(lambda: self_intersection(mesh, body.faces), 3)
    table = compared([(f"APD of {count} poses", seconds(lambda: apd(joints)), seconds(pair_loop, 1, 0))])
    return f"{table}\n\nSelf-intersection of one mesh of {len(body.faces)} faces: {milliseconds(one)}."


def large_metrics(seed: int, samples: int = 50_000, reference: int = 10_000, training: int = 100_000) -> str:
    """The published number of samples, each figure in a process of its own, whose whole memory is what is told."""
    rows = []
    for name in ("nothing", "FID", "precision to coverage", "dNN"):
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # a process's peak never falls, hence one each
            duration, memory = pool.submit(_large_metric, name, seed, samples, reference, training).result()
        rows.append([name, milliseconds(duration), f"{memory:.2f} GB"])
    sizes = f"{samples} samples, {reference} reference poses, {training} training poses"
    return f"{sizes}.\n\n{markdown(['figure', 'time', 'peak memory of the process'], rows)}"


def _large_metric(name: str, seed: int, samples: int, reference: int, training: int) -> tuple[float, float]:
    import resource

    y, x, bank = (0.3 * torch.randn(n, 63, generator=torch.Generator().manual_seed(seed + n)) for n in (samples, reference, training))
    start = time.perf_counter()
    if name == "FID":
        fid(y, x)
    elif name == "dNN":
        dnn(y, bank)
    elif name != "nothing":
        precision_recall_density_coverage(y, x)
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def rendering() -> str:
    """One picture by the software renderer."""
    body = BodyModel()
    vertices = body(torch.zeros(1, 63)).vertices
    assert vertices is not None
    mesh = vertices[0].numpy()
    return f"One 512 × 384 picture of {len(body.faces)} faces: {milliseconds(seconds(lambda: render_mesh(mesh, body.faces)))}."


class _PoseDataset(Dataset[dict[str, Tensor]]):
    """One pose at a time, as the original loads them."""

    def __init__(self, poses: Tensor, normalizer: Normalizer):
        self.poses, self.normalizer = poses, normalizer

    def __len__(self) -> int:
        return len(self.poses)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"poses": self.normalizer.normalize(self.poses[index])}


def _plain_loop(config: PriorConfig, poses: Tensor, steps: int) -> float:
    """Seconds per step of the original's loop: DataLoader, unfused Adam, parameter-wise EMA, a number read back every step."""
    network = build_network(config.model, 63).train()
    schedule = build_schedule(config)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.optim.lr)
    shadow = [copy.deepcopy(p.detach()) for p in network.parameters()]
    loader = DataLoader(_PoseDataset(poses, Normalizer.fit(poses)), batch_size=config.training.batch_size, shuffle=True, drop_last=True)
    batches = iter(loader)

    def step() -> None:
        x = next(batches)["poses"]
        t = torch.rand(len(x)) * (1 - 1e-5) + 1e-5
        z = torch.randn_like(x)
        x_t = schedule.perturb(x, t, z)
        score = -network(x_t, 999 * t) / schedule.sigma(t)[:, None]
        loss = torch.square(score * schedule.sigma(t)[:, None] + z).mean(dim=-1).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), config.optim.grad_clip)
        optimizer.step()
        with torch.no_grad():
            for s, p in zip(shadow, network.parameters(), strict=True):
                s.sub_((1 - 0.9999) * (s - p))
        loss.item()

    return seconds(step, steps, 2)


def training(steps: int = 15) -> str:
    """Seconds per training step, same network and batch."""
    poses = 0.3 * torch.randn(40_000, 63, generator=torch.Generator().manual_seed(0))
    published = PriorConfig()
    open_cpu = PriorConfig(
        data=DataConfig(mirror=True, rotation_noise=0.02),
        model=ModelConfig(HIDDEN_DIM=768, dropout=0.0, scale_by_sigma=False),
        training=TrainingConfig(batch_size=512, shared_times=64),
    )
    rows = []
    for name, config in (
        ("published recipe, 1024 wide, batch 1280", published),
        ("the same, 64 shared times", replace(published, training=replace(published.training, shared_times=64))),
        ("open_cpu recipe, 768 wide, batch 512", open_cpu),
    ):
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(config, poses, Path(folder))
            trainer.step = 1  # step 0 writes nothing either; past it no snapshot falls into the measurement
            ours = seconds(trainer._advance, steps, 2)
        rows.append((name, ours, _plain_loop(config, poses, steps)))
    shares = [
        [name, f"{config_batch / ours:.0f}", f"{config_batch / theirs:.0f}"]
        for (name, ours, theirs), config_batch in zip(rows, (1280, 1280, 512), strict=True)
    ]
    return compared(rows, theirs="DataLoader loop") + "\n\n" + markdown(["poses per second", "ours", "DataLoader loop"], shares)
