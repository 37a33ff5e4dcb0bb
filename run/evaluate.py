"""Measure a prior: what it generates, how likely it holds real poses, and what its completions are worth at which price.

Everything has a default: the prior that ships, and the prepared poses below data/ or else the example poses.

    python -m run.evaluate                                              # 500 samples beside held-out poses
    python -m run.evaluate --ckpt-path last.safetensors --samples 2000 --baselines
    python -m run.evaluate --protocol paper --ckpt-path axis-zscore-400k.pth      # 50,000 samples, as published
    python -m run.evaluate --reference statistics.npz                   # FID against a published mean and covariance
    python -m run.evaluate --task solvers --num 20 --part left_leg      # error, diversity and price of every solver
    python -m run.evaluate --task all --report docs/evaluation.md       # a page with tables, plot and pictures

Samples, and what each solver scored, are kept below --output-path under all that decides them but the code: a command that was stopped,
or is given again, does only what is missing. After a change of the code say --fresh.
"""

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from dposer.assets import asset
from dposer.body import BodyModel
from dposer.body.parts import part_missing
from dposer.data.amass import read_poses
from dposer.data.processed import read_split
from dposer.errors import InputError
from dposer.files import load_npz, save_bytes, save_json
from dposer.prior.config import PriorConfig
from dposer.solvers import complete, completion_scores, tradeoff
from dposer.solvers.completion import Mode
from dposer.solvers.generation_scores import (
    NEIGHBOURS,
    PROTOCOLS,
    PUBLISHED,
    UNITS,
    Counts,
    Protocol,
    Reference,
    balanced_draw,
    gaussian_samples,
    generation_figures,
    stored_samples,
)
from dposer.viz import save_image
from dposer.viz.tradeoff import TradeoffPoint, tradeoff_plot
from run._cli import cli, load_prior, pick_device, step_bar, table, writable_folder
from run._report import completion_sheet, figures_row, headed, machine, markdown, save_csv

Part = Literal["left_leg", "right_leg", "left_arm", "right_arm", "trunk", "hands", "legs", "arms"]
Sampler = Literal["dpm++", "ddim", "euler_maruyama", "reverse_diffusion", "ancestral", "ode_euler", "ode"]

DATA = Path("./data/AMASS/amass_processed")
VIEWS = ("front", "left_half")
SHEET = (4, 5)
"""Poses and completions of each on a contact sheet."""


