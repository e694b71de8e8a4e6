"""The Pareto front of several objectives: the points that no other point dominates."""

from collections.abc import Sequence

__all__ = ["on_front"]


def on_front(points: Sequence[Sequence[float]], directions: Sequence[str]) -> list[bool]:
    """Tell for each point whether it is on the front; equal points are on it together.

    Args:
        points: The objectives of each.
        directions: `maximize` or `minimize`, for each objective.
    """
    signs = [-1.0 if direction == "maximize" else 1.0 for direction in directions]
    losses = [tuple(sign * value for sign, value in zip(signs, point, strict=True)) for point in points]
    front: list[tuple[float, ...]] = []
    for loss in sorted(set(losses)):  # what comes later can dominate nothing that came before
        if not any(all(a <= b for a, b in zip(better, loss, strict=True)) for better in front):
            front.append(loss)
    kept = set(front)
    return [loss in kept for loss in losses]
