r"""Lifting models measured on clips, by the protocols of the tables and by better ones.

Every clip is cut into windows, each is lifted to H hypotheses in K steps, and after every step each *setting* makes one pose of them:

==========================  ==============================================================================================
``Single``                  the first hypothesis
``P-Agg``                   the mean pose
``J-Agg (GT root)``         JPMA with the true trajectory of the root, as published numbers have it
``J-Agg (solved root)``     JPMA with the root that lays each hypothesis over the keypoints: nothing is known of the truth
``Mean``, ``Median``, ...   further aggregates if asked for, by solved roots
``P-Best``, ``J-Best``      the hypothesis, the joints nearest to the truth: bounds
``P-Worst``                 the hypothesis farthest from it, if asked for
==========================  ==============================================================================================

The root is zero in prediction and truth. For P-MPJPE every hypothesis is aligned with the truth before the setting chooses; P-Agg is the
mean of those, aligned again; J-Agg takes the joints that are chosen unaligned; further aggregates are aligned themselves.

Keypoints may be occluded first: then J-Agg sees what the model sees, hidden ones not at all. Lengths of bones should not change within a
window, each of which is measured by itself (consistency), and be alike on both sides (symmetry).

Sources: VideoPose3D (Pavllo et al., CVPR 2019), D3DP (Shan et al., ICCV 2023), DDHPose (Cai et al., AAAI 2024) for the protocols; DiffHPE
(Rommel et al., ICCV 2023 workshops) for occlusions, symmetry and consistency.
"""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from dposer.body.skeleton import Layout
from dposer.data.lifting_clip import LiftingClip
from dposer.errors import InputError
from dposer.geometry.lens import Lens
from dposer.geometry.procrustes import procrustes_align
from dposer.lifting.bones import Bones
from dposer.lifting.config import LiftingConfig, OcclusionConfig
from dposer.lifting.ddhpose import levels
from dposer.lifting.hypotheses import AGGREGATES, Scope, joint_agg, joint_best, mean_pose, pose_best, solve_root
from dposer.lifting.model import MAX_BATCH, LiftingModel, Progress
from dposer.lifting.noise import Noise
from dposer.lifting.observed import screen_keypoints
from dposer.lifting.occlusion import Disturbance, Occlusion
from dposer.lifting.report import AVERAGE, POOLED, Report, Row, WindowErrors
from dposer.lifting.training import Pair
from dposer.lifting.windows import LastWindow, clip_starts, gather, merge
from dposer.metrics.hypotheses import expected_minimum
from dposer.metrics.poses import asymmetry, auc, bone_lengths, consistency, distances, n_mpjpe, pck
from dposer.randomness import keyed_generator

Keep = Callable[[LiftingClip, str, Tensor], None]
"""Is handed the poses (K, F, J, 3) of a clip in one setting, frames that no window holds being zero."""
Sums = dict[str, tuple[np.ndarray, float]]
"""Figure → sum over frames of each (step, setting), and their number."""

_GT, _SOLVED = "J-Agg (GT root)", "J-Agg (solved root)"
_LISTS = ("joints", "coordinates", "bones", "pairs")
"""Figures of several values, fields of a row by themselves."""
_SPAN = 27
"""Frames that are occluded together at least."""
_SCALE = {"PCK": 100.0, "AUC": 100.0}
"""To the units of reports; metres become millimetres else."""


