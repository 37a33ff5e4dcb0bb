"""A folder as EHF is, of people of our own making."""

import math
from pathlib import Path

import numpy as np
import torch
import trimesh
from scipy.spatial.transform import Rotation

from dposer.assets import asset
from dposer.body import BodyModel
from dposer.body.skeleton import OPENPOSE_25, layout_map
from dposer.data.amass import read_poses
from dposer.data.ehf import CAMERA_TRANSLATION, SCAN_TO_CAMERA
from dposer.data.keypoints import Keypoints, write_openpose
from dposer.geometry.camera import Camera
from dposer.viz import save_image

SIZE = (160, 120)
NAMES = ("01", "02", "10")


def write_ehf(folder: Path) -> None:
    """Three people before the camera that --focal diagonal supposes; the scans in a frame of their own, as EHF's are."""
    folder.mkdir(exist_ok=True)
    body, camera = BodyModel(), Camera.of_size(*SIZE)
    poses = torch.as_tensor(read_poses(asset("examples", "toy_data.npz")))[[40, 100, 200]]
    out = body(poses, torch.tensor([[math.pi, 0, 0]]).expand(3, 3), trans=torch.tensor([[0, 0.1, 3.5], [0.2, 0, 4], [-0.1, 0.2, 3.2]]))
    rows = list(layout_map(body.keypoint_layout.joints, OPENPOSE_25.joints))
    points = torch.cat((camera.project(body.keypoints(out)[:, rows]), torch.ones(3, 25, 1)), -1).double().numpy()
    assert out.vertices is not None
    scans = (out.vertices.double().numpy() - CAMERA_TRANSLATION) @ Rotation.from_rotvec(SCAN_TO_CAMERA).as_matrix()
    for i, name in enumerate(NAMES):
        save_image(folder / f"{name}_img.jpg", np.full((SIZE[1], SIZE[0], 3), 180, np.uint8))
        stray = points[i] * (0.5, 0.5, 0.3)  # what a detector may see beside the person
        people = Keypoints(np.stack([stray, points[i]]), OPENPOSE_25, (None, None), SIZE)
        write_openpose(folder / f"{name}_2Djnt.json", people)
        trimesh.Trimesh(scans[i], body.faces, process=False).export(folder / f"{name}_align.ply")
