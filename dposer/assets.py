"""Where the files that ship with the library lie: in the repository's root, or inside an installed wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def asset(*parts: str) -> Path:
    """Path of a shipped file, e.g. ``asset("body_models", "smplx", "SMPLX_OPEN.npz")`` (not checked for existence)."""
    for root in (_PACKAGE.parent, _PACKAGE / "_shipped"):
        path = root.joinpath(*parts)
        if path.exists():
            return path
    return _PACKAGE.parent.joinpath(*parts)