@dataclass(frozen=True)
class EvalSettings:
    """How a model is evaluated. The defaults are what should be reported; published numbers have other ones, see :meth:`published`."""

    hypotheses: int = 1
    """H."""
    steps: int = 1
    """K."""
    batch: int = 4
    """Windows lifted at once; without effect on results but for P-Best over a batch."""
    max_batch: int = MAX_BATCH
    """Sequences that the network sees at once; without effect on results."""
    scope: Scope = "frame"
    """P-Best is one hypothesis for a frame, a window, or (published) all windows of a clip that are lifted at once."""
    root: Literal["gt", "solved", "both"] = "both"
    """Whence J-Agg knows where the root is."""
    aggregates: tuple[str, ...] = ()
    """Further settings, see :data:`dposer.lifting.hypotheses.AGGREGATES`."""
    overlap: Literal["once", "twice"] = "once"
    """Frames in two windows count once, in the later one, and motion is that of the whole clip; twice: windows are measured one by one, so
    that frames which pad a short clip count too."""
    last: LastWindow = "overlap"
    """What the last window does, see :func:`dposer.lifting.windows.clip_starts`."""
    every: int = 1
    """Of all windows take every n-th, for a quick look."""
    group: Literal["action", "subject", "sequence"] = "action"
    """What the average is over; the action is the first word of a clip's."""
    by_subject: bool = False
    """Also each subject by itself."""
    p2: bool = False
    """Also P-MPJPE."""
    seed: int = 0
    worst: bool = False
    """Also P-Worst, over the ``scope`` of P-Best."""
    occlusion: OcclusionConfig = field(default_factory=OcclusionConfig)
    """Of what the model sees, drawn by clip and place for one window after another, of 27 frames if the model's are shorter."""

    def __post_init__(self) -> None:
        for name in ("hypotheses", "steps", "batch", "max_batch", "every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: {getattr(self, name)}, expected at least 1")
        for name, choices in (("scope", get_args(Scope)), ("root", ("gt", "solved", "both")), ("aggregates", tuple(AGGREGATES))):
            given = getattr(self, name)
            for value in given if isinstance(given, tuple) else (given,):
                if value not in choices:
                    raise InputError(f"{name}: {value!r}, expected one of {', '.join(choices)}")

    def published(self, dataset: Literal["h36m", "3dhp"]) -> "EvalSettings":
        """The same by the rules behind published tables: P-Best over a batch, overlaps counted twice on Human3.6M, batches of 2 on 3DHP."""
        changes = {"overlap": "twice"} if dataset == "h36m" else {"batch": 2}
        return dataclasses.replace(self, scope="batch", root="gt", **changes)

    @property
    def names(self) -> tuple[str, ...]:
        """The settings that one pose is made by."""
        j_agg = {"gt": (_GT,), "solved": (_SOLVED,), "both": (_GT, _SOLVED)}[self.root]
        made = (name.capitalize() for name in self.aggregates)
        return ("Single", "P-Agg", *j_agg, *made, "P-Best", *["P-Worst"] * self.worst, "J-Best")


@torch.no_grad()
def evaluate(
    model: LiftingModel,
    clips: Sequence[LiftingClip],
    settings: EvalSettings | None = None,
    progress: Progress | None = None,
    keep: Keep | None = None,
) -> Report:
    """Lift all windows of all clips and measure them, see the module.

    Args:
        model: any with ``config`` and ``predict``.
        clips: with the joints' truth and in the layout of the model. Frames that are not valid do not count.
        settings: None: the defaults.
        progress: told (done, total) windows.
        keep: is handed the poses of each clip in each setting.

    Raises:
        InputError: no clip, one without truth or of another layout, or none with a frame that counts.
    """
    settings = settings or EvalSettings()
    check_clips(clips, model.config.skeleton)
    frames, layout = model.config.network.frames, model.config.skeleton
    bones = Bones.of(layout)
    total = sum(len(starts) for starts in _starts(clips, frames, settings))
    done, sums, extras, errors = 0, [], [], WindowErrors(errors={name: [] for name in settings.names})
    hypotheses = steps = at_bound = coordinates = 0
    was_training = model.training
    model.eval()
    for batch in _batches(clips, model.config, settings):
        poses = _lift(model, batch, settings)
        steps, hypotheses = poses.shape[1:3]
        at_bound += int((poses[:, -1].abs() == model.config.diffusion.bound).sum())
        coordinates += poses[:, -1].numel()
        found = _settle(poses, batch, settings)
        for row, (film, _) in enumerate(batch):
            film.found.append({name: value[row] for name, value in found.items()})
            if len(film.found) == len(film.starts):
                figures, extra = _score(film, settings, errors, bones)
                sums.append((film.clip, figures))
                extras.append(extra)
                _hand_over(film, settings, keep)
                film.found.clear()
        done += len(batch)
        if progress:
            progress(done, total)
    model.train(was_training)
    counted = sum(int(figures["joints"][1]) for _, figures in sums)
    if not counted:
        raise InputError(f"clips: no frame of {len(clips)} clips counts, expected some; check their valid frames and the stride of windows")
    return Report(
        method=model.config.method,
        settings={**dataclasses.asdict(settings), "aggregates": list(settings.aggregates)},
        hypotheses=hypotheses,
        steps=steps,
        clips=len(sums),
        windows=total,
        frames=counted,
        joints=list(layout.joints),
        rows=_rows(sums, settings, layout, bones),
        uncertainty=_uncertainty(_pooled(extras), hypotheses) if hypotheses > 1 else [],
        clamped=100 * at_bound / coordinates,
        window_errors=errors,
        notes=_notes(clips, model.config.fps, settings.occlusion),
        bones=list(bones.names),
        pairs=list(bones.pair_names),
    )


