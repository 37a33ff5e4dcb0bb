"""What markers sit where on a body: ``p = v + d n`` on a vertex v of the skin with normal n, or ``p = x_j + G_j o`` fixed to a joint j.

Two forms of ``.json`` are read. Ours::

    {"model": "smplx", "markers": {"LFHD": {"vertex": 707, "distance": 0.0095}, "LWRA": {"joint": "left_wrist", "offset": [0, 0.02, 0]}}}

where a bare number stands for a vertex at the usual distance; and that of MoSh++ and SOMA::

    {"markersets": [{"type": "body", "distance_from_skin": 0.0095, "indices": {"ARIEL": 9011}}], "surface_model_type": "smplx"}

Source: MoSh (Loper et al., SIGGRAPH Asia 2014) for markers at a distance off the skin.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from dposer.body.model import SURFACES
from dposer.body.points import Place
from dposer.data.points import PointSequence, columns_by_name, plain_name
from dposer.errors import InputError
from dposer.files import PathLike, existing_file, save_json

DISTANCE = 0.0095
"""Metres from the skin to the centre of a usual marker."""

_FEWEST = 4
"""Fewer markers than this do not fix where a body is and how it is turned, let alone its pose."""
_FARTHEST = 1.0
"""Metres; a longer distance or offset is in millimetres."""


@dataclass(frozen=True)
class Marker:
    """One marker, on a vertex or on a joint."""

    name: str
    vertex: int | None
    distance: float
    """Metres off the skin along its normal; 0 for markers on a joint."""
    joint: str | None
    offset: tuple[float, float, float] | None
    """Metres in the rest frame of the joint, along the axes of the body model (+x left, +y up, +z ahead)."""


@dataclass(frozen=True)
class MarkerLayout:
    """The markers on a body, in order."""

    markers: tuple[Marker, ...]
    model: str | None
    """``smplx``, ``smplh`` or ``smpl``: what the vertex numbers count; None if the file does not tell."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(marker.name for marker in self.markers)


def read_markers(path: PathLike) -> MarkerLayout:
    """Read a marker layout in either of the two forms. Whether the body has such vertices and joints is for the body to say.

    Raises:
        InputError: not JSON, unknown keys, wrong types, two markers of one name, lengths that are no metres.
    """
    path = existing_file(path, "a marker layout (.json)")
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a readable marker layout ({str(error)[:120]}), expected JSON; correct it there") from error
    try:
        layout = _read_mosh(content) if isinstance(content, dict) and "markersets" in content else _read_own(content)
        _check_names(layout.names)
    except _Wrong as error:
        raise InputError(f"{path}: {error}") from None
    return layout


def write_markers(path: PathLike, layout: MarkerLayout) -> None:
    """Write a marker layout in our form."""
    markers: dict[str, dict[str, Any]] = {
        marker.name: {"vertex": marker.vertex, "distance": marker.distance}
        if marker.joint is None
        else {"joint": marker.joint, "offset": list(marker.offset or (0.0, 0.0, 0.0))}
        for marker in layout.markers
    }
    save_json(path, {**({} if layout.model is None else {"model": layout.model}), "markers": markers})


def arrange_markers(sequence: PointSequence, layout: MarkerLayout) -> tuple[PointSequence, MarkerLayout]:
    """The markers that both the file and the layout have, in the order of the file.

    Names match whatever their case and the subject before a colon. A file without names must have as many points as the layout has
    markers, and in its order.

    Raises:
        InputError: fewer than 4 in common, two points of one name, or another number of points in a file without names.
    """
    if sequence.names is None:
        if sequence.points.shape[1] != len(layout.markers):
            raise InputError(
                f"{sequence.source}: {sequence.points.shape[1]} points without names (names stored as Python objects are not read), "
                f"expected the {len(layout.markers)} of the marker layout in its order; store the names as strings"
            )
        return sequence, layout
    columns = columns_by_name(sequence, layout.names)
    pairs = sorted((column, marker) for marker, column in enumerate(columns) if column is not None)
    if len(pairs) < _FEWEST:
        raise InputError(
            f"{sequence.source}: {len(pairs)} markers in common with the layout, expected at least {_FEWEST}; the file has "
            f"{_few(sequence.names)}, the layout {_few(layout.names)}; rename one of them"
        )
    arranged = MarkerLayout(tuple(layout.markers[marker] for _, marker in pairs), layout.model)
    return sequence.select([column for column, _ in pairs]), arranged


def marker_places(layout: MarkerLayout, vertices: int) -> list[Place]:
    """The markers as places on a body of so many vertices.

    Raises:
        InputError: the layout is of a model with another number of vertices.
    """
    if layout.model is not None and SURFACES[layout.model] != vertices and any(marker.joint is None for marker in layout.markers):
        raise InputError(
            f"numbers the {SURFACES[layout.model]} vertices of {layout.model}, but the body has {vertices}; give the "
            "file of that model with --bodymodel-path, or leave out 'model' if the numbers are of this body"
        )
    return [_place(marker) for marker in layout.markers]


