"""Fit bodies to the photographs of EHF and score them against the scans, beside the published figures.

    python -m run.fitting --data-dir EHF --bodymodel-path SMPLX_NEUTRAL.npz             # EHF's own OpenPose keypoints
    python -m run.fitting --data-dir EHF --bodymodel-path SMPLX_NEUTRAL.npz --keypoints vitpose --hypotheses 10
    python -m run.fitting --data-dir EHF --bodymodel-path SMPLX_NEUTRAL.npz --prior None --outdir output/none
    torchrun --nproc-per-node 2 -m run.fitting --data-dir EHF --bodymodel-path SMPLX_NEUTRAL.npz

EHF's scans are SMPL-X meshes, so that the body must be SMPL-X as well. Surfaces and the 22 joints regressed from them are compared after
the similarity that fits best, and with both pelvises in one place. A run that was stopped is continued by the same command, from the
batches it finished (<out>/batches/batch_*.npz).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dposer import __version__
from dposer.body import BodyModel
from dposer.body.skeleton import Layout
from dposer.data.ehf import CENTRE, FOCAL, EhfSample, read_ehf, read_mesh, to_camera
from dposer.data.images import read_photo
from dposer.data.keypoints import read_keypoints
from dposer.errors import InputError
from dposer.files import save_json, save_npz
from dposer.geometry.camera import Camera
from dposer.prior.config import PriorConfig
from dposer.prior.pose_prior import Progress
from dposer.randomness import keyed_generator
from dposer.solvers.mesh_fitting import FEWEST, MeshFit, fit_keypoints
from dposer.solvers.mesh_scores import FIGURES, PUBLISHED_EHF, MeshScores, mesh_scores
from dposer.viz import save_image
from dposer.viz.overlay import overlay
from run._cli import cli, load_prior, progress_bar, step_bar, table, writable_folder
from run._fitting import SolverFlags, fit_arrays, mixture_digest, without
from run._report import machine, save_csv
from run._shards import Crew, Shards, digest, processes, work_through

EHF_SIZE = (1600, 1200)
NOTE = """Means over the images in mm, of 22 regressed joints (MPJPE) and of the surface (PVE): with both pelvises in one place, or after
the similarity that fits best (PA-). Best of several: each figure's lowest, as published; else of the lowest objective."""
PUBLISHED_NOTE = """published: DPoser-X (arXiv 2508.00599), the 100 images of EHF with SMPL-X, keypoints of ViTPose (whole-body, huge),
weights trained on AMASS, the diagonal as focal length; comparable only with all of these."""