# ---- windows -----------------------------------------------------------------------------------------------------------


@dataclass
class _Film:
    """A clip that is being lifted; (F, ...)."""

    clip: LiftingClip
    starts: Tensor
    observed: Tensor
    """What the network would see if nothing happened to it."""
    hidden: Tensor
    shift: Tensor
    """What happens to it."""
    keypoints: Tensor
    """In screen units, gaps filled, shifted."""
    confidence: Tensor
    """0 where hidden."""
    pose: Tensor
    root: Tensor
    lens: Tensor
    """(F, 9) in screen units; a guess where the clip has none."""
    valid: Tensor
    found: list[dict[str, Tensor]] = field(default_factory=list)
    """Of each window that is done, what :func:`_settle` returns."""

    @classmethod
    def of(cls, clip: LiftingClip, starts: Tensor, config: LiftingConfig, settings: EvalSettings) -> "_Film":
        assert clip.joints is not None
        pair, count = Pair.of(clip, config), len(clip)
        hidden, shift = _disturbed(clip, config, settings)
        lens = (Lens.of_size(*clip.size) if clip.lens is None else clip.lens).on_screen(clip.size)
        return cls(
            clip=clip,
            starts=starts,
            observed=pair.observed,
            hidden=hidden,
            shift=shift,
            keypoints=screen_keypoints(clip.keypoints, clip.size, clip.layout)[0] + shift,
            confidence=torch.from_numpy(clip.keypoints[..., 2].astype(np.float32)) * ~hidden,
            pose=pair.pose,
            root=torch.from_numpy(clip.joints[:, clip.root].astype(np.float32)),
            lens=lens.vector.expand(count, -1),
            valid=torch.ones(count, dtype=torch.bool) if clip.valid is None else torch.from_numpy(clip.valid.astype(bool)),
        )


def _disturbed(clip: LiftingClip, config: LiftingConfig, settings: EvalSettings) -> tuple[Tensor, Tensor]:
    """(F, J) hidden and (F, J, 2) shift of a clip: windows one after another, so that a frame in two windows is the same in both."""
    occlusion, frames = Occlusion(settings.occlusion, config.skeleton), max(config.network.frames, _SPAN)
    starts = range(0, len(clip), frames)
    generators = [keyed_generator("cpu", "occlusion", settings.seed, clip.name, start) for start in starts if occlusion]
    drawn = occlusion.draw(len(starts), frames, generators, config.compat)
    return drawn.hidden.flatten(0, 1)[: len(clip)], drawn.shift.flatten(0, 1)[: len(clip)]


Batch = list[tuple[_Film, Tensor]]
"""Windows: of which clip, and their first frame (1,)."""


