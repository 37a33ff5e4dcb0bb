"""Joint names, parts and keypoint layouts."""

import pytest

from dposer.body.skeleton import (
    BODY_JOINTS,
    BODY_MIRROR,
    COCO_17,
    H36M_17,
    LAYOUTS,
    MPI_INF_3DHP_17,
    OPENPOSE_25,
    PARTS,
    SMPLX_66,
    SMPLX_JOINTS,
    SMPLX_PARENTS,
    Layout,
    layout_map,
)


def test_smplx_joints() -> None:
    assert len(SMPLX_JOINTS) == len(SMPLX_PARENTS) == len(set(SMPLX_JOINTS)) == 55
    assert SMPLX_JOINTS[1:22] == BODY_JOINTS
    assert SMPLX_PARENTS[:22] == (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19)
    assert (SMPLX_JOINTS[22:26], SMPLX_JOINTS[40]) == (("jaw", "left_eye", "right_eye", "left_index1"), "right_index1")


def test_body_mirror_swaps_sides() -> None:
    assert [BODY_MIRROR[i] for i in BODY_MIRROR] == list(range(21))
    assert BODY_MIRROR[:3] == (1, 0, 2)


@pytest.mark.parametrize(
    ("part", "joints"),
    [
        ("left_leg", {0, 3, 6, 9}), ("right_leg", {1, 4, 7, 10}), ("left_arm", {12, 15, 17, 19}), ("right_arm", {13, 16, 18, 20}),
        ("trunk", {2, 5, 8, 15, 16}), ("hands", {19, 20}), ("legs", {0, 1, 3, 4, 6, 7, 9, 10}), ("arms", {12, 13, 15, 16, 17, 18, 19, 20}),
    ],
)  # fmt: skip
def test_parts(part: str, joints: set[int]) -> None:
    assert set(PARTS[part]) == joints


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_layouts_are_consistent(layout: Layout) -> None:
    rows = range(len(layout.joints))
    assert len(set(layout.joints)) == len(layout.joints)
    assert all(parent in rows and child in rows and parent != child for parent, child in layout.edges)
    assert {row for edge in layout.edges for row in edge} == set(rows)
    assert [layout.mirror[i] for i in layout.mirror] == list(rows)
    assert sorted((*layout.left, *layout.right)) == [i for i in rows if layout.mirror[i] != i]
    limbs = {frozenset(edge) for edge in layout.edges}
    assert limbs == {frozenset(layout.mirror[row] for row in limb) for limb in limbs}


def test_layout_sizes() -> None:
    assert {name: len(layout.joints) for name, layout in LAYOUTS.items()} == {
        "smplx": 66, "smplx22": 22, "openpose25": 25, "coco17": 17, "h36m17": 17, "mpi_inf_3dhp17": 17, "blazepose33": 33,
    }  # fmt: skip


def test_openpose_in_smplx_output() -> None:
    expected = (55, 12, 17, 19, 21, 16, 18, 20, 0, 2, 5, 8, 1, 4, 7, 56, 57, 58, 59, 60, 61, 62, 63, 64, 65)
    assert layout_map(SMPLX_66.joints, OPENPOSE_25.joints) == expected


def test_3dhp_in_human36m_order() -> None:
    expected = (14, 8, 9, 10, 11, 12, 13, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4)
    assert layout_map(MPI_INF_3DHP_17.joints, H36M_17.joints) == expected


def test_absent_joints_map_to_minus_one() -> None:
    assert layout_map(COCO_17.joints, H36M_17.joints)[0] == -1
    assert layout_map(COCO_17.joints, COCO_17.joints) == tuple(range(17))


def test_trees() -> None:
    assert H36M_17.parents == (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
    assert (H36M_17.left, H36M_17.right) == ((4, 5, 6, 11, 12, 13), (1, 2, 3, 14, 15, 16))
    assert MPI_INF_3DHP_17.parents[14] == -1 and MPI_INF_3DHP_17.parents.count(-1) == 1
    assert (MPI_INF_3DHP_17.left, MPI_INF_3DHP_17.right) == ((5, 6, 7, 11, 12, 13), (2, 3, 4, 8, 9, 10))
    assert (COCO_17.left, COCO_17.right) == ((1, 3, 5, 7, 9, 11, 13, 15), (2, 4, 6, 8, 10, 12, 14, 16))
    assert SMPLX_66.parents[:55] == SMPLX_PARENTS
    with pytest.raises(ValueError, match="loops"):
        _ = COCO_17.parents
