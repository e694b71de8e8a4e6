"""Find searched keys that change nothing. Pure rules: what a configuration does is asked for.

A key is suspected if all points that differ in it alone do the same. That alone proves little: dropout changes nothing
in a net without hidden layers. So a suspect is tried in the place of every other point, too, before it is named.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from sweeps.search.space import Space, quote

__all__ = ["dead_places", "suspects", "variants"]

Point = Mapping[str, Any]


def suspects(space: Space, points: Sequence[Point], behaviours: Sequence[Hashable | None]) -> list[str]:
    """Return the places of the space in which points that differ in nothing else behave alike.

    Args:
        space: What is searched.
        points: Some of its points, such as the corners.
        behaviours: What each of them does; None where that is not known.
    """
    alike: dict[str, bool] = {}
    for (one, its), (other, others) in combinations(list(zip(points, behaviours, strict=True)), 2):
        place = _only_difference(space, one, other)
        if place is not None and its is not None and others is not None:
            alike[place] = alike.get(place, True) and its == others
    return [parameter.place for parameter in space if alike.pop(parameter.place, False)]


def variants(space: Space, points: Sequence[Point], place: str) -> list[tuple[Point, Point]]:
    """Return all of the points in which `place` is active, each with one in which it has another value.

    The other value is the farthest: that at the end of the range, or the last choice. Where the change is not valid
    or brings other changes with it, the point is left out.
    """
    ends = [end for parameter in space if parameter.place == place for end in reversed(parameter.ends)]
    found: list[tuple[Point, Point]] = []
    for point in points:
        now = space.places(point).get(place)
        others = (space.moved(point, {place: end}) for end in ends if quote(end) != quote(now))
        found += [(point, other) for other in others if other and _only_difference(space, point, other)][:1]
    return found


def dead_places(
    space: Space, points: Sequence[Point], places: Sequence[str], behaviour: Callable[[Point], Hashable | None]
) -> list[str]:
    """Return those of the places that change nothing in any of the points, as far as all could be tried."""
    dead = []
    for place in places:
        pairs = [(behaviour(one), behaviour(other)) for one, other in variants(space, points, place)]
        if pairs and all(one is not None and one == other for one, other in pairs):
            dead.append(place)
    return dead


def _only_difference(space: Space, one: Point, other: Point) -> str | None:
    """Return the place in which two points differ, if there is one alone; what only one of them has is not compared."""
    first, second = space.places(one), space.places(other)
    differing = list(_differing(first, second))
    return differing[0] if len(differing) == 1 else None


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    return (place for place in first if place in second and quote(first[place]) != quote(second[place]))
