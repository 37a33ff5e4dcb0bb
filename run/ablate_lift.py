"""Train recipes with several seeds each, measure their hypotheses, and tell mean ± standard deviation over seeds.

    python -m run.ablate_lift -d heatmaps --data data/heatmaps --configs configs/lifting/open_diffpose.py --vary heatmap.candidates=1,8,32
    python -m run.ablate_lift -d h5 --data data/diffpose --keypoints-test h36m --seeds 42 2967 6173 5478 989 --configs configs/...

A run is the folder <recipe>_<seed> of --output, as run.train_lift makes it. Stop the command whenever you like: repeated, it continues,
and what is done is neither trained nor measured again. Runs may be trained anywhere, some seeds here and some there; --only score tells
the table of those there are. A run that fails is told of at the end, and the others are not lost.

Written are ablation.json, ablation.csv (a line for each run and part), ablation.md, and in a run's folder scores.json with all its figures.
Parts are the groups of frames (actions, say), averaged alike, and all, the ambiguous and the clear frames, each frame alike. The second
table has each recipe less the first one, seed by seed.
"""

import ast
import json
import os
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from dposer.config import read_config
from dposer.data.hypothesis_dumps import Origin
from dposer.errors import InputError
from dposer.files import save_bytes, save_json
from dposer.lifting.checkpoint import LiftingCheckpoint, load_lifting
from dposer.lifting.config import LiftingConfig
from dposer.lifting.hypothesis_report import HypothesisReport, hypotheses_of, score_hypotheses
from dposer.lifting.hypothesis_scores import FIGURES
from dposer.lifting.methods import build_model
from dposer.lifting.model import MAX_BATCH
from dposer.lifting.report import AVERAGE, POOLED
from run import train_lift
from run._cli import cli, pick_device, step_bar, table, writable_folder
from run._lifting import read_clips, subjects_of
from run._report import machine, markdown, save_csv

_FILES = {"last": "last", "best": "best", "raw": "last_raw"}
_WORDS = {"true": True, "false": False}


@dataclass
class Args(train_lift.Args):
    config: Annotated[LiftingConfig, tyro.conf.Fixed, tyro.conf.Suppress] = field(default_factory=LiftingConfig)
    name: Annotated[str, tyro.conf.Fixed, tyro.conf.Suppress] = ""
    configs: tuple[Path, ...] = ()
    """Recipe files; the others are compared to the first."""
    seeds: tuple[int, ...] = (42, 2967, 6173)
    """Each recipe is trained with each."""
    set: tuple[str, ...] = ()
    """Values of all recipes: optim.epochs=5 heatmap.drop=0."""
    vary: tuple[str, ...] = ()
    """Values that make several recipes of each: heatmap.candidates=8,16,32; of several such lists all combinations."""
    output: Path = Path("output/ablation")
    """Parent folder of the runs, and of the tables."""
    only: Literal["both", "train", "score"] = "both"
    weights: Literal["last", "best", "raw"] = "last"
    """Measured: the last ones (averaged where recipes average), those of the lowest validation error, or the last ones not averaged."""
    subjects_test: str = ""
    """Comma list; default: those of the test split."""
    keypoints_test: str = ""
    """As --keypoints, of the test; default: the same."""
    hypotheses: int = 200
    """Of a frame; figures of the best are comparable at the same number alone."""
    steps: int | None = None
    """Of the sampler; default: as many as serve the method."""
    every: int = 1
    """Measure every so many of the test frames."""
    group: Literal["action", "subject", "sequence"] = "action"
    """What the average is over."""
    figures: tuple[str, ...] = ("MPJPE best", "MPJPE mean", "PA-MPJPE best", "PCK", "CPS", "ECE")
    """Of the tables; files have all."""
    eval_seed: int = 0
    """Of the hypotheses."""
    max_batch: int = MAX_BATCH
    """Sequences that the network sees at once."""


@dataclass(frozen=True)
class Run:
    """A recipe with a seed."""

    recipe: str
    config: LiftingConfig
    folder: Path

    def checkpoint(self, weights: str) -> LiftingCheckpoint | None:
        """Of the finished run, None if it is not."""
        if not (self.folder / "last.safetensors").is_file():
            return None
        last = load_lifting(self.folder / "last.safetensors")
        if replace(last.config, optim=replace(last.config.optim, epochs=self.config.optim.epochs)) != self.config:
            raise InputError(f"{self.folder}: trained by another recipe than the one asked for; give another --output")
        if last.provenance.get("epoch", 0) < self.config.optim.epochs:
            return None
        return last if weights == "last" else load_lifting(self.folder / f"{_FILES[weights]}.safetensors")


