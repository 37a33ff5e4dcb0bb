"""One person in a photograph, or in heatmaps: what a lifter of single frames is given."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dposer.body.skeleton import H36M_17, HEATMAP_16, Layout
from dposer.data.heatmap_crops import crop, doubts, keypoints_of_heatmaps, of_mpii, pad_square, read_heatmaps_file
from dposer.data.heatmap_mixtures import SIDE, crop_box
from dposer.data.hrnet import HRNet
from dposer.data.images import Photo, read_photo
from dposer.data.keypoints import ImageSize
from dposer.errors import InputError
from run._fitting import detector
from run._keypoints import guessed_size, read_person

Box = tuple[float, float, float]


@dataclass(frozen=True)
class Seen:
    """F pictures of one person."""

    path: Path
    keypoints: np.ndarray
    """(F, K, 3) pixels and confidence, 0 where missing."""
    layout: Layout
    size: ImageSize
    focal: float | None = None
    """Pixels."""
    heatmaps: np.ndarray | None = None
    """(F, 16, 4096)."""
    box: np.ndarray | None = None
    """(F, 3) left, top, side: where the heatmaps are."""
    photo: np.ndarray | None = None
    """(h, w, 3) uint8 RGB, of one frame."""
    notes: tuple[str, ...] = ()


def read_heatmaps(path: Path) -> Seen:
    """Heatmaps in a file; where it does not tell their place, pixels are cells."""
    file = read_heatmaps_file(path)
    notes, box, size = list(file.notes), file.box, file.size
    if box is None:
        box, size = np.tile([0.0, 0.0, float(SIDE)], (len(file.maps), 1)), (SIDE, SIDE)
        notes.append("nothing tells where the heatmaps were cut out: pixels are cells here. Store 'box' and 'image_size' beside them.")
    keypoints = keypoints_of_heatmaps(file.maps, box)
    return Seen(path, keypoints, H36M_17, size or guessed_size(keypoints), file.focal, file.maps, box, notes=tuple(notes))


def read_picture(
    path: Path, keypoints: Path | None, layout: str, person: int | None, hrnet: Path | None, box: Box | None, device: torch.device
) -> Seen:
    """A photograph.

    Args:
        keypoints: a file of them; None: they are detected, unless ``hrnet`` and ``box`` tell all.
        layout, person: of that file, and whom of several.
        hrnet: weights of a network that makes heatmaps; None: they are made of keypoints.
        box: of the crop that it sees; None: around the keypoints.
    """
    photo = read_photo(path)
    notes: list[str] = []
    found, of = None, H36M_17
    if keypoints is not None:
        one = read_person(keypoints, layout, photo.size, person)
        found, of = one.keypoints[:1], one.layout
        notes += one.notes
    elif hrnet is None or box is None:
        found, of = _detected(path, photo, person, hrnet is not None, notes)
    if hrnet is None:
        assert found is not None
        return Seen(path, found, of, photo.size, photo.focal, photo=photo.pixels, notes=tuple(notes))
    if box is None:
        box_ = pad_square(photo.size) if found is None else crop_box(found[..., :2], found[..., 2] > 0)[0]
    else:
        box_ = np.array(box, float)
    network = HRNet.from_file(hrnet, device)
    with torch.no_grad():
        maps = network.heatmaps(crop(photo.pixels, box_)[None].to(device)).cpu()
    if not network.tuned:
        maps = of_mpii(maps)
        notes.append(f"{hrnet.name} knows MPII's joints alone: the spine is missing.")
    boxes, flat = box_[None], maps.flatten(-2).numpy()
    notes += doubts(flat, boxes, photo.size)
    return Seen(path, keypoints_of_heatmaps(flat, boxes), H36M_17, photo.size, photo.focal, flat, boxes, photo.pixels, tuple(notes))


def _detected(path: Path, photo: Photo, person: int | None, optional: bool, notes: list[str]) -> tuple[np.ndarray | None, Layout]:
    """(1, K, 3) of one of the people in it; None where they need not be found and cannot be."""
    try:
        people = detector(thorough=True)(photo.pixels)
    except InputError:
        if not optional:
            raise
        notes.append("the whole picture is taken for one person, as nothing finds people. Give --box, or install the extra detect.")
        return None, HEATMAP_16
    if not len(people):
        if not optional:
            raise InputError(f"{path}: nobody found in it, expected a person; give their keypoints as --input")
        notes.append("nobody is found in the picture: all of it is taken for one person. Give --box.")
        return None, HEATMAP_16
    if person is not None and person >= len(people):
        raise InputError(f"--person {person}: found {len(people)} people in {path}, expected 0 to {len(people) - 1}")
    if len(people) > 1 and person is None:
        notes.append(f"{len(people)} people are in the picture; who is surest seen is taken. Give --person for another.")
    sums = people.points[..., 2].sum(-1)
    chosen = int(sums.argmax()) if person is None else person
    return people.points[chosen : chosen + 1], people.layout