def _place(marker: Marker) -> Place:
    if marker.joint is not None:
        return Place(marker.name, {marker.joint: 1.0}, offset=marker.offset or (0.0, 0.0, 0.0))
    assert marker.vertex is not None
    return Place(marker.name, {marker.vertex: 1.0}, distance=marker.distance)


def _few(names: Iterable[str]) -> str:
    names = tuple(names)
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


# --- parsing -------------------------------------------------------------------------------------------------------------


class _Wrong(Exception):
    """What is wrong with the content; the reader adds the name of the file."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"'{key}' occurs twice in one object")
        content[key] = value
    return content


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def _read_own(content: Any) -> MarkerLayout:
    entries = _fields(content, "the file", ("markers",), ("model",))
    markers = _mapping(entries["markers"], "'markers'")
    return MarkerLayout(tuple(_marker(name, value) for name, value in markers.items()), _model(entries.get("model"), "model"))


def _read_mosh(content: dict[str, Any]) -> MarkerLayout:
    """Keys beside those of the module's docstring are the business of MoSh++ (weights, types of markers)."""
    sets = content["markersets"]
    if not isinstance(sets, list):
        raise _Wrong(f"'markersets' is {_shown(sets)}, expected a list of sets with 'indices'")
    markers = []
    for number, group in enumerate(sets):
        where = f"markersets[{number}]"
        entries = _mapping(group, where)
        if "indices" not in entries:
            raise _Wrong(f"{where} lacks 'indices', expected {{name: vertex}}")
        distance = _length(entries.get("distance_from_skin", DISTANCE), f"{where}: 'distance_from_skin'")
        indices = _mapping(entries["indices"], f"{where}: 'indices'")
        markers += [Marker(name, _vertex(vertex, name), distance, None, None) for name, vertex in indices.items()]
    return MarkerLayout(tuple(markers), _model(content.get("surface_model_type"), "surface_model_type"))


def _marker(name: str, value: Any) -> Marker:
    if not isinstance(value, dict):
        return Marker(name, _vertex(value, name), DISTANCE, None, None)
    if "joint" in value:
        entries = _fields(value, f"marker '{name}'", ("joint",), ("offset",))
        if not isinstance(entries["joint"], str):
            raise _Wrong(f"marker '{name}': 'joint' is {_shown(entries['joint'])}, expected a name such as left_wrist")
        offset = entries.get("offset", [0.0, 0.0, 0.0])
        if not isinstance(offset, list) or len(offset) != 3:
            raise _Wrong(f"marker '{name}': 'offset' is {_shown(offset)}, expected three numbers in metres")
        x, y, z = (_length(number, f"marker '{name}': 'offset'") for number in offset)
        return Marker(name, None, 0.0, entries["joint"], (x, y, z))
    entries = _fields(value, f"marker '{name}'", ("vertex",), ("distance",))
    return Marker(
        name, _vertex(entries["vertex"], name), _length(entries.get("distance", DISTANCE), f"marker '{name}': 'distance'"), None, None
    )


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Wrong(f"{where} is {_shown(value)}, expected an object in braces")
    return value


def _fields(value: Any, where: str, required: tuple[str, ...], optional: tuple[str, ...]) -> dict[str, Any]:
    entries = _mapping(value, where)
    known = ", ".join((*required, *optional))
    unknown = [key for key in entries if key not in (*required, *optional)]
    if unknown:
        raise _Wrong(f"{where} has an unknown key '{unknown[0]}', expected {known}; remove or rename it")
    lacking = [key for key in required if key not in entries]
    if lacking:
        raise _Wrong(f"{where} lacks '{lacking[0]}', expected {known}; add it")
    return entries


def _vertex(value: Any, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _Wrong(f"marker '{name}': vertex is {_shown(value)}, expected a whole number from 0")
    return value


def _length(value: Any, where: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _Wrong(f"{where} holds {_shown(value)}, expected metres")
    if not abs(value) <= _FARTHEST:
        raise _Wrong(f"{where} holds {_shown(value)}, expected metres, at most {_FARTHEST:g}; divide millimetres by 1000")
    return float(value)


def _model(value: Any, key: str) -> str | None:
    if value is None:
        return None
    if value not in tuple(SURFACES):  # which may be unhashable
        raise _Wrong(f"'{key}' is {_shown(value)}, expected one of {', '.join(SURFACES)}; vertices are numbered differently in each")
    return str(value)


def _check_names(names: tuple[str, ...]) -> None:
    if not names:
        raise _Wrong("names no marker, expected some; add them")
    seen: dict[str, str] = {}
    for name in names:
        plain = plain_name(name)
        if not plain:
            raise _Wrong(f"a marker is called '{name}', expected a name; give it one")
        if plain in seen:
            raise _Wrong(f"two markers are called '{name}' and '{seen[plain]}', which are taken as the same; rename one")
        seen[plain] = name


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