def main(args: Args) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("ablate_lift runs in one process; start it once for each device, with --seeds of its own")
    runs = _runs(args)
    writable_folder(args.output)
    failed: dict[str, str] = {}
    for number, run in enumerate(runs):
        print(f"[{number + 1}/{len(runs)}] {run.folder.name}", flush=True)
        try:
            _finish(args, run)
        except InputError as error:
            failed[run.folder.name] = str(error)
            print(f"failed: {error}", flush=True)
    if args.only != "train":
        _tell(args, runs)
    if failed:
        name, reason = next(iter(failed.items()))
        raise InputError(f"{len(failed)} of {len(runs)} runs failed ({', '.join(failed)}); {name}: {reason}")


def _runs(args: Args) -> list[Run]:
    """All that are asked for; refuses recipes that cannot be before anything is trained."""
    if not args.configs or args.config != LiftingConfig():
        raise InputError("--configs: expected one or more recipe files, see configs/lifting/")
    if not args.seeds or args.hypotheses < 1 or args.every < 1:
        raise InputError(f"--seeds {args.seeds}, --hypotheses {args.hypotheses}, --every {args.every}: expected some, and 1 or more")
    if unknown := [name for name in args.figures if name not in FIGURES]:
        raise InputError(f"--figures {unknown[0]!r}: not known, expected some of {', '.join(FIGURES)}")
    recipes: dict[str, LiftingConfig] = {}
    for path in args.configs:
        for name, config in _recipes(path, args):
            if name in recipes:
                raise InputError(f"--configs {path}: a second recipe by the name {name}; rename the file")
            with torch.device("meta"):
                build_model(config)
            recipes[name] = config
    return [
        Run(name, replace(config, seed=seed), args.output / f"{name}_{seed}")
        for name, config in recipes.items()
        for seed in dict.fromkeys(args.seeds)
    ]


def _recipes(path: Path, args: Args) -> Iterator[tuple[str, LiftingConfig]]:
    """What --set and --vary make of a recipe, by name."""
    config = read_config(path, LiftingConfig)
    for assignment in args.set:
        config = _changed(config, assignment, "--set")
    lists = [[f"{key}={value}" for value in values.split(",")] for key, _, values in (some.partition("=") for some in args.vary)]
    for chosen in product(*lists):
        name, varied = path.stem, config
        for assignment in chosen:
            varied = _changed(varied, assignment, "--vary")
            name += "_" + re.sub(r"[^\w.+-]", "", assignment.rpartition(".")[2].replace("=", ""))
        yield name, varied


def _changed(config: LiftingConfig, assignment: str, flag: str) -> LiftingConfig:
    """By one ``section.key=value``."""
    key, _, text = assignment.partition("=")
    *sections, last = key.split(".")
    values: dict[str, Any] = config.to_dict()
    node: Any = values
    for section in sections:
        node = node.get(section) if isinstance(node, dict) else None
    if not isinstance(node, dict) or last not in node or not text:
        raise InputError(f"{flag} {assignment}: expected a key of recipes and a value, as in heatmap.candidates=16")
    node[last] = _value(text)
    return LiftingConfig.from_dict(values, f"{flag} {assignment}")