@dataclass
class Args:
    task: Literal["generation", "solvers", "all"] = "generation"
    """What to measure."""
    protocol: Literal["fast", "v1", "v2", "paper"] = "fast"
    """generation: whose settings are meant by the flags left out. fast: 500 samples of 20 steps, all figures, each subject of the test
    split alike. v1: 500 samples, 1000 corrected steps from eps 5e-3, APD and SI. v2: 50,000 samples of 1000 steps, every pose of the
    training split alike. paper: the same samples, the columns of the published table."""
    config: PriorConfig | None = None
    """A recipe file (configs/) whose sampling section is used; the network's own settings come with the weights."""
    ckpt_path: Path | None = None
    """Weights: a .safetensors of this library or a published .pth/.ckpt; default: the prior that ships."""
    bodymodel_path: Path | None = None
    """SMPL-X, SMPL-H or SMPL file; default: the open body that ships."""
    dataset_folder: Path | None = None
    """Prepared poses; default: data/AMASS/amass_processed where it exists, else the example poses that ship."""
    version: str = "version1"
    """Version folder below --dataset-folder."""
    split: str | None = None
    """Real poses to compare with: test, valid, train or another folder of the data set; default: the protocol's."""
    reference: Path | None = None
    """Compare with these instead: .npz of poses, an AMASS sequence, or statistics.npz (mu, sigma) for the FID alone."""
    reference_size: int = 10_000
    """Real poses in precision, recall, density and coverage, at most."""
    balanced: bool | None = None
    """Each subject of the split alike, or each pose; default: the protocol's."""
    baselines: bool = False
    """Also measure training poses and a Gaussian fitted to them."""
    samples: int | None = None
    """Poses drawn; default: the protocol's."""
    sampler: Sampler | None = None
    """How they are drawn; default: --config's, else the protocol's."""
    steps: int | None = None
    """Network evaluations per sample; default: 20 for dpm++, 1000 for the others."""
    corrector: Literal["langevin", "ald", "none"] | None = None
    """Corrector at each step."""
    eps: float | None = None
    """Diffusion time at which sampling ends."""
    si_samples: int | None = None
    """Poses whose self-intersection is measured, 0: none; default: the protocol's, 50 or 500."""
    bpd_samples: int = 100
    """Real poses whose likelihood is measured, by the exact trace; 0: none."""
    dnn_samples: int = 5000
    """Poses whose nearest training pose is sought."""
    num: int = 50
    """solvers: poses that are completed."""
    hypo: int = 10
    """solvers: completions of each pose."""
    part: tuple[Part, ...] = ("left_leg", "legs", "arms", "trunk")
    """solvers: what is hidden, one after the other."""
    only: tuple[str, ...] = ()
    """solvers: which of them, by the beginning of their names; default: all."""
    output_path: Path = Path("./output/evaluation")
    """Where samples, tables and plots go."""
    fresh: bool = False
    """Delete the samples and scores that are kept below --output-path first."""
    report: Path | None = None
    """Also write a Markdown page, with its pictures in a folder of the same name beside it."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    seed: int = 42
    """Same seed, same device, same result."""


class Bench:
    """What both tasks need: the models, the real poses, and the pages of the report."""

    def __init__(self, args: Args):
        self.args = args
        self.protocol = _protocol(args)
        _check(args, self.protocol)
        self.folder = writable_folder(args.output_path)
        if args.report is not None:
            writable_folder(args.report.parent)
        self.device = pick_device(args.device)
        folder = args.dataset_folder or (DATA if (DATA / args.version).is_dir() else None)
        self.data = folder / args.version if folder else None
        self.training, self.persons = self._training()
        self.reference, self.name = self._reference()
        self.body = BodyModel(args.bodymodel_path, device=self.device)
        self.prior = load_prior(args.ckpt_path, self.data, self.device)
        if args.fresh:
            for kept in (*self.folder.glob("samples/*/*.npz"), *self.folder.glob("solvers/*.json")):
                kept.unlink()
        self.pages = [f"# Evaluation\n\nMade by `{_command()}`.\nMachine: {machine(self.device)}."]

    def _training(self) -> tuple[Tensor | None, Tensor | None]:
        """The training poses and, where subjects shall count alike, whose they are."""
        if self.data is None or not (self.data / "train" / "pose_body.pt").is_file():
            return None, None
        train = read_split(self.data, "train")
        return train.pose_body, train.subject if self.protocol.balanced else None

    def _reference(self) -> tuple[Reference, str]:
        """What samples are compared with, and its name."""
        subject, path = None, self.args.reference
        if path is None and self.data is not None:
            split = read_split(self.data, self.protocol.split)
            poses, name = split.pose_body, f"the {self.protocol.split} split of {self.data}"
            subject = split.subject if self.protocol.balanced else None
        else:
            path, name = path or asset("examples", "toy_data.npz"), str(path or "the example poses")
            if load_npz(path, "real poses", optional=("mu", "sigma")).keys() >= {"mu", "sigma"}:
                return Reference.read_statistics(path), name
            poses = torch.as_tensor(read_poses(path), dtype=torch.float32)
        reference = Reference.split(poses, subject, self.args.reference_size, self.args.seed)
        return reference, f"{name}, each {'pose' if subject is None else 'subject'} alike"

    def tell(self, page: str, *tables: tuple[Sequence[str], Sequence[Sequence[Any]]]) -> None:
        """Print a text and its tables, and keep them for the report."""
        print("\n" + "\n\n".join([page, *(table(*some) for some in tables)]))
        self.pages += [page, *(markdown(*some) for some in tables)]

    def record(self, results: dict[str, Any], published: Mapping[str, Any]) -> dict[str, Any]:
        """What a JSON file holds besides its results."""
        origin = {"command": _command(), "machine": machine(self.device), "reference": self.name, "seed": self.args.seed}
        return {**origin, **results, "published on AMASS": published}

    def show(self, name: str, image: Any, caption: str) -> None:
        """Keep a picture for the report."""
        assert self.args.report is not None
        save_image(self.args.report.with_suffix("") / name, image)
        self.pages.append(f"{caption}\n\n![{caption}]({self.args.report.stem}/{name})")


def generation(bench: Bench) -> None:
    """The table of the published kind: samples, real poses, baselines."""
    args, protocol, store = bench.args, bench.protocol, bench.folder / "samples"
    samples, place, kept = stored_samples(bench.prior, protocol.samples, protocol.sampling, args.seed, store, step_bar)
    counts = Counts(dnn=args.dnn_samples, si=protocol.si, bpd=args.bpd_samples)
    rows: list[dict[str, Any]] = []
    for name, poses, real in _candidates(bench, samples):
        figures = generation_figures(
            poses.to(bench.device), bench.reference, protocol.figures, body=bench.body, training=bench.training,
            prior=bench.prior if real else None, counts=counts, bar=step_bar,
        )  # fmt: skip
        rows.append({"poses": name, "count": len(poses), **figures})

    keys = [key for key in protocol.figures if any(key in row for row in rows)]
    published = {name: {key: row[key] for key in keys if key in row} for name, row in PUBLISHED.items()}
    known = [key for key in keys if key in published["DPoser"]]
    drawn = ", ".join(f"{key} {value}" for key, value in protocol.sampling.items())
    limits = {
        "APD": counts.apd,
        "dNN": counts.dnn,
        "SI (self-intersection)": counts.si,
        "bits/dim (under this prior, exact trace)": counts.bpd,
    }
    fewer = ", ".join(f"{what} {limit}" for what, limit in limits.items() if what.split(" ")[0] in keys)
    known_by = f"{len(bench.reference.poses)} poses" if len(bench.reference.poses) else "the statistics"
    note = (
        f"{len(samples)} samples ({drawn}; seed {args.seed}) against {known_by} of {bench.name}.\nPoses measured at most: {fewer}.\n"
        "The second table, for orientation: DPoser-X (arXiv 2508.00599), trained on AMASS and compared with AMASS."
    )
    bench.tell(
        f"## Generation\n\n{note}",
        (["poses", "count", *headed(keys, UNITS)], [figures_row(row["poses"], row, ["count", *keys]) for row in rows]),
        (["published, on AMASS", *headed(known, UNITS)], [figures_row(name, row, known) for name, row in published.items()]),
    )
    save_csv(bench.folder / "generation.csv", rows, ["poses", "count", *keys])
    save_json(bench.folder / "generation.json", bench.record({"protocol": asdict(protocol), "note": note, "rows": rows}, published))
    origin = f"samples ({kept} of them were there already)" if kept else "samples"
    print("\n" + table(["written", "where"], [["figures", bench.folder / "generation.csv"], [origin, place]]))


def _candidates(bench: Bench, samples: Tensor) -> Iterator[tuple[str, Tensor, bool]]:
    """What the figures are taken of: name, poses, and whether their likelihood is of interest."""
    count, seed = len(samples), bench.args.seed
    yield "samples of the prior", samples, False
    if len(bench.reference.others):
        yield "real poses, the other half", bench.reference.others[:count], True
    if bench.args.baselines and bench.training is not None:
        yield "real training poses", balanced_draw(bench.training, bench.persons, count, seed), True
        generator = torch.Generator().manual_seed(seed)
        fitted = gaussian_samples(bench.training, count, generator, bench.persons)
        yield "Gaussian of the training poses", fitted, False


def solvers(bench: Bench) -> None:
    """Error, diversity and price of every way to complete a pose."""
    args = bench.args
    poses = bench.reference.poses[: args.num]
    if len(poses) == 0:
        raise InputError(f"--reference {args.reference}: holds no poses, expected some to complete; leave it out or name a file of poses")
    chosen = [solver for solver in tradeoff.SOLVERS if not args.only or solver.label.startswith(args.only)]
    if not chosen:
        names = ", ".join(solver.label for solver in tradeoff.SOLVERS)
        raise InputError(f"--only {' '.join(args.only)}: no such solver, expected the beginning of one of {names}")
    rows = tradeoff.solver_tradeoff(
        bench.prior, bench.body, poses, args.part, chosen, hypotheses=args.hypo, seed=args.seed, training=bench.training,
        folder=bench.folder / "solvers", bar=step_bar,
    )  # fmt: skip
    bench.tell(
        f"## Completion\n\n{len(poses)} poses of {bench.name}; {args.hypo} hypotheses each, seed {args.seed}. Errors of the hidden part in "
        "mm without alignment (minimum, mean, standard deviation over hypotheses), APD between hypotheses in cm, plausibility: mean "
        "percentile among held-out motion.\nThe published figures are of ten hypotheses, trained on AMASS and tested on AMASS."
    )
    for part in args.part:
        bench.tell(f"### {part}", (["solver", *completion_scores.FIGURES], _solver_lines(part, [row for row in rows if row.part == part])))
    reasons = {f"{row.label}: {row.reason}" for row in rows if row.reason}
    if reasons:
        bench.tell("Left out: " + "; ".join(sorted(reasons)) + ".")

    keys = ["part", "label", "family", *completion_scores.FIGURES, "reason"]
    values = [{"part": row.part, "label": row.label, "family": row.family, **row.figures, "reason": row.reason} for row in rows]
    save_csv(bench.folder / "solvers.csv", values, keys)
    save_json(bench.folder / "solvers.json", bench.record({"rows": values}, completion_scores.PUBLISHED))
    kept = sum(row.kept for row in rows)
    written = [[f"figures ({kept} of {len(rows)} rows measured before)" if kept else "figures", bench.folder / "solvers.csv"]]
    points = [_point(row) for row in rows if row.figures.get("evaluations") and "MPVPE mean" in row.figures]
    if points:
        image = tradeoff_plot(points, error="MPVPE of the hidden part, mm", marked="DPoser as published (v1)")
        save_image(bench.folder / "tradeoff.png", image)
        written.append(["plot", bench.folder / "tradeoff.png"])
        if args.report is not None:
            bench.show("tradeoff.png", image, "Error against network evaluations per hypothesis")
    if args.report is not None:
        _sheets(bench, poses)
    print("\n" + table(["written", "where"], written))


def _solver_lines(part: str, rows: Sequence[tradeoff.SolverRow]) -> list[list[str]]:
    """What was measured, then what was published."""
    published = {mode: completion_scores.published_figures(mode, part) for mode in get_args(Mode)}
    lines = [(row.label, row.figures) for row in rows] + [(f"{mode}, published", figures) for mode, figures in published.items() if figures]
    return [figures_row(label, figures, completion_scores.FIGURES, 1) for label, figures in lines]


def _point(row: tradeoff.SolverRow) -> TradeoffPoint:
    price, best, mean = (row.figures[key] for key in ("evaluations", "MPVPE min", "MPVPE mean"))
    return TradeoffPoint(row.part, row.series, price, best, mean, marked=row.published, joined=row.preset is None)


def _sheets(bench: Bench, poses: Tensor) -> None:
    """Pictures of completions of every part, from two sides."""
    args, (count, hypotheses) = bench.args, SHEET
    for part in args.part:
        generator = torch.Generator(bench.device).manual_seed(args.seed)
        guesses = complete(bench.prior, poses[:count].to(bench.device), part_missing(part), hypotheses, generator=generator)
        for view in VIEWS:
            sheet = completion_sheet(bench.body, poses[:count], guesses, part, view)
            bench.show(f"{part}_{view}.png", sheet, f"{part} completed (mode posterior), seen from {view.replace('_', ' ')}")


def _protocol(args: Args) -> Protocol:
    """The protocol of --protocol, changed by --config, changed by single flags."""
    protocol = PROTOCOLS[args.protocol]
    sampling = dict(protocol.sampling)
    if args.config is not None:
        recipe = args.config.sampling
        sampling = {"sampler": recipe.predictor, "corrector": recipe.corrector, "corrector_steps": recipe.n_steps_each, "snr": recipe.snr}
        sampling |= {"noise_removal": recipe.noise_removal, "steps": 1000}
        sampling = {"sampler": "ode"} if recipe.method == "ode" else sampling
    if args.sampler is not None:
        sampling |= {"sampler": args.sampler, "steps": 20 if args.sampler == "dpm++" else 1000}
    flags = {"steps": args.steps, "corrector": args.corrector, "t_end": args.eps}
    sampling |= {key: value for key, value in flags.items() if value is not None}
    if sampling["sampler"] == "ode":  # takes as many steps as it needs
        sampling = {key: value for key, value in sampling.items() if key in ("sampler", "t_end")}
    changes: dict[str, Any] = {"samples": args.samples, "split": args.split, "balanced": args.balanced, "si": args.si_samples}
    return replace(protocol, sampling=sampling, **{key: value for key, value in changes.items() if value is not None})


def _check(args: Args, protocol: Protocol) -> None:
    """Refuse numbers that no work can be done with, before any is done."""
    least = NEIGHBOURS + 1
    for flag, value, low, high in (
        ("--samples", protocol.samples, least, 10_000_000),
        ("--reference-size", args.reference_size, least, 1_000_000),
        ("--si-samples", protocol.si, 0, 1_000_000),
        ("--bpd-samples", args.bpd_samples, 0, 1_000_000),
        ("--dnn-samples", args.dnn_samples, 1, 10_000_000),
        ("--num", args.num, 1, 100_000),
        ("--hypo", args.hypo, 1, 1000),
    ):
        if not low <= value <= high:
            reason = f" ({NEIGHBOURS} neighbours are sought among them)" if low == least else ""
            raise InputError(f"{flag} {value}, expected {low} to {high}{reason}")
    if args.report is not None and args.report.suffix != ".md":
        raise InputError(
            f"--report {args.report}: expected a name that ends in .md; pictures go to a folder of that name without the ending"
        )


def _command() -> str:
    return shlex.join(["python", "-m", "run.evaluate", *sys.argv[1:]])


TASKS: Mapping[str, tuple[Callable[[Bench], None], ...]] = {
    "generation": (generation,),
    "solvers": (solvers,),
    "all": (generation, solvers),
}


def main(args: Args) -> None:
    bench = Bench(args)
    for task in TASKS[args.task]:
        task(bench)
    if args.report is not None:
        save_bytes(args.report, ("\n\n".join(bench.pages) + "\n").encode())
        print(f"\nThe report is {args.report}.")


if __name__ == "__main__":
    cli(main)
