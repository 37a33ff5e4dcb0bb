"""The tables that the published code of DiffHPE writes, of a report: the same files and columns, all in millimetres.

=======================  =================================================================================================
protocol_1_err.csv       MPJPE of the mean pose, symmetry, consistency, then of the best and worst hypothesis and of J-Agg
seg_symmetry.csv         difference of each pair of bones
seg_consistency.csv      deviation of each bone
cw_err.csv, jw_err.csv   mean |error| along each axis, MPJPE of each joint
=======================  =================================================================================================

A line for each action, then their average. Bones are those of the skeleton; the published ones stand beside them (legacy), see
:mod:`dposer.lifting.bones`.
"""

from collections.abc import Mapping, Sequence

from dposer.lifting.report import AVERAGE, POOLED, Report, Row

_ACTIONS = (
    "walking", "eating", "smoking", "discussion", "directions", "greeting", "phoning", "posing", "purchases", "sitting", "sittingdown",
    "photo", "waiting", "walkdog", "walktogether",
)  # fmt: skip
"""In their order there."""
_AGGREGATES = {"best": "P-Best", "worst": "P-Worst", "reproj": "J-Agg (solved root)"}
_SETTING = "P-Agg"

Lines = list[dict[str, str | float]]


def diffhpe_tables(report: Report) -> dict[str, Lines]:
    """File name → its lines, all with the same columns, after the last step.

    The aggregates are those that the report has; the published ones are over windows (``scope="window"``, ``worst=True``).
    """
    rows = {(row.group, row.setting): row for row in report.rows if row.step == report.steps - 1 and not row.subject}
    groups = sorted({group for group, _ in rows if group not in (AVERAGE, POOLED)}, key=_place)
    found = {group: rows[group, _SETTING] for group in (*groups, AVERAGE)}
    protocol: Lines = []
    for group, row in found.items():
        line = {"mpjpe": row.figures["MPJPE"], **{name: row.figures[figure] for name, figure in _coherence(row).items()}}
        others = {name: rows[group, setting].figures["MPJPE"] for name, setting in _AGGREGATES.items() if (group, setting) in rows}
        protocol.append({"act": group, **line, **others})
    return {
        "protocol_1_err.csv": protocol,
        "seg_symmetry.csv": _lines(report.pairs, {group: row.pairs for group, row in found.items()}),
        "seg_consistency.csv": _lines(report.bones, {group: row.bones for group, row in found.items()}),
        "cw_err.csv": _lines("xyz", {group: row.coordinates for group, row in found.items()}),
        "jw_err.csv": _lines(report.joints, {group: row.joints for group, row in found.items()}),
    }


def _coherence(row: Row) -> dict[str, str]:
    """Column → figure."""
    columns = {"sag sym": "symmetry", "seg std": "consistency", "sag sym legacy": "legacy symmetry", "seg std legacy": "legacy consistency"}
    return {column: figure for column, figure in columns.items() if figure in row.figures}


def _place(group: str) -> tuple[int, str]:
    return (_ACTIONS.index(group.lower()), "") if group.lower() in _ACTIONS else (len(_ACTIONS), group)


def _lines(columns: Sequence[str], values: Mapping[str, Sequence[float]]) -> Lines:
    return [{"act": group, **dict(zip(columns, row, strict=False))} for group, row in values.items()]