@dataclass(kw_only=True)
class Args(SolverFlags):
    data_dir: Path
    """The EHF folder: NN_img.jpg, NN_2Djnt.json and NN_align.ply."""
    config: PriorConfig | None = None
    """A recipe file, as other commands have it; nothing is read from it, the network's settings come with the weights."""
    config_path: str | None = None
    """The same by the original's name for it; nothing is read from it either."""
    keypoints: Path | None = None
    """Folder with another detector's keypoints, as NN_2Djnt.json, NN_img.json, NN_keypoints.json or NN.json; default: EHF's own."""
    layout: str = "auto"
    """What the keypoints are; auto goes by their number."""
    ignore: tuple[str, ...] = ()
    """Keypoints that do not count; the published protocol leaves out neck left_hip right_hip."""
    outdir: Path = Path("./output/test_results/ehf")
    """Where results go; the original wrote to lifting_results/output."""
    overlay: bool = True
    """--no-overlay leaves out the pictures of the fits."""
    bodymodel_path: Path | None = None
    """The SMPL-X file; default: the open body that ships, which EHF's scans cannot be compared with."""
    ckpt_path: Path | None = None
    """Weights: a .safetensors of this library or a published .pth/.ckpt; default: the prior that ships."""
    dataset_folder: Path = Path("./data/AMASS/amass_processed")
    """Where a published checkpoint's normaliser is looked for."""
    version: str = "version1"
    """Version folder below --dataset-folder."""
    focal: Literal["diagonal", "dataset"] = "diagonal"
    """Focal length and principal point: the picture's diagonal and middle, as published, or those of EHF's camera."""
    hypotheses: int = 1
    """Fits of each image, with other noise each; of several, the lowest error is reported beside that of the lowest objective."""
    batch: int = 20
    """Images at once."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    seed: int = 42
    """Same seed, same device, same result."""


def main(args: Args) -> None:
    """Fit what is not fitted yet, draw what is not drawn yet, and report."""
    torch.set_num_threads(1)  # the matrices are small
    with processes() as crew:
        study = crew.leader_first(lambda: Study(args, crew))
        work_through(crew, study)
        results = study.shards.read()
        if args.overlay:
            study.draw(crew, results)
        crew.wait()
        if crew.is_leader:
            study.report(results)


@dataclass(frozen=True)
class Subject:
    """A sample, read."""

    sample: EhfSample
    size: tuple[int, int]
    """Of the picture: width and height."""
    points: np.ndarray
    """(K, 3) pixels and confidence."""
    layout: Layout
    truth: np.ndarray
    """(V, 3) metres, in the camera's frame."""

    @property
    def picture(self) -> str:
        """Where the fit is drawn."""
        return f"{self.sample.image.stem}_mesh_fit.png"


