"""Draw a chart as a PNG, by matplotlib without its global state.

docs/decisions.md has the reason why plotly does not draw them.
"""

import io
import math
from typing import Any

from sweeps.core.text import number
from sweeps.report.chart import (
    LOOKS,
    MISSING,
    WARMER,
    Axis,
    Bars,
    Chart,
    Heat,
    Line,
    Panel,
    Parallel,
    Points,
    parallel_axes,
)

__all__ = ["load", "png"]

_DPI = 110
_INK, _FAINT_INK, _GRID = "#1f2933", "#66717d", "#e4e7eb"
_MOST_LINES = 300  # of parallel coordinates; the best of them


def load() -> None:
    """Import what drawing needs, which takes half a second, so that the first chart does not wait for it."""
    import matplotlib.backends.backend_agg
    import matplotlib.collections
    import matplotlib.colors
    import matplotlib.figure
    import matplotlib.ticker  # noqa: F401


def png(chart: Chart) -> bytes:
    """Return a chart as the content of a PNG file."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(chart.panels)
    num_columns = min(count, 3)
    num_lines = math.ceil(count / num_columns)
    width = 8.4 if count == 1 else 4.4 * num_columns
    each = max(_height(panel) for panel in chart.panels) * (1.0 if count == 1 else 0.85)
    height = num_lines * each + 0.75
    settings: Any = {
        "text.parse_math": False,  # names are plain texts, whatever dollars they have
        "font.size": 9,
        "text.color": _INK,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
        FigureCanvasAgg(figure)
        figure.text(0.25 / width, 1 - 0.18 / height, chart.title, fontsize=12, fontweight="bold", va="top")
        figure.text(0.25 / width, 1 - 0.44 / height, chart.sentence, fontsize=9, color=_FAINT_INK, va="top")
        for index, panel in enumerate(chart.panels):
            line, column = divmod(index, num_columns)
            left = _left(panel)
            right = 0.75 if any(isinstance(mark, Heat | Parallel) for mark in panel.marks) else 0.2
            cell = width / num_columns
            top = 0.75 + line * each
            has_head = bool(panel.title) or count == 1
            box = (
                (column * cell + left) / width,
                1 - (top + each - 0.55) / height,
                max(cell - left - right, 0.5) / width,
                (each - 0.55 - (0.25 if has_head else 0.1)) / height,
            )
            _draw(figure, panel, box, has_legend=count == 1)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_DPI, pil_kwargs={"compress_level": 1})
    return buffer.getvalue()


def _draw(figure: Any, panel: Panel, box: tuple[float, float, float, float], *, has_legend: bool) -> None:
    axes = figure.add_axes(box)
    axes.set_axis_off()  # matplotlib's axes take as long as everything else; `_draw_axis` is three times as fast
    if panel.title:
        axes.text(0, 1.03, panel.title, transform=axes.transAxes)
    if isinstance(panel.marks[0], Parallel):
        _draw_parallel(axes, panel.marks[0])
        return
    for axis, which in ((panel.x, "x"), (panel.y, "y")):
        if axis.is_log:
            getattr(axes, f"set_{which}scale")("log")
    names: set[str] = set()
    for order, mark in enumerate(panel.marks):
        if isinstance(mark, Points):
            _draw_points(axes, mark, order, names)
        elif isinstance(mark, Line):
            _draw_line(axes, mark, order, names)
        elif isinstance(mark, Bars):
            _draw_bars(axes, mark, names)
        elif isinstance(mark, Heat):
            _draw_heat(axes, mark)
    is_share = any(isinstance(mark, Bars) and mark.texts for mark in panel.marks)
    has_grid = not any(isinstance(mark, Heat) for mark in panel.marks)
    _draw_axis(axes, panel.x, is_x=True, has_grid=has_grid, is_share=is_share)
    _draw_axis(axes, panel.y, is_x=False, has_grid=has_grid and not is_share)
    if has_legend and len(names) > 1:
        axes.legend(
            loc="lower right", bbox_to_anchor=(1, 1), ncol=len(names), frameon=False, fontsize=8, borderaxespad=0
        )


def _draw_axis(axes: Any, axis: Axis, *, is_x: bool, has_grid: bool, is_share: bool = False) -> None:
    """Draw the tick labels and the label of an axis, and its grid lines."""
    from matplotlib.ticker import MaxNLocator

    which = "x" if is_x else "y"
    low, high = sorted(getattr(axes, f"get_{which}lim")())
    if axis.categories:
        low, high = -0.5, len(axis.categories) - 0.5
        ticks = [(float(place), name) for place, name in enumerate(axis.categories)]
    elif axis.is_log:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        places = [10.0**power for power in powers if low <= 10.0**power <= high]
        places = places[:: 1 + len(places) // 7] if len(places) > 1 else [low, high]
        ticks = [(place, number(float(f"{place:.3g}"))) for place in places]
    else:
        locator = MaxNLocator(nbins=6 if is_x else 7, steps=[1, 2, 5, 10], integer=axis.is_whole)
        places = [float(place) for place in locator.tick_values(low, high) if low <= place <= high]
        ticks = [(place, f"{place:.0%}" if is_share else number(float(f"{place:.6g}"))) for place in places]
    getattr(axes, f"set_{which}lim")(*((high, low) if axis.is_descending else (low, high)))
    transform = axes.get_xaxis_transform() if is_x else axes.get_yaxis_transform()
    is_long = is_x and sum(len(text) for _, text in ticks) > 44
    for place, text in ticks:
        axes.annotate(
            text,
            (place, 0) if is_x else (0, place),
            xycoords=transform,
            xytext=(0, -5) if is_x else (-5, 0),
            textcoords="offset points",
            ha="right" if is_long or not is_x else "center",
            va="top" if is_x else "center",
            rotation=25 if is_long else 0,
            fontsize=8,
            color=_FAINT_INK,
        )
    if has_grid:
        draw = axes.vlines if is_x else axes.hlines
        draw([place for place, _ in ticks], 0, 1, transform=transform, color=_GRID, linewidth=0.7, zorder=0)
    axes.annotate(
        axis.label,
        (0.5, 0) if is_x else (0, 0.5),
        xycoords="axes fraction",
        xytext=(0, -38 if is_long else -20)
        if is_x
        else (-12 - 5 * max((len(text) for _, text in ticks), default=0), 0),
        textcoords="offset points",
        ha="center" if is_x else "right",
        va="top" if is_x else "center",
        rotation=0 if is_x else 90,
        color=_FAINT_INK,
    )


def _draw_points(axes: Any, mark: Points, order: int, names: set[str]) -> None:
    look = LOOKS[mark.role]
    is_open = look.shape.endswith("-open")
    if mark.errors:
        axes.errorbar(
            mark.x, mark.y, yerr=mark.errors, fmt="none", ecolor=look.colour, elinewidth=1, capsize=2, zorder=2 + order
        )
    axes.plot(
        mark.x,
        mark.y,
        linestyle="none",
        marker=look.marker,
        markersize=look.size * 0.72,
        markerfacecolor="none" if is_open else look.colour,
        markeredgecolor=look.colour if is_open else "white",
        markeredgewidth=1.2 if is_open else 0.5,
        zorder=2 + order,
        label=_new(mark.role, names),
    )


def _draw_line(axes: Any, mark: Line, order: int, names: set[str]) -> None:
    axes.plot(
        mark.x,
        mark.y,
        color=LOOKS[mark.role].colour,
        linewidth=0.7 if mark.is_faint else 1.6 if mark.role == "best" else 1.1,
        alpha=0.28 if mark.is_faint else 1.0 if mark.role == "best" else 0.75,
        drawstyle="steps-post" if mark.is_step else "default",
        zorder=2 + order,
        label=_new(mark.name, names),
    )


def _draw_bars(axes: Any, mark: Bars, names: set[str]) -> None:
    lanes: dict[float, list[tuple[float, float]]] = {}
    for place, begin, end in zip(mark.y, mark.begin, mark.end, strict=True):
        lanes.setdefault(place, []).append((begin, end - begin))
    label = _new("" if mark.texts else mark.role, names)
    for place, spans in lanes.items():  # a collection each: single bars take a millisecond each
        axes.broken_barh(
            spans,
            (place - 0.33, 0.66),
            facecolor=LOOKS[mark.role].colour,
            edgecolor="white",
            linewidth=0.4,
            label=label,
        )
        label = "_"
    for place, end, text in zip(mark.y, mark.end, mark.texts, strict=False):
        axes.annotate(text, (end, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    if mark.texts:
        axes.set_xlim(0, max(axes.get_xlim()[1], 1.15 * max(mark.end)))


def _draw_heat(axes: Any, mark: Heat) -> None:
    axes.pcolormesh(
        list(mark.x),
        list(mark.y),
        [list(line) for line in mark.z],
        cmap=_colours(is_reversed=mark.is_less_better),
        vmin=mark.low,
        vmax=mark.high,
        shading="nearest",
        zorder=0,
    )
    bar = axes.inset_axes((1.04, 0.0, 0.025, 1.0))
    bar.set_axis_off()
    image = [[mark.low + (mark.high - mark.low) * place / 63] for place in range(64)]
    colours = _colours(is_reversed=mark.is_less_better)
    bar.imshow(image, cmap=colours, aspect="auto", origin="lower", extent=(0, 1, mark.low, mark.high))
    for part in (0.0, 0.5, 1.0):
        value = mark.low + (mark.high - mark.low) * part
        bar.annotate(
            number(float(f"{value:.3g}")),
            (1, part),
            xycoords="axes fraction",
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
            color=_FAINT_INK,
        )


def _draw_parallel(axes: Any, mark: Parallel) -> None:
    from matplotlib.collections import LineCollection

    found = parallel_axes(mark)
    heights = [column.heights for column in found]
    lines = [[(place, of[index]) for place, of in enumerate(heights)] for index in range(len(heights[-1]))]
    lines, goal = lines[-_MOST_LINES:], heights[-1][-_MOST_LINES:]
    collection = LineCollection(lines, cmap=_colours(is_reversed=mark.is_less_better), linewidths=1.0, alpha=0.8)
    collection.set_array(goal)
    axes.add_collection(collection)
    axes.set_xlim(0, len(heights) - 1)
    axes.set_ylim(-0.14, 1.04)
    for place, column in enumerate(found):
        axes.annotate(
            column.label,
            (place, 1.06),
            annotation_clip=False,
            fontsize=8,
            ha="left" if place == 0 else "right" if place == len(found) - 1 else "center",
        )
    axes.vlines(range(len(heights)), MISSING, 1, color=_FAINT_INK, linewidth=0.8)
    for place, column in enumerate(found):
        for height, text in column.ticks:
            axes.annotate(
                text,
                (place, height),
                xytext=(-4 if place else 4, 0),
                textcoords="offset points",
                ha="right" if place else "left",
                va="center",
                fontsize=7,
                color=_INK,
                bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
            )


def _colours(*, is_reversed: bool) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("warmer", WARMER[::-1] if is_reversed else WARMER)


def _new(name: str, names: set[str]) -> str | None:
    """Return a name for the legend once; matplotlib leaves out names that begin with `_`."""
    if not name or name in names:
        return "_"
    names.add(name)
    return name


def _left(panel: Panel) -> float:
    """Return the width in inches that the labels left of a panel need."""
    if isinstance(panel.marks[0], Parallel):
        return 0.5
    longest = max(map(len, panel.y.categories), default=5)
    return 0.5 + 0.065 * max(longest, 3)


def _height(panel: Panel) -> float:
    """Return the height of a panel in inches."""
    if any(isinstance(mark, Bars) for mark in panel.marks):
        return 1.2 + 0.3 * max(len(panel.y.categories), 2)
    return 3.9