def _starts(clips: Sequence[LiftingClip], frames: int, settings: EvalSettings) -> Iterator[Tensor]:
    before = 0
    for clip in clips:
        starts = clip_starts(len(clip), frames, settings.last)
        yield starts[-before % settings.every :: settings.every]
        before += len(starts)


def _batches(clips: Sequence[LiftingClip], config: LiftingConfig, settings: EvalSettings) -> Iterator[Batch]:
    """Full ones, across clips; those of P-Best over a batch end with their clip, as published ones do."""
    batch: Batch = []
    for clip, starts in zip(clips, _starts(clips, config.network.frames, settings), strict=True):
        if not len(starts):
            continue
        film = _Film.of(clip, starts, config, settings)
        for i in range(len(starts)):
            batch.append((film, starts[i : i + 1]))
            if len(batch) == settings.batch or (settings.scope == "batch" and i == len(starts) - 1):
                yield batch
                batch = []
    if batch:
        yield batch


def _stacked(batch: Batch, name: str, frames: int) -> Tensor:
    return torch.cat([gather(getattr(film, name), start, frames) for film, start in batch])


def _lift(model: LiftingModel, batch: Batch, settings: EvalSettings) -> Tensor:
    """(B, K, H, F, J, 3), the root at zero."""
    observed, hidden, shift = (_stacked(batch, name, model.config.network.frames) for name in ("observed", "hidden", "shift"))
    observed = Disturbance(hidden, shift).of(observed, model.config)
    device = next((parameter.device for parameter in model.parameters()), observed.device)
    noise = Noise(tuple(key for film, start in batch for key in Noise.of(settings.seed, film.clip.name, start).keys))
    poses = model.predict(observed.to(device), settings.hypotheses, settings.steps, noise, settings.max_batch)
    poses[..., batch[0][0].clip.root, :] = 0
    return poses


# ---- settings ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _View:
    """What is known of B windows, (B, F, ...)."""

    truth: Tensor
    root: Tensor
    keypoints: Tensor
    confidence: Tensor
    lens: Lens
    layout: Layout

    @classmethod
    def of(cls, batch: Batch, poses: Tensor) -> "_View":
        names = ("pose", "root", "keypoints", "confidence", "lens")
        truth, root, keypoints, confidence, lens = (_stacked(batch, name, poses.shape[-3]).to(poses) for name in names)
        return cls(truth, root, keypoints, confidence, Lens.of_vector(lens[:, None]), batch[0][0].clip.layout)


def _settle(poses: Tensor, batch: Batch, settings: EvalSettings) -> dict[str, Tensor]:
    """What is kept of the hypotheses (B, K, H, F, J, 3), on the CPU, each (B, F, K, ...).

    ``poses`` and, for P-MPJPE, ``aligned`` (..., S, J, 3) of the S settings; ``spread``, ``covered`` (...), ``curves`` (..., 2, H).
    """
    view, steps = _View.of(batch, poses), []
    for h in poses.unbind(1):
        roots: dict[str, Tensor] = {}
        if settings.root != "solved":
            roots[_GT] = view.root
        if settings.root != "gt" or settings.aggregates:
            roots[_SOLVED] = solve_root(h, view.keypoints, view.lens, view.confidence)
        step = {"poses": _chosen(h, h, view, roots, settings)}
        if settings.p2:
            aligned = procrustes_align(h, view.truth[:, None])
            step["aligned"] = _chosen(h, aligned, view, roots, settings)
        steps.append(step | (_statistics(h, view) if h.shape[1] > 1 else {}))
    return {name: torch.stack([step[name] for step in steps], 2).cpu() for name in steps[0]}


