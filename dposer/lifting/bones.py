"""Whose lengths an evaluation looks at: the bones of a skeleton, and those that the tables of DiffHPE were made with.

The published code of DiffHPE lists bones before the shoulders get their parent, so that there they hang from the spine, not from the neck
(which it calls thorax). Both lists are measured at once: bones are those of the skeleton, then what only the other list has.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dposer.body.skeleton import Layout, mirror_name


@dataclass(frozen=True)
class Bones:
    """Bones and pairs of them by number, in the order of ``edges`` and ``pairs``."""

    edges: tuple[tuple[int, int], ...]
    """(parent, child) joints."""
    names: tuple[str, ...]
    """parent->child."""
    pairs: tuple[tuple[int, int], ...]
    """(left, right) bones."""
    pair_names: tuple[str, ...]
    """As the bones', without a side."""
    own: tuple[int, ...]
    """Bones of the skeleton."""
    legacy: tuple[int, ...]
    """Bones of the published tables."""

    @classmethod
    def of(cls, layout: Layout) -> "Bones":
        """Of a skeleton with a spine, a neck and shoulders."""
        spine, neck = (layout.joints.index(name) for name in ("spine", "neck"))
        moved = {edge: (spine, edge[1]) for edge in layout.edges if edge[0] == neck and layout.joints[edge[1]].endswith("_shoulder")}
        edges = (*layout.edges, *moved.values())
        names = tuple(f"{layout.joints[parent]}->{layout.joints[child]}" for parent, child in edges)
        twins = ["->".join(map(mirror_name, name.split("->"))) for name in names]
        lefts = [bone for bone, name in enumerate(names) if "left_" in name]
        return cls(
            edges=edges,
            names=names,
            pairs=tuple((bone, names.index(twins[bone])) for bone in lefts),
            pair_names=tuple(names[bone].replace("left_", "") for bone in lefts),
            own=tuple(range(len(layout.edges))),
            legacy=tuple(edges.index(moved.get(edge, edge)) for edge in layout.edges),
        )

    def pairs_of(self, bones: Sequence[int]) -> list[int]:
        """Numbers of the pairs among some bones, in their order."""
        number = {left: pair for pair, (left, _) in enumerate(self.pairs)}
        return [number[bone] for bone in bones if bone in number]
