"""Make the example pictures: a photographer with keypoints placed by hand, rendered people and a rendered film with the truth beside.

python -m run.make_photo_examples --photographer camera.png

The photograph is skimage/data/camera.png of scikit-image; the rest comes from examples/toy_data.npz and examples/motion.npz.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from dposer.assets import asset
from dposer.body import BodyModel
from dposer.body.skeleton import OPENPOSE_25, layout_map
from dposer.data.amass import read_amass, read_poses
from dposer.data.images import read_photo
from dposer.data.keypoints import Keypoints, write_openpose
from dposer.errors import InputError
from dposer.files import save_npz
from dposer.geometry.camera import Camera
from dposer.viz import save_image
from dposer.viz.overlay import overlay
from dposer.viz.video import write_video
from run._cli import cli, progress_bar, table, writable_folder

PHOTOGRAPHER: dict[str, tuple[float, float, float]] = {
    "nose": (253, 166, 0.95), "right_eye": (237, 147, 0.9), "right_ear": (188, 142, 0.95), "neck": (158, 181, 0.5),
    "right_shoulder": (100, 176, 0.8), "right_elbow": (77, 289, 0.85), "right_wrist": (188, 236, 0.9),
    "left_shoulder": (215, 187, 0.3), "left_elbow": (243, 290, 0.7), "left_wrist": (280, 236, 0.8),
    "pelvis": (52, 388, 0.5), "right_hip": (28, 391, 0.5), "left_hip": (76, 385, 0.5),
}  # fmt: skip
"""Keypoint → pixels of the photograph and confidence, placed by hand. He is seen from his right and cut above the knees. A coat hides
the hips, the neck and the left shoulder, so that those are guesses, of lower confidence."""
_PHOTOGRAPH = "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a"
"""SHA-256 of the file that the keypoints were placed on."""


class Lens(NamedTuple):
    """A level camera."""

    width: int
    height: int
    focal: float

    @property
    def camera(self) -> Camera:
        return Camera.of_size(self.width, self.height, self.focal)


class Stand(NamedTuple):
    """How somebody stands in a scene."""

    row: int
    """Of the pose in toy_data.npz."""
    heading: float
    """Degrees; 0 faces the camera, 90 the picture's right."""
    right: float
    away: float
    """Metres from the camera to the pelvis."""
    betas: tuple[float, ...]
    """First shape coefficients of the open body."""


PICTURES: dict[str, tuple[Stand, ...]] = {
    "rendered": (Stand(56, 25, 0.0, 3.1, (0.8, -0.6)),),
    "rendered_two": (Stand(376, -15, -0.55, 3.2, (-0.7, 1.0)), Stand(264, 80, 0.75, 4.3, (1.2, -0.8))),
}
PICTURE, FILM = Lens(640, 480, 700), Lens(320, 240, 340)

_EYE = 1.0
"""Metres from the floor to the camera."""
_WALL = 8.0
"""Metres from the camera to the end of the floor."""
_NOISE = 0.015
"""Standard deviation of a detected keypoint, in heights of the person, along x and y each."""
_DROPPED = 0.05
_FILM_TURN, _FILM_AWAY = 200.0, 3.0
"""Degrees about the vertical and metres between the walker and the camera."""


@dataclass
class Args:
    photographer: Path | None = None
    """camera.png of scikit-image; default: the photograph is not made."""
    frames: int = 48
    """Of the film; 0 makes none."""
    output: Path = Path("./examples")
    """Folder to write."""
    seed: int = 0
    """Of the film's noise."""


class Bodies(NamedTuple):
    """People, or frames of one person, before a camera."""

    pose_body: torch.Tensor
    root_orient: torch.Tensor
    betas: torch.Tensor
    trans: torch.Tensor


def main(args: Args) -> None:
    folder = writable_folder(args.output)
    written = []
    if args.photographer is not None:
        _photographer(args.photographer, folder)
        written.append(["photographer.jpg", "a photograph and its keypoints"])
    body = BodyModel()
    for name, stands in PICTURES.items():
        _picture(folder, name, body, _standing(body, stands))
        written.append([f"{name}.jpg", f"{len(stands)} rendered, keypoints, truth"])
    if args.frames:
        _film(folder, body, _walking(body, args.frames), np.random.default_rng(args.seed))
        written.append(["walk.mp4", f"{args.frames} frames, noisy keypoints, truth"])
    print(table(["written", "holds"], written))


def _photographer(source: Path, folder: Path) -> None:
    photo = read_photo(source)
    if hashlib.sha256(source.read_bytes()).hexdigest() != _PHOTOGRAPH:
        raise InputError(
            f"{source}: not the picture the keypoints belong to, expected skimage/data/camera.png of scikit-image (0.18 or later)"
        )
    points = np.array([PHOTOGRAPHER.get(name, (0, 0, 0)) for name in OPENPOSE_25.joints], np.float64)
    save_image(folder / "photographer.jpg", photo.pixels)
    write_openpose(folder / "photographer_keypoints.json", Keypoints(points[None], OPENPOSE_25, (None,), photo.size))


def _standing(body: BodyModel, stands: tuple[Stand, ...]) -> Bodies:
    """People with their lowest point on the floor."""
    poses = torch.as_tensor(read_poses(asset("examples", "toy_data.npz")))[[stand.row for stand in stands]]
    roots = Rotation.from_euler("xy", [(180, -stand.heading) for stand in stands], degrees=True)
    betas = torch.zeros(len(stands), body.num_betas)
    for person, stand in enumerate(stands):
        betas[person, : len(stand.betas)] = torch.tensor(stand.betas)
    places = torch.tensor([(stand.right, 0, stand.away) for stand in stands])
    return _on_floor(body, Bodies(poses, torch.as_tensor(roots.as_rotvec()).float(), betas, places - body.rest_joints(betas)[:, 0]), 1)