def _chosen(h: Tensor, of: Tensor, view: _View, roots: Mapping[str, Tensor], settings: EvalSettings) -> Tensor:
    """The pose of every setting, (B, F, S, J, 3), made of ``of``, which is ``h`` or the same aligned with the truth."""
    poses = {
        "Single": of[:, 0],
        "P-Agg": mean_pose(of),
        **{name: joint_agg(h, root, view.keypoints, view.lens, view.confidence, of=of) for name, root in roots.items()},
        "P-Best": pose_best(of, view.truth, settings.scope),
        **({"P-Worst": pose_best(of, view.truth, settings.scope, worst=True)} if settings.worst else {}),
        "J-Best": joint_best(of, view.truth),
    }
    made = [name.capitalize() for name in settings.aggregates]
    known = (roots.get(_SOLVED), view.keypoints, view.lens, view.confidence, view.layout)
    poses |= {name.capitalize(): AGGREGATES[name](h, *known) for name in settings.aggregates}
    if of is not h:
        poses |= {name: procrustes_align(poses[name], view.truth) for name in ("P-Agg", *made)}
    return torch.stack([poses[name] for name in settings.names], 2)


def _statistics(h: Tensor, view: _View) -> dict[str, Tensor]:
    """What hypotheses (B, H, F, J, 3) tell together, each (B, F, ...)."""
    errors = distances(h, view.truth[:, None]).movedim(1, -1)  # (B, F, J, H)
    curves = torch.stack((expected_minimum(errors.mean(-2)), expected_minimum(errors).mean(-2)), -2)
    moving = [joint for joint, parent in enumerate(view.layout.parents) if parent >= 0]
    inside = (h.amin(1) <= view.truth) & (view.truth <= h.amax(1))
    spread = (h - mean_pose(h)[:, None]).square().sum(-1).mean((1, -1)).sqrt()
    return {"spread": spread, "covered": inside[..., moving, :].float().mean((-2, -1)), "curves": curves}


# ---- figures -----------------------------------------------------------------------------------------------------------


def _score(film: _Film, settings: EvalSettings, errors: WindowErrors, bones: Bones) -> tuple[Sums, Sums]:
    """Sums of a clip's figures (K, S, ...) and of its hypotheses' statistics (K, ...); its windows' errors are appended."""
    found = {name: torch.stack([window[name] for window in film.found]) for name in film.found[0]}
    frames = found["poses"].shape[1]
    truth, valid = (gather(array, film.starts, frames) for array in (film.pose, film.valid))
    _append_errors(film, found["poses"][:, :, -1], truth, valid, errors)
    windows, counted = found["poses"], valid
    if settings.overlap == "once":
        counted = valid & (film.starts[:, None] + torch.arange(frames) < len(film.clip))
        covered = merge(torch.ones_like(valid), film.starts, len(film.clip))
        found = {name: merge(value, film.starts, len(film.clip))[None] for name, value in found.items()}
        truth, valid = film.pose[None], (film.valid & covered)[None]
    steps = []
    for k in range(found["poses"].shape[2]):
        step = _measure(found["poses"][:, :, k].movedim(2, 0), truth, valid, film.clip.fps, film.clip.layout, bones)
        step["bones"] = _consistency(windows[:, :, k].movedim(2, 0), counted, bones)
        if "aligned" in found:
            aligned = distances(found["aligned"][:, :, k].movedim(2, 0), truth).mean(-1)
            step["P-MPJPE"] = _summed(aligned, valid)
        steps.append(step)
    sums = {name: (np.stack([step[name][0] for step in steps]), steps[0][name][1]) for name in steps[0]}
    extras = {name: (found[name][valid].double().sum(0).numpy(), float(valid.sum())) for name in found.keys() - {"poses", "aligned"}}
    return sums, extras


def _append_errors(film: _Film, poses: Tensor, truth: Tensor, valid: Tensor, errors: WindowErrors) -> None:
    """Poses (W, F, S, J, 3) of the last step."""
    count = valid.sum(1)
    there = count > 0
    mean = (distances(poses, truth[:, :, None]).mean(-1) * valid[..., None]).sum(1) / count.clamp_min(1)[:, None]
    errors.clip.extend([film.clip.name] * int(there.sum()))
    errors.start.extend(film.starts[there].tolist())
    for values, column in zip(errors.errors.values(), mean[there].T, strict=True):
        values.extend((1000 * column).tolist())


