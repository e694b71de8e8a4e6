"""The colour and the shape of each role: told apart by colour-blind eyes, and by shape where there is no colour."""

from dataclasses import dataclass

from sweeps.report.chart import Role

__all__ = ["LOOKS", "WARMER", "WARMER_ON_BLACK", "Look"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How what has a role is drawn.

    Attributes:
        colour: Readable on white and on black.
        shape: plotly's name of it; `marker` is matplotlib's.
        size: Diameter in pixels.
    """

    colour: str
    shape: str
    marker: str
    size: float = 8.0


LOOKS: dict[Role, Look] = {
    "best": Look(colour="#e0662f", shape="star", marker="*", size=14.0),
    "complete": Look(colour="#4a86b8", shape="circle", marker="o", size=7.0),
    "infeasible": Look(colour="#b58900", shape="triangle-up", marker="^"),
    "pruned": Look(colour="#8f97a1", shape="x-thin-open", marker="x", size=6.0),
    "failed": Look(colour="#c2458b", shape="cross-thin-open", marker="+", size=9.0),
    "interrupted": Look(colour="#8f97a1", shape="square-open", marker="s"),
    "running": Look(colour="#2a9d8f", shape="circle-open", marker="o"),
}

WARMER = ("#dfe5ea", "#a9c3d9", "#4a86b8", "#8a5f7d", "#d9531e")
"""From worse to better, on white: ever darker, and from blue to orange, which colour-blind eyes tell apart."""
WARMER_ON_BLACK = ("#29323a", "#35566f", "#4a86b8", "#b58a86", "#ffa46b")
"""The same on black: ever brighter."""