def _value(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


# ---- one run -----------------------------------------------------------------------------------------------------------


def _finish(args: Args, run: Run) -> None:
    """Train and measure it, as far as that is not done."""
    checkpoint = run.checkpoint(args.weights)
    if checkpoint is None and args.only != "score":
        values = {entry.name: getattr(args, entry.name) for entry in fields(train_lift.Args)}
        values |= {"config": run.config, "name": run.folder.name, "keep_raw": args.keep_raw or args.weights == "raw"}
        train_lift.main(train_lift.Args(**values))
        checkpoint = run.checkpoint(args.weights)
    if args.only == "train":
        return
    if checkpoint is None:
        raise InputError(f"{run.folder}: not trained to the end; leave out --only score")
    step = checkpoint.provenance.get("step")
    if _scores(args, run, step) is None:
        report = json.loads(_score(args, checkpoint).to_json())
        save_json(run.folder / "scores.json", {"settings": _settings(args), "step": step, "report": report})


def _score(args: Args, checkpoint: LiftingCheckpoint) -> HypothesisReport:
    device, config = pick_device(args.device), checkpoint.config
    subjects = tuple(filter(None, args.subjects_test.split(","))) or subjects_of(args.dataset, args.data, "test")
    keypoints = args.keypoints_test or args.keypoints
    clips = read_clips(args.dataset, args.data, keypoints, subjects, "*", 1, config, args.target, uv_square=args.uv_square)
    model = checkpoint.model(device)
    frames = hypotheses_of(
        model, clips, args.hypotheses, args.steps, args.eval_seed, args.max_batch, step_bar("frames"), every=args.every, group=args.group
    )
    averaged = bool(config.optim.ema) and args.weights != "raw"
    origin = Origin(config.method, args.steps or model.usual, "EMA" if averaged else "raw", args.eval_seed, str(args.data))
    return score_hypotheses(frames, config.skeleton.joints, origin)


def _settings(args: Args) -> dict[str, Any]:
    """What scores depend on besides the run."""
    names = ("weights", "dataset", "data", "target", "uv_square", "subjects_test", "hypotheses", "steps", "every", "group", "eval_seed")
    values = {name: getattr(args, name) for name in names} | {"keypoints": args.keypoints_test or args.keypoints}
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def _scores(args: Args, run: Run, step: int | None = None) -> dict[str, dict[str, float]] | None:
    """Figures by part, as they were measured with the same settings, of the weights of that step (None: any); None: not yet."""
    path = run.folder / "scores.json"
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text())
        rows = stored["report"]["rows"]
        parts = {"groups" if row["group"] == AVERAGE else row["part"]: row["figures"] for row in rows if _told(row)}
        same = stored["settings"] == _settings(args) and step in (None, stored["step"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not what this command wrote ({error}); delete it, and the run is measured again") from error
    return parts if same else None


def _told(row: Mapping[str, Any]) -> bool:
    return row["group"] == POOLED or (row["group"] == AVERAGE and row["part"] == "all")


# ---- what they say -----------------------------------------------------------------------------------------------------


def _tell(args: Args, runs: Sequence[Run]) -> None:
    """Print the tables of the runs that are measured, and write all there is."""
    found = [(run, scores) for run in runs if (scores := _scores(args, run)) is not None]
    if not found:
        return
    recipes = dict.fromkeys(run.recipe for run, _ in found)
    seeds = {name: {run.config.seed: scores for run, scores in found if run.recipe == name} for name in recipes}
    first = next(iter(recipes))
    header = ["recipe", "frames", "seeds", *(f"{name} {FIGURES[name]}".strip() for name in args.figures)]
    titles = ["mean ± standard deviation over seeds"]
    tables = [[line for name in recipes for line in _lines(name, list(seeds[name].values()), args.figures)]]
    if len(recipes) > 1:
        titles.append(f"less {first}, seed by seed")
        gaps = {name: _gaps(seeds[name], seeds[first]) for name in recipes if name != first}
        tables.append([line for name in gaps for line in _lines(name, gaps[name], args.figures, "+")])
    for title, lines in zip(titles, tables, strict=True):
        print(f"\n{title} (best of {args.hypotheses})\n{table(header, lines)}")
    print(f"\nwritten to {args.output}")
    flat = [
        {"recipe": run.recipe, "seed": run.config.seed, "frames": part} | figures
        for run, scores in found
        for part, figures in scores.items()
    ]
    settings = _settings(args) | {"set": list(args.set), "vary": list(args.vary), "seeds": sorted({run.config.seed for run, _ in found})}
    summary = {name: _summary(list(seeds[name].values())) for name in recipes}
    save_json(args.output / "ablation.json", {"settings": settings, "summary": summary, "runs": flat})
    save_csv(args.output / "ablation.csv", flat, ["recipe", "seed", "frames", *FIGURES])
    said = f"{', '.join(f'{key} {value}' for key, value in settings.items() if value not in ('', None, [], False))}; {machine()}"
    parts = ["# Ablation", said, *(f"## {title}\n\n{markdown(header, lines)}" for title, lines in zip(titles, tables, strict=True))]
    save_bytes(args.output / "ablation.md", ("\n\n".join(parts) + "\n").encode())


Figures = Mapping[str, Mapping[str, float]]
"""Of a run, by part and name."""


def _gaps(mine: Mapping[int, Figures], theirs: Mapping[int, Figures]) -> list[Figures]:
    """Differences of the runs whose seeds both have."""
    return [
        {part: {name: value - theirs[seed][part][name] for name, value in mine[seed][part].items()} for part in mine[seed]}
        for seed in mine
        if seed in theirs
    ]


def _summary(runs: Sequence[Figures]) -> dict[str, dict[str, dict[str, float | None]]]:
    """Mean and unbiased standard deviation of each figure of each part, None for that of a single run."""
    return {
        part: {
            name: {"mean": statistics.fmean(values), "sd": statistics.stdev(values) if len(values) > 1 else None}
            for name in runs[0][part]
            if (values := [run[part][name] for run in runs])
        }
        for part in (runs[0] if runs else ())
    }


def _lines(recipe: str, runs: Sequence[Figures], names: Sequence[str], sign: str = "") -> list[list[str]]:
    """A line a part."""
    return [
        [recipe, part, str(len(runs)), *(_cell(name, figures.get(name), sign) for name in names)]
        for part, figures in _summary(runs).items()
    ]


def _cell(name: str, figure: Mapping[str, float | None] | None, sign: str) -> str:
    if figure is None or figure["mean"] is None:
        return "-"
    digits = 3 if FIGURES[name] == "" and name != "CPS" else 2
    deviation = "" if figure["sd"] is None else f" ± {figure['sd']:.{digits}f}"
    return f"{figure['mean']:{sign}.{digits}f}{deviation}"


if __name__ == "__main__":
    cli(main)
