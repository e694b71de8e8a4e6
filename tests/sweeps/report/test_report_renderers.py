"""Charts drawn: figures that plotly accepts, images that can be decoded, a page in which nothing of the store runs."""

import io
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from PIL import Image
from report_studies import EVIL, IMPORTANCES, PlainStudy, evil, page_of, trial, varied, view_of

from sweeps.report.build import make_charts
from sweeps.report.chart import Chart, Parallel
from sweeps.report.outcome_charts import history_chart
from sweeps.report.plotly_renderer import parallel_figure, plotly_figure
from sweeps.report.png_renderer import png
from sweeps.results.summary import NextCommand


def all_charts() -> list[Chart]:
    both = {"val/acc": "maximize", "num_params": "minimize"}
    rows = [
        trial(n, 0.1 * n, objectives=both, values={"val/acc": 0.1 * n, "num_params": 10.0**n}, params={"a": n})
        for n in range(1, 6)
    ]
    several = make_charts(view_of(PlainStudy(rows, objectives=both, best=[1, 2, 3, 4, 5])))
    return [*make_charts(view_of(varied(40), IMPORTANCES)), *several, *make_charts(evil())]


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the content of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] == "script":
            self.scripts[-1] += data
        self.words.append(data)


def test_no_parameter_is_called_important_where_none_was_weighed() -> None:
    def said(importances: Any) -> str:
        charts = make_charts(view_of(varied(12), importances))
        return next(chart.sentence for chart in charts if chart.name == "slices")

    assert "important" in said(IMPORTANCES) and "important" not in said(None)


@pytest.mark.parametrize("chart", all_charts(), ids=lambda chart: chart.name)
def test_plotly_accepts_every_figure(chart: Chart) -> None:
    import plotly.graph_objects as go

    for panel in chart.panels:
        if isinstance(panel.marks[0], Parallel):
            continue
        figure = plotly_figure(panel, is_one_of_several=len(chart.panels) > 1)
        json.dumps(figure, allow_nan=False)
        assert len(go.Figure(figure).data) == len(panel.marks)


def test_plotly_would_refuse_a_figure_with_a_wrong_key() -> None:
    import plotly.graph_objects as go

    with pytest.raises(ValueError, match="nonsense"):
        go.Figure({"data": [{"type": "scatter", "nonsense": 1}]})


@pytest.mark.parametrize("chart", all_charts(), ids=lambda chart: chart.name)
def test_every_chart_is_an_image_with_something_on_it(chart: Chart) -> None:
    image = Image.open(io.BytesIO(png(chart))).convert("RGB")
    assert image.width >= 800
    assert image.height >= 200
    colours = image.getcolors(1_000_000)
    assert colours is not None
    blank = next(count for count, colour in colours if colour == (255, 255, 255))
    assert 0.5 < blank / (image.width * image.height) < 0.99 or chart.name in ("contours", "parallel")
    assert len(colours) > 20


def test_points_of_a_figure_are_those_of_the_chart() -> None:
    chart = history_chart(view_of(PlainStudy([trial(0, 0.5), trial(1, 1 / 3)])))
    assert chart is not None
    traces = {trace["name"]: trace for trace in plotly_figure(chart.panels[0])["data"]}
    assert (traces["complete"]["x"], traces["complete"]["y"]) == ([1], [0.333333])
    assert traces["best"]["hovertext"] == ["#0 best<br>val/acc 0.5<br>2.0 s"]


def test_few_whole_numbers_have_no_halves_between_them() -> None:
    rows = [trial(n, 0.1 * n, params={"depth": n, "width": 100 * n}) for n in range(1, 4)]
    (chart,) = [chart for chart in make_charts(view_of(PlainStudy(rows))) if chart.name == "slices"]
    axes = [plotly_figure(panel)["layout"]["xaxis"] for panel in chart.panels]
    assert [(axis["tickformat"], axis.get("dtick")) for axis in axes] == [("d", 1), ("d", None)]


def test_the_lines_of_parallel_coordinates_are_heights_and_goodness() -> None:
    axes = make_charts(view_of(PlainStudy([trial(0, 0.5, params={"a": 1}), trial(1, 1.0, params={"a": 3})])))
    (mark,) = next(chart for chart in axes if chart.name == "parallel").panels[0].marks
    assert isinstance(mark, Parallel)
    figure = parallel_figure(mark)
    assert (figure["lines"], figure["goal"]) == ([[0, 0], [1, 1]], [0, 1])
    assert [axis["label"] for axis in figure["axes"]] == ["a", "val/acc"]