def _summed(values: Tensor, mask: Tensor) -> tuple[np.ndarray, float]:
    """Sums over the frames (..., W, F) that count, and their number."""
    return torch.where(mask, values, 0).double().sum((-2, -1)).numpy(), float(mask.sum())


def _summed_rows(values: Tensor, mask: Tensor) -> tuple[np.ndarray, float]:
    """The same of several values for each frame, (..., W, F, N)."""
    return (values * mask[..., None]).double().sum((-3, -2)).numpy(), float(mask.sum())


def _measure(poses: Tensor, truth: Tensor, valid: Tensor, fps: float, layout: Layout, bones: Bones) -> dict[str, tuple[np.ndarray, float]]:
    """Sums over frames of what W sequences (S, W, F, J, 3) of S settings are worth against (W, F, J, 3), metres and shares."""
    moving = [joint for joint, parent in enumerate(layout.parents) if parent >= 0]
    sums = {
        "joints": _summed_rows(distances(poses, truth), valid),
        "coordinates": _summed_rows((poses - truth).abs().mean(-2), valid),
        "pairs": _summed_rows(asymmetry(bone_lengths(poses, bones.edges), bones.pairs), valid),
        "N-MPJPE": _summed(n_mpjpe(poses, truth), valid),
        "PCK": _summed(pck(poses[..., moving, :], truth[..., moving, :]), valid),
        "AUC": _summed(auc(poses[..., moving, :], truth[..., moving, :]), valid),
    }
    for order, name in ((1, "MPJVE"), (2, "acceleration")):
        if poses.shape[-3] > order:
            wrong = distances(poses.diff(n=order, dim=-3), truth.diff(n=order, dim=-3)).mean(-1)
            sums[name] = _summed(wrong, valid.unfold(1, order + 1, 1).all(-1))
    if "MPJVE" in sums:
        sums["velocity"] = (sums["MPJVE"][0] * fps, sums["MPJVE"][1])
    return sums


def _consistency(poses: Tensor, counted: Tensor, bones: Bones) -> tuple[np.ndarray, float]:
    """Sum over the windows (S, W, F, J, 3) with two frames or more that count of what each bone deviates by, and their number."""
    there = counted.sum(1) > 1
    return consistency(bone_lengths(poses, bones.edges)[:, there], counted[there]).double().sum(1).numpy(), float(there.sum())


def _hand_over(film: _Film, settings: EvalSettings, keep: Keep | None) -> None:
    if keep is not None:
        poses = merge(torch.stack([window["poses"] for window in film.found]), film.starts, len(film.clip))
        for number, name in enumerate(settings.names):
            keep(film.clip, name, poses[:, :, number].transpose(0, 1))


# ---- rows --------------------------------------------------------------------------------------------------------------


def _pooled(many: Sequence[Sums]) -> Sums:
    """Sums over several clips."""
    total: dict[str, tuple[np.ndarray, float]] = {}
    for sums in many:
        for name, (value, weight) in sums.items():
            before, count = total.get(name, (0, 0))
            total[name] = (before + value, count + weight)
    return total


def _means(sums: Sums, bones: Bones) -> dict[str, np.ndarray]:
    """Figures (K, S) and :data:`_LISTS` (K, S, ...) in the units of reports; those without a frame are left out."""
    means = {name: value / weight * _SCALE.get(name, 1000.0) for name, (value, weight) in sums.items() if weight}
    if "joints" not in means:
        return {}
    made = {"MPJPE": means["joints"].mean(-1)}
    for prefix, which in (("", bones.own), ("legacy ", bones.legacy)):
        made[f"{prefix}symmetry"] = means["pairs"][..., bones.pairs_of(which)].mean(-1)
        if "bones" in means:
            made[f"{prefix}consistency"] = means["bones"][..., list(which)].mean(-1)
    return made | means


