"""Which clips are used, whose they are and which split they belong to."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dposer.data.bvh import read_bvh, write_bvh
from dposer.data.motion import Motion
from dposer.data.open_corpus import TEST_SUBJECTS, VALID_SUBJECTS, Clip, convert_clip, find_clips, read_clip, split_of
from dposer.data.prepare import CaptureTask, Piece, capture_tasks, run_tasks, write_pieces
from dposer.data.processed import read_split
from dposer.errors import InputError


def test_the_split_is_by_subject() -> None:
    assert not TEST_SUBJECTS & VALID_SUBJECTS
    assert [split_of(s) for s in ("02", "03", "01", "snu")] == ["test", "valid", "train", "train"]


def test_plain_folders(tiny_corpus: Path) -> None:
    found = [(clip.subject, clip.name, clip.split) for clip in find_clips(tiny_corpus)]
    assert found == [("01", "01_01", "train"), ("01", "01_02", "train"), ("02", "02_01", "test"), ("03", "03_01", "valid")]


def test_fast_captures_are_thinned_out(tiny_corpus: Path) -> None:
    motion = read_clip(find_clips(tiny_corpus)[0])
    assert (len(motion), motion.fps) == (2, 30.0)


def test_sixty_hertz_subjects(tiny_corpus: Path, tmp_path: Path) -> None:
    (tiny_corpus / "01").rename(tiny_corpus / "60")
    for path in list((tiny_corpus / "60").iterdir()):
        path.rename(path.with_name(path.name.replace("01", "60", 1)))
    motion = read_clip(next(clip for clip in find_clips(tiny_corpus) if clip.subject == "60"))
    assert (len(motion), motion.fps) == (4, 30.0)


def test_bvh_conversions_lose_their_t_pose(tmp_path: Path, random_motion: Callable[..., Motion]) -> None:
    (tmp_path / "c" / "07").mkdir(parents=True)
    write_bvh(tmp_path / "c" / "07" / "07_01.bvh", random_motion(5))
    clip = find_clips(tmp_path / "c")[0]
    assert clip.skip_first and len(read_clip(clip)) == 4
    np.testing.assert_array_equal(read_clip(clip).rotations, read_bvh(clip.path).rotations[1:])


def test_manifest(tiny_corpus: Path, tmp_path: Path) -> None:
    rows = ["path,subject,clip,action,fps"]
    rows += ["01/01.asf,01,,skeleton,0", "01/01_01.amc,01,01_01,walk,30", "03/03_01.amc,unknown_x,x,walk,30"]
    rows += ["noncommercial/a.bvh,,a,walk,15", "other/snu_x/b.bvh,,b,run,30", "other/deepmimic/c.bvh,,c,run,30"]
    (tiny_corpus / "MANIFEST.csv").write_text("\n".join(rows) + "\n")
    found = [(str(clip.path.relative_to(tiny_corpus)), clip.subject, clip.split) for clip in find_clips(tiny_corpus)]
    assert found == [("01/01_01.amc", "01", "train"), ("other/snu_x/b.bvh", "snu", "train")]
    assert [clip.split for clip in find_clips(tiny_corpus, include_noncommercial=True)] == ["train", "bandai", "train"]
    assert len(read_clip(find_clips(tiny_corpus)[0])) == 8  # the manifest says 30 Hz


@pytest.mark.parametrize("content", ["path,subject\na,b\n", "", "path,subject,clip,action,fps\n01/01_01.amc,01,x,x,fast\n"])
def test_broken_manifest(tiny_corpus: Path, content: str) -> None:
    (tiny_corpus / "MANIFEST.csv").write_text(content)
    with pytest.raises(InputError, match="MANIFEST.csv"):
        find_clips(tiny_corpus)


def test_no_corpus(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="--input"):
            find_clips(folder)


def test_errors_name_the_clip(tmp_path: Path, tiny_corpus: Path, rest_joints: np.ndarray) -> None:
    (tiny_corpus / "01" / "01.asf").unlink()
    with pytest.raises(InputError, match="01_01.amc: .*01.asf"):
        convert_clip(find_clips(tiny_corpus)[0], rest_joints)
    path = tmp_path / "odd.bvh"
    path.write_text("HIERARCHY\nROOT odd\n{\nOFFSET 0 0 0\nCHANNELS 1 Xrotation\n}\nMOTION\nFrames: 1\nFrame Time: 1\n0\n")
    with pytest.raises(InputError, match="odd.bvh: unknown skeleton"):
        convert_clip(Clip(path, "s", "odd", "", "train", None), rest_joints)


def test_prepared_sets(tiny_corpus: Path, tmp_path: Path, rest_joints: np.ndarray) -> None:
    """Subjects stay apart, an unusable file is skipped, and the sets do not depend on the number of processes."""
    (tiny_corpus / "02" / "02_09.amc").write_text("garbage")
    tasks = capture_tasks(tiny_corpus, rest_joints) * 2
    results = list(run_tasks(tasks, workers=1))
    assert sum(isinstance(result, InputError) for result in results) == 2
    pieces = [result for result in results if isinstance(result, Piece)]
    assert [(s.split, s.subjects, s.clips, s.frames) for s in write_pieces(tmp_path / "a", pieces)] == [
        ("train", 1, 4, 8), ("valid", 1, 2, 4), ("test", 1, 2, 4),
    ]  # fmt: skip
    seen = [set(read_split(tmp_path / "a", split).subject.tolist()) for split in ("train", "valid", "test")]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 3
    again = [result for result in run_tasks(tasks, workers=2) if isinstance(result, Piece)]
    for ours, theirs in zip(pieces, again, strict=True):
        np.testing.assert_array_equal(ours.pose_body, theirs.pose_body)


def test_amass_copies_hold_the_whole_motion(tiny_corpus: Path, tmp_path: Path, rest_joints: np.ndarray) -> None:
    task = capture_tasks(tiny_corpus, rest_joints, amass_folder=tmp_path / "amass")[0]
    assert isinstance(task, CaptureTask)
    piece = task()
    with np.load(tmp_path / "amass" / "train" / "01" / "01_01_stageii.npz") as arrays:
        assert arrays["plausible"].sum() == len(piece)
        np.testing.assert_array_equal(arrays["pose_body"][arrays["plausible"]], piece.pose_body)
        assert arrays["mocap_frame_rate"] == 30


def test_corpus_subjects_are_disjoint(mocap: Path) -> None:
    splits = defaultdict(set)
    for clip in find_clips(mocap, include_noncommercial=True):
        splits[clip.split].add(clip.subject)
        assert not clip.subject.startswith("unknown") and "deepmimic" not in str(clip.path) and "hri_" not in str(clip.path)
        assert ("noncommercial" in str(clip.path)) == (clip.split == "bandai")
    assert splits["test"] == TEST_SUBJECTS and splits["valid"] == VALID_SUBJECTS
    assert splits["bandai"] == {"bandai"} and "snu" in splits["train"]
    assert not splits["train"] & (splits["test"] | splits["valid"])
