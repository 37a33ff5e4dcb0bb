"""Fragments of AMASS sequences, of equal length: the test set of motion tasks."""

from collections.abc import Iterator
from pathlib import Path

from dposer.data.amass import AmassSequence, read_amass
from dposer.errors import InputError
from dposer.files import PathLike, finite, load_npz, save_npz


def split_fragments(input_dir: PathLike, output_dir: PathLike, seq_len: int = 60) -> Iterator[tuple[Path, int | InputError]]:
    """Cut every ``*.npz`` below ``input_dir`` into pieces of ``seq_len`` frames, from frame 0 on, dropping the rest.

    Writes ``<output_dir>/<subject folder>/<file stem>_batch%03d.npz`` with ``pose_body`` (seq_len, 63) and ``root_orient``
    (seq_len, 3). Frame rates are kept.

    Yields:
        each file with the number of fragments written, or with the reason why it was skipped.

    Raises:
        InputError: no such folder, no npz file, or a ``seq_len`` below 1.
    """
    if seq_len < 1:
        raise InputError(f"--seq-len: found {seq_len}, expected at least 1 frame")
    paths = sorted(Path(input_dir).rglob("*.npz"))
    if not paths:
        raise InputError(f"{input_dir}: found no .npz files, expected AMASS sequences; check --input-dir")
    for path in paths:
        try:
            yield path, _split(path, Path(output_dir) / path.parent.name, seq_len)
        except InputError as error:
            yield path, error


def _split(path: Path, folder: Path, seq_len: int) -> int:
    sequence = read_amass(path)
    count = len(sequence) // seq_len
    for i in range(count):
        frames = slice(i * seq_len, (i + 1) * seq_len)
        pieces = {"pose_body": sequence.pose_body[frames], "root_orient": sequence.root_orient[frames]}
        save_npz(folder / f"{path.stem}_batch{i:03d}.npz", pieces)
    return count


def read_motion(path: PathLike) -> AmassSequence:
    """A fragment or an AMASS sequence; of ``pose_body`` with 66 columns, as HPS fragments have it, the first three are the root.

    Raises:
        InputError: neither.
    """
    arrays = load_npz(path, "a motion (pose_body, or an AMASS sequence)", optional=("pose_body",))
    body = arrays.get("pose_body")
    if body is not None and body.ndim == 2 and body.shape[1] == 66:
        return AmassSequence.of_poses(finite(body, f"{path}: pose_body")[:, 3:])
    return read_amass(path)