def _rows(sums: Sequence[tuple[LiftingClip, Sums]], settings: EvalSettings, layout: Layout, bones: Bones) -> list[Row]:
    subjects = ["", *dict.fromkeys(clip.subject for clip, _ in sums)] if settings.by_subject else [""]
    rows: list[Row] = []
    for subject in subjects:
        groups: dict[str, list[Sums]] = defaultdict(list)
        for clip, figures in sums:
            if subject in ("", clip.subject):
                groups[group_of(clip, settings.group)].append(figures)
        means = {group: found for group, many in groups.items() if (found := _means(_pooled(many), bones))}
        if not means:
            continue
        names = dict.fromkeys(name for found in means.values() for name in found)
        average = {name: np.mean([found[name] for found in means.values() if name in found], 0) for name in names}
        pooled = _means(_pooled([figures for many in groups.values() for figures in many]), bones)
        for group, found in {**means, AVERAGE: average, POOLED: pooled}.items():
            rows += _rows_of(group, subject, found, settings.names, layout)
    return rows


def group_of(clip: LiftingClip, by: str) -> str:
    return {"action": clip.action.split(" ")[0], "subject": clip.subject, "sequence": clip.name}[by]


def _rows_of(group: str, subject: str, means: Mapping[str, np.ndarray], names: Sequence[str], layout: Layout) -> Iterator[Row]:
    depth = np.array(levels(layout.parents))
    for step, of_settings in enumerate(means["joints"]):
        for number, (name, joints) in enumerate(zip(names, of_settings, strict=True)):
            figures = {figure: float(values[step, number]) for figure, values in means.items() if figure not in _LISTS}
            lists = {field: means[field][step, number].tolist() for field in _LISTS if field in means}
            by_level = [float(joints[depth == level].mean()) for level in range(depth.max() + 1)]
            yield Row(group, subject, name, step, figures, levels=by_level, **lists)


def _uncertainty(sums: Sums, hypotheses: int) -> list[dict[str, object]]:
    """See :attr:`Report.uncertainty`."""
    means = {name: value / weight for name, (value, weight) in sums.items()}
    return [
        {
            "spread": 1000 * float(spread),
            "covered": 100 * float(covered),
            "exchangeable": 100 * (hypotheses - 1) / (hypotheses + 1),
            "pose curve": (1000 * curves[0]).tolist(),
            "joint curve": (1000 * curves[1]).tolist(),
        }
        for spread, covered, curves in zip(means["spread"], means["covered"], means["curves"], strict=True)
    ]


# ---- checks ------------------------------------------------------------------------------------------------------------


def check_clips(clips: Sequence[LiftingClip], layout: Layout) -> None:
    if not clips:
        raise InputError("clips: found none, expected at least one; check the subjects and actions")
    for clip in clips:
        if clip.joints is None:
            raise InputError(f"{clip.name}: no 3D joints, which an evaluation needs; leave this subject out")
        if clip.layout.joints != layout.joints:
            raise InputError(f"{clip.name}: its joints are {clip.layout.name}, the model's {layout.name}; take a model of this layout")
    names = [clip.name for clip in clips]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{twice}: found twice, expected names of clips that differ, since their noise is drawn by them")


def _notes(clips: Sequence[LiftingClip], fps: float, occlusion: OcclusionConfig) -> list[str]:
    notes = []
    if parts := occlusion.parts():
        said = " + ".join(name if name == "mixed" else f"{name}:{amount:g}" for name, amount in parts)
        notes.append(f"keypoints are occluded: {said}{' of ' + occlusion.limbs if occlusion.limbs else ''}")
    if unknown := sum(clip.lens is None for clip in clips):
        notes.append(f"{unknown} of {len(clips)} clips have no camera: J-Agg takes a lens of the focal length of the picture's diagonal")
    if other := sum(not math.isclose(clip.fps, fps, rel_tol=0.02) for clip in clips):
        notes.append(f"{other} of {len(clips)} clips have another rate than the {fps:g} frames per second the model was trained at")
    return notes