def _walking(body: BodyModel, frames: int) -> Bodies:
    """Somebody who walks before a camera that stands still."""
    motion = read_amass(asset("examples", "motion.npz"))
    if not 0 < frames <= len(motion):
        raise InputError(f"--frames {frames}: motion.npz has {len(motion)}; take fewer")
    upright = Rotation.from_euler("zx", [_FILM_TURN, 90], degrees=True)  # from +z up to the camera's +y down
    pose, root, trans = (np.asarray(part[:frames], np.float64) for part in (motion.pose_body, motion.root_orient, motion.trans))
    rest = body.rest_joints()[0, 0].double().numpy()
    places = upright.apply(trans + rest)
    places += (0, 0, _FILM_AWAY) - (places.max(0) + places.min(0)) / 2
    turned = (upright * Rotation.from_rotvec(root)).as_rotvec()
    parts = (torch.as_tensor(part).float() for part in (pose, turned, places - rest))
    pose_body, root_orient, moved = parts
    return _on_floor(body, Bodies(pose_body, root_orient, torch.zeros(1, body.num_betas).expand(frames, -1), moved), frames)


def _on_floor(body: BodyModel, bodies: Bodies, together: int) -> Bodies:
    """Moved down to the floor, as many as ``together`` by the same."""
    surface = body(**bodies._asdict()).vertices
    assert surface is not None
    lowest = surface[..., 1].amax(1).view(-1, together).amax(1).repeat_interleave(together)
    return bodies._replace(trans=bodies.trans + torch.tensor([0.0, 1.0, 0.0]) * (_EYE - lowest)[:, None])


def _picture(folder: Path, name: str, body: BodyModel, bodies: Bodies) -> None:
    surfaces, points = _seen(body, bodies, PICTURE)
    save_image(folder / f"{name}.jpg", _render(surfaces, body, PICTURE))
    _write_keypoints(folder / f"{name}_keypoints.json", points, PICTURE)
    _write_truth(folder / f"{name}_truth.npz", body, bodies, PICTURE)


def _film(folder: Path, body: BodyModel, bodies: Bodies, rng: np.random.Generator) -> None:
    surfaces, points = _seen(body, bodies, FILM)
    pictures = (_render(surface[None], body, FILM) for surface in surfaces)
    write_video(folder / "walk.mp4", progress_bar(pictures, "rendering", len(surfaces)), 30)
    height = np.ptp(points[..., 1], axis=1).max()
    points[..., :2] += _NOISE * height * rng.standard_normal(points[..., :2].shape)
    points[rng.random(points.shape[:2]) < _DROPPED] = 0
    for frame, person in enumerate(points):
        _write_keypoints(folder / "walk_keypoints" / f"walk_{frame:012d}_keypoints.json", person[None], FILM)
    _write_truth(folder / "walk_truth.npz", body, bodies, FILM)


def _seen(body: BodyModel, bodies: Bodies, lens: Lens) -> tuple[np.ndarray, np.ndarray]:
    """Surfaces (N, V, 3) in metres and BODY_25 keypoints (N, 25, 3) in pixels, all of confidence 1."""
    output = body(**bodies._asdict())
    rows = list(layout_map(body.keypoint_layout.joints, OPENPOSE_25.joints))
    pixels = lens.camera.project(body.keypoints(output)[:, rows])
    assert output.vertices is not None
    return output.vertices.numpy(), torch.cat((pixels, torch.ones_like(pixels[..., :1])), -1).double().numpy()


def _render(surfaces: np.ndarray, body: BodyModel, lens: Lens) -> np.ndarray:
    """People in a room whose floor darkens towards the wall: ``v = f h / z + c_y`` on a floor ``h`` below the camera."""
    rows = np.arange(lens.height) + 0.5 - lens.height / 2
    depth = lens.focal * _EYE / np.maximum(rows, 1e-6)
    wall = 0.86 + 0.08 * rows / lens.height
    shade = np.where(depth < _WALL, 0.50 + 0.20 / np.maximum(depth, 1), wall)
    tint = np.array([1.0, 0.98, 0.94])
    room = np.rint(255 * shade[:, None, None] * np.broadcast_to(tint, (lens.height, lens.width, 3))).astype(np.uint8)
    focal, centre = (tuple(part.tolist()) for part in (lens.camera.focal, lens.camera.centre))
    return overlay(room, surfaces, body.faces, focal, centre, opacity=1, renderer="software")


def _write_keypoints(path: Path, points: np.ndarray, lens: Lens) -> None:
    rounded = np.round(points, 2)
    write_openpose(path, Keypoints(rounded, OPENPOSE_25, (None,) * len(points), (lens.width, lens.height)))


def _write_truth(path: Path, body: BodyModel, bodies: Bodies, lens: Lens) -> None:
    joints = body(**bodies._asdict(), vertices=None).joints
    arrays = bodies._asdict() | {"focal": lens.camera.focal, "centre": lens.camera.centre, "joints": joints}
    save_npz(path, {name: value.numpy() for name, value in arrays.items()})


if __name__ == "__main__":
    cli(main)