def test_texts_of_the_store_do_not_become_markup() -> None:
    tame, wild = (
        Elements(page_of(view_of(varied(8)))),
        Elements(page_of(evil(), advice=[EVIL], commands=[NextCommand("show", EVIL, EVIL)])),
    )
    assert [attributes for tag, attributes in wild.found if tag == "img" or "onerror" in attributes] == []
    assert len(wild.scripts) == len(tame.scripts) == 3
    assert not any(script.startswith("alert") for script in wild.scripts)
    assert sum(EVIL in words for words in wild.words) > 8  # each is there as a text


def test_plotly_gets_no_markup_of_the_store() -> None:
    panels = [panel for chart in make_charts(evil()) if chart.name != "parallel" for panel in chart.panels]
    words = json.dumps([plotly_figure(panel) for panel in panels])
    assert "&lt;img src=x" in words
    assert re.findall(r"<(?!br>|extra></extra>|/extra>)[^>]*>", words) == []


def test_the_policy_of_the_page_allows_its_own_scripts_and_no_connection() -> None:
    elements = Elements(page_of(view_of(varied(8)))).found
    (policy,) = (dict(a)["content"] for tag, a in elements if a.get("http-equiv") == "Content-Security-Policy")
    nonces = {attributes.get("nonce") for tag, attributes in elements if tag == "script"}
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'nonce-")
    assert [f"'nonce-{nonce}'" in policy for nonce in nonces] == [True]
    assert "unsafe-eval" not in policy


def test_nothing_is_fetched_from_elsewhere() -> None:
    elements = Elements(page_of(view_of(varied(8)))).found
    addresses = [attributes.get(key) for _, attributes in elements for key in ("src", "href", "action", "srcset")]
    assert {address for address in addresses if address} == {"data:,", "#table"}


def rows_of(text: str) -> Iterator[list[str]]:
    body = text[text.index("<tbody>", text.index('class="sortable"')) :]
    for row in re.findall(r"<tr.*?</tr>", body[: body.index("</tbody>")], re.DOTALL):
        yield re.findall(r"<td[^>]*>([^<]*)</td>", row)


def test_the_table_has_what_differs_best_first_and_says_once_what_is_shared() -> None:
    rows = [trial(0, 0.5, params={"a.lr": 0.1, "b": "x"}), trial(1, 0.9, params={"a.lr": 0.2, "b": "x"})]
    text = page_of(view_of(PlainStudy(rows)))
    assert list(rows_of(text)) == [["#1", "0.9", "0.2", "complete", "2.0 s"], ["#0", "0.5", "0.1", "complete", "2.0 s"]]
    assert "<code>b=x</code>" in text


def test_a_table_of_thousands_is_cut_and_says_so() -> None:
    text = page_of(view_of(PlainStudy([trial(n, n / 1100) for n in range(1100)])))
    assert len(list(rows_of(text))) == 1000
    assert "Here are the best 1000" in text


def test_a_page_of_a_thousand_trials_is_of_a_size_that_a_browser_likes() -> None:
    assert len(page_of(view_of(varied(1000, num_steps=500), IMPORTANCES))) < 4_500_000


@pytest.mark.parametrize(
    ("study", "words"),
    [
        (PlainStudy([]), "It has no trial yet."),
        (PlainStudy([trial(0, None, state="failed", reason="boom")]), "There is no best trial"),
        (PlainStudy([trial(0, 0.5)], state="running"), "The study is still running."),
        (PlainStudy([trial(0, 0.5)], state="interrupted"), "interrupted"),
        (PlainStudy([trial(0, 0.5, metrics={"val/acc_sem": 0.01})]), "0.5 ± 0.01"),
        (PlainStudy([trial(0, float("nan")), trial(1, 0.5)]), "nan"),
    ],
    ids=["no trial", "no complete one", "running", "interrupted", "replicates", "not a number"],
)
def test_a_page_says_how_a_study_stands(study: PlainStudy, words: str) -> None:
    assert words in page_of(view_of(study))