class Study:
    """All samples of a folder, what they are fitted with, and what becomes of them."""

    def __init__(self, args: Args, crew: Crew):
        self.args, self.device = _checked(args), crew.device(args.device)
        samples = read_ehf(args.data_dir, args.keypoints)
        self.body = BodyModel(args.bodymodel_path, self.device)
        read_mesh(samples[0].mesh, self.body.num_vertices)  # another body is told before the work
        self.settings = args.solver(self.device, ehf=True)
        some = args.prior != "None"
        self.prior = load_prior(args.ckpt_path, args.dataset_folder / args.version, self.device) if some else None
        self.subjects = [
            _subject(sample, args, self.body.num_vertices) for sample in (progress_bar(samples, "reading") if crew.is_leader else samples)
        ]
        self.layout = _common_layout(self.subjects)
        pieces = -(-len(samples) // args.batch)
        self.shards = Shards(args.outdir / "batches", pieces, self._decisive())

    def _decisive(self) -> dict[str, Any]:
        """What decides the numbers."""
        names = ("seed", "prior", "focal", "hypotheses", "ignore", "batch")
        data = (torch.from_numpy(part) for subject in self.subjects for part in (np.array(subject.size), subject.points, subject.truth))
        return {name: getattr(self.args, name) for name in names} | {
            "solver": repr(self.settings), "mixture": mixture_digest(self.settings),
            "images": len(self.subjects), "layout": self.layout.name, "data": digest(data),
            "device": self.device.type,
            "weights": None if self.prior is None else digest(self.prior.state_dict().values()),
            "body": digest([self.body.v_template, self.body.weights]), "library": __version__,
        }  # fmt: skip

    def _of(self, batch: int) -> list[Subject]:
        return self.subjects[batch * self.args.batch : (batch + 1) * self.args.batch]

    def watch(self, batches: Sequence[int]) -> Callable[[int], Progress]:
        """A progress bar over the images of these batches: a batch → its own progress."""
        update, total = step_bar("images"), sum(len(self._of(batch)) for batch in batches)

        def within(batch: int) -> Progress:
            before = sum(len(self._of(other)) for other in batches if other < batch)
            return lambda done, steps: update(before + len(self._of(batch)) * done // steps, total)

        return within

    def compute(self, batch: int, progress: Progress | None = None) -> dict[str, Any]:
        """The scores of a batch, and of each image the fit with the lowest objective, as arrays."""
        some, count = self._of(batch), self.args.hypotheses
        for subject in some:
            (self.args.outdir / subject.picture).unlink(missing_ok=True)  # of an earlier fit
        points = torch.as_tensor(np.stack([subject.points for subject in some]), dtype=torch.float32, device=self.device)
        camera = _cameras(self.args.focal, some)

        def part(hypothesis: int) -> Progress | None:
            return progress and (lambda done, steps: progress(hypothesis * steps + done, count * steps))

        fits = [self._fit(points, camera, keyed_generator(self.device, self.args.seed, "solver", h), part(h)) for h in range(count)]
        arrays = [fit_arrays(fit, camera) for fit in fits]
        found = torch.stack([self._surfaces(one) for one in arrays], 1)
        truth = torch.as_tensor(np.stack([subject.truth for subject in some]))
        objective = torch.stack([fit.objective.amin(1) for fit in fits], 1)
        best, rows = objective.argmin(1).cpu().numpy(), np.arange(len(some))
        chosen = {name: np.stack([one[name] for one in arrays])[best, rows] for name in arrays[0]}
        return mesh_scores(self.body, found, truth, objective).arrays() | chosen

    def _fit(self, points: Tensor, camera: Camera, generator: torch.Generator, progress: Progress | None) -> MeshFit:
        """Who solves."""
        return fit_keypoints(
            self.prior, points, camera, self.layout, body=self.body, settings=self.settings, generator=generator, progress=progress
        )

    @torch.no_grad()
    def _surfaces(self, fits: Mapping[str, np.ndarray]) -> Tensor:
        """(P, V, 3) metres, in the camera's frame."""
        parameters = (fits[name] for name in ("body_pose", "global_orient", "betas", "transl"))
        surfaces = self.body(*(torch.as_tensor(values, device=self.device) for values in parameters)).vertices
        assert surfaces is not None
        return surfaces

    def draw(self, crew: Crew, results: Sequence[Mapping[str, np.ndarray]]) -> None:
        """The fits that are not drawn yet over their pictures, this process's share of them."""
        fits = _fits(results)
        lacking = [i for i, subject in enumerate(self.subjects) if not (self.args.outdir / subject.picture).is_file()]
        mine = crew.share(lacking)
        for i in progress_bar(mine, "drawing") if crew.is_leader and mine else mine:
            subject = self.subjects[i]
            surface = self._surfaces({name: values[i : i + 1] for name, values in fits.items()}).cpu().numpy()
            lens = tuple(fits["focal"][i].tolist()), tuple(fits["centre"][i].tolist())
            image = overlay(read_photo(subject.sample.image).pixels, surface, self.body.faces, *lens)
            save_image(self.args.outdir / subject.picture, image)

    def report(self, results: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Write the files and print the table."""
        args, scores = self.args, MeshScores.from_arrays(results)
        figures = scores.chosen()
        if args.hypotheses > 1:
            figures |= {f"best {name}": values for name, values in scores.best().items()}
        names = [subject.sample.name for subject in self.subjects]
        fits = _fits(results)
        columns = {"image": names} | {name: values.tolist() for name, values in figures.items()}
        columns["residual px"] = np.nanmean(fits["residuals"], 1).tolist()
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        save_csv(args.outdir / "results.csv", rows, list(columns))
        save_npz(args.outdir / "fits.npz", {"image": names, **fits})
        report = {
            "results": scores.report(), "units": NOTE, "published": {"note": PUBLISHED_NOTE, **PUBLISHED_EHF}, "images": rows,
            "flags": {key: str(value) if isinstance(value, Path) else value for key, value in dataclasses.asdict(args).items()},
            "settings": dict(self.shards.settings), "body": self.body.kind, "machine": machine(self.device),
        }  # fmt: skip
        save_json(args.outdir / "results.json", report)
        print(f"{len(rows)} images\n")
        print(_table("no prior" if args.prior == "None" else args.prior, scores.report(), args.hypotheses))
        pictures = " and *_mesh_fit.png" if args.overlay else ""
        print(f"\nwritten to {args.outdir}: results.csv, results.json, fits.npz{pictures}")


# ---- reading -----------------------------------------------------------------------------------------------------------


def _checked(args: Args) -> Args:
    for name, most in (("hypotheses", 1000), ("batch", 1_000_000)):
        value = getattr(args, name)
        if value is not None and not 1 <= value <= most:
            raise InputError(f"--{name} {value}, expected 1 to {most}")
    writable_folder(args.outdir)
    return args


def _subject(sample: EhfSample, args: Args, num_vertices: int) -> Subject:
    """Of several people in a file the one whose keypoints are the surest, since EHF has one person only."""
    size = read_photo(sample.image).size
    people = read_keypoints(sample.keypoints, args.layout, size)
    if not len(people):
        raise InputError(f"{sample.keypoints}: holds nobody, expected one person; detect the person in {sample.image.name} first")
    people = without(people, args.ignore)
    points = people.points[people.points[..., 2].sum(1).argmax()]
    if (count := int((points[:, 2] > 0).sum())) < FEWEST:
        raise InputError(f"{sample.keypoints}: {count} keypoints of use, expected {FEWEST} or more; detect them anew")
    return Subject(sample, size, points, people.layout, to_camera(read_mesh(sample.mesh, num_vertices)))


def _common_layout(subjects: Sequence[Subject]) -> Layout:
    first = subjects[0]
    other = next((subject for subject in subjects if subject.layout != first.layout), None)
    if other is not None:
        raise InputError(
            f"{other.sample.keypoints}: {other.layout.name}, expected {first.layout.name} as {first.sample.keypoints.name} has; "
            "give one detector's keypoints"
        )
    return first.layout


def _cameras(focal: str, subjects: Sequence[Subject]) -> Camera:
    """(P, 2) of each picture; the data set's camera scales with a picture that was scaled."""
    if focal == "diagonal":
        cameras = [Camera.of_size(*subject.size) for subject in subjects]
        return Camera(torch.stack([camera.focal for camera in cameras]), torch.stack([camera.centre for camera in cameras]))
    for subject in subjects:
        if subject.size[0] * EHF_SIZE[1] != subject.size[1] * EHF_SIZE[0]:
            raise InputError(
                f"--focal dataset: {subject.sample.image} has {subject.size[0]} x {subject.size[1]} pixels, expected 1600 x 1200 or those "
                "scaled; take the diagonal"
            )
    scale = torch.tensor([subject.size for subject in subjects]) / torch.tensor(EHF_SIZE)
    return Camera(scale * FOCAL, scale * torch.tensor(CENTRE))


# ---- results -----------------------------------------------------------------------------------------------------------


def _fits(results: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The fits of all batches, without their scores."""
    scores = {field.name for field in dataclasses.fields(MeshScores)}
    return {name: np.concatenate([result[name] for result in results]) for name in results[0] if name not in scores}


def _table(name: str, ours: Mapping[str, float], hypotheses: int) -> str:
    """Our rows, and the published ones."""
    lines = _lines(name, ours, hypotheses)
    for start, methods in PUBLISHED_EHF.items():
        for method, figures in methods.items():
            lines |= _lines(f"  published {method}" + ("" if start == "from scratch" else f", from {start}"), figures, 10)
    cells = [[label, *(f"{row[figure]:.2f}" if figure in row else "-" for figure in FIGURES)] for label, row in lines.items()]
    return "\n".join([table(["", *FIGURES], cells), "", NOTE, PUBLISHED_NOTE])


def _lines(name: str, figures: Mapping[str, float], hypotheses: int) -> dict[str, Mapping[str, float]]:
    """A row of figures, and one of the best of several where there are any."""
    best = {figure: figures[f"best {figure}"] for figure in FIGURES if f"best {figure}" in figures}
    return {name: figures} | ({f"{name}, best of {hypotheses}": best} if best else {})


if __name__ == "__main__":
    cli(main)
