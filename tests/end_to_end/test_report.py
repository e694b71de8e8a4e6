"""The report of a real sweep: what is left at its end, the command, the command that it prints, and a real browser."""

import html
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def parent(swept: Any) -> Any:
    """MLflow's record of the study."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(swept.uri)
    (experiment,) = client.search_experiments(filter_string="name = 'lightsweep'")
    (run,) = client.search_runs([experiment.experiment_id], "tags.`lightsweep.kind` = 'study'")
    return run


@pytest.fixture(scope="module")
def report(swept: Any) -> Path:
    path: Path = swept.folder / "mlruns" / "small" / "report.html"
    return path


def test_a_sweep_leaves_its_report_in_its_folder_and_on_the_run_of_the_study(
    swept: Any, parent: Any, report: Path
) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(swept.uri)
    assert "report.html" in {file.path for file in client.list_artifacts(parent.info.run_id)}
    plots = {Path(file.path).stem for file in client.list_artifacts(parent.info.run_id, "plots")}
    assert {"history", "slices", "parallel", "curves", "timeline"} <= plots
    recorded = Path(parent.info.artifact_uri.removeprefix("file://")) / "report.html"
    assert recorded.read_bytes() == report.read_bytes()
    assert "no report" not in swept.sweep.stdout + swept.sweep.stderr


def test_the_report_tells_of_each_trial_as_compare_does(swept: Any, report: Path) -> None:
    rows = json.loads(swept.run("compare", "small", "--format", "json").stdout)
    text = report.read_text()
    body = text[text.index('class="sortable"') :]
    found = re.findall(r"<tr class=\"\w+\">\s*<td data-v=\"(\d+)\">", body)
    assert found == [str(row["trial"]) for row in rows]
    assert f"<b>{rows[0]['value']:.4g}</b>" in text
    assert "The study is still running" not in text


def test_the_command_writes_the_report_and_the_plots_where_it_is_told(swept: Any, tmp_path: Path) -> None:
    done = swept.run("report", "small", "--output", str(tmp_path / "a.html"), "--png", str(tmp_path / "png"))
    assert done.returncode == 0, done.stderr
    assert f"The report is in {tmp_path / 'a.html'}" in done.stdout
    assert (tmp_path / "a.html").read_text().startswith("<!doctype html>")
    assert (tmp_path / "png" / "history.png").read_bytes().startswith(b"\x89PNG")


def test_a_study_that_is_not_there_is_told_with_the_nearest(swept: Any) -> None:
    done = swept.run("report", "smal")
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["lightsweep: There is no study 'smal'. Did you mean 'small'?"]


def test_writing_a_report_imports_no_torch_and_no_plotly(swept: Any, lightsweep_in: Any, tmp_path: Path) -> None:
    import subprocess
    import sys

    program = (
        "import sys; from sweeps.cli.main import main; "
        f"assert main(['report', 'small', '--output', {str(tmp_path / 'a.html')!r}]) == 0; "
        "heavy = ['torch', 'plotly', 'pandas', 'mlflow', 'sklearn', 'matplotlib']; "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=swept.folder, capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_the_command_for_the_best_trains_the_same_configuration_to_the_same_value(
    swept: Any, report: Path, lightsweep: Any, tmp_path: Path
) -> None:
    from sweeps.config.composer import fingerprint, load_frozen

    commands = [
        html.unescape(text) for text in re.findall(r"<pre tabindex=\"0\"><code>(.*?)</code>", report.read_text())
    ]
    (command,) = [text for text in commands if text.startswith("lightsweep train")]
    best = json.loads(swept.run("compare", "small", "--top", "1", "--format", "json").stdout)[0]

    done = lightsweep(*shlex.split(command)[1:])

    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (tmp_path / "mlruns" / "train").iterdir()
    trial = swept.folder / "mlruns" / "small" / f"{best['trial']:04d}"
    assert fingerprint(load_frozen(folder)) == fingerprint(load_frozen(trial))
    (again,) = json.loads(lightsweep("compare", "--format", "json").stdout)
    assert again["metrics"]["val/acc"] == best["value"]


@pytest.mark.slow
def test_a_study_without_a_report_gets_one_when_it_goes_on_and_another_replaces_that(
    lightsweep: Any, tmp_path: Path
) -> None:
    few = ("trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.limit_train_batches=2")
    lightsweep("sweep", "study.name=a", "study.num_trials=1", "study.report=false", *few)
    report = tmp_path / "mlruns" / "a" / "report.html"
    assert not report.exists()
    lightsweep("resume", "a", "study.num_trials=2", "study.report=true")
    assert "<b>2</b> trials" in report.read_text()
    done = lightsweep("resume", "a", "study.num_trials=3")
    assert done.returncode == 0, done.stderr
    (recorded,) = (tmp_path / "mlruns" / "artifacts").glob("*/artifacts/report.html")
    assert "<b>3</b> trials" in recorded.read_text()


@pytest.fixture(scope="module")
def wide_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on a study of several hundred trials of every kind."""
    from report_studies import IMPORTANCES, varied, view_of

    from sweeps.report.build import make_charts
    from sweeps.report.page import page
    from sweeps.results.summary import next_commands, summarize

    view = view_of(varied(300), IMPORTANCES)
    summary = summarize(view.study, Path("mlruns"))
    path: Path = tmp_path_factory.mktemp("wide") / "report.html"
    path.write_text(page(view, summary, make_charts(view), advice=["Widen it."], commands=next_commands(summary)))
    return path


def opened(browser: Any, path: Path) -> Any:
    """Open a file with the network off, wait until its plots are drawn, and return the browser."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get("about:blank")
    browser.get_log("browser")  # of earlier pages
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    browser.get(path.as_uri())
    WebDriverWait(browser, 60).until(lambda it: it.execute_script("return document.documentElement.dataset.drawn"))
    return browser


@pytest.mark.browser
def test_a_browser_draws_every_plot_without_a_network_and_without_complaint(
    browser: Any, report: Path, wide_report: Path
) -> None:
    for path in (report, wide_report):
        page = opened(browser, path)
        drawn = page.execute_script(
            "return [...document.querySelectorAll('[data-plot]')].map((place) => [place.dataset.plot, "
            "place.querySelectorAll('svg.main-svg, svg.parallel').length, place.getBoundingClientRect().width, "
            "place.querySelectorAll('.trace, .hm, .lines path, .point').length])"
        )
        assert {name for name, *_ in drawn} >= {"history", "slices", "parallel", "curves", "timeline"}
        assert [name for name, num_svg, width, num_marks in drawn if not (num_svg and width > 200 and num_marks)] == []
        assert page.get_log("browser") == []
        fetched = page.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
        assert [name for name in fetched if not name.startswith(("data:", "blob:", "about:"))] == []


@pytest.mark.browser
def test_the_table_is_sorted_by_clicks_and_by_the_keyboard(browser: Any, wide_report: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    page = opened(browser, wide_report)
    column = "return [...document.querySelectorAll('table.sortable tbody tr')].map((row) => row.cells[0].textContent)"
    by_value = page.execute_script(column)
    head = page.find_element(By.CSS_SELECTOR, "table.sortable th button")
    page.execute_script("arguments[0].click()", head)
    numbers = [int(text.removeprefix("#")) for text in page.execute_script(column)]
    assert numbers == sorted(numbers) == list(range(300))
    head.send_keys(Keys.ENTER)
    assert page.execute_script(column) == [f"#{number}" for number in reversed(range(300))]
    assert head.find_element(By.XPATH, "..").get_attribute("aria-sort") == "descending"
    value = page.find_elements(By.CSS_SELECTOR, "table.sortable th button")[1]
    value.send_keys(Keys.ENTER)
    cells = (
        "return [...document.querySelectorAll('table.sortable tbody tr')].map((row) => row.cells[1].dataset.v ?? '')"
    )
    rising = page.execute_script(cells)
    numbers = [float(text) for text in rising if text]
    assert numbers == sorted(numbers)
    assert rising[len(numbers) :] == [""] * (300 - len(numbers))  # those without a value come last
    assert 0 < len(numbers) < 300
    assert set(by_value) == set(page.execute_script(column))


@pytest.mark.browser
def test_dragging_along_an_axis_leaves_the_lines_that_pass_there(browser: Any, wide_report: Path) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    page = opened(browser, wide_report)
    areas = page.find_elements(By.CSS_SELECTOR, "svg.parallel .area")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", areas[-1])
    height = areas[-1].rect["height"]
    ActionChains(page).move_to_element(areas[-1]).click_and_hold().move_by_offset(
        0, int(-0.45 * height)
    ).release().perform()
    off = "return document.querySelectorAll('svg.parallel path.off').length"
    goal = page.execute_script(
        "return JSON.parse(document.getElementById('figures').textContent).charts.parallel[0].goal"
    )
    num_off = page.execute_script(off)
    assert 0 < num_off < len(goal)
    assert abs(num_off - sum(value < 0.45 for value in goal)) <= 0.25 * len(goal)
    ActionChains(page).move_to_element(areas[-1]).click().perform()
    assert page.execute_script(off) == 0


@pytest.mark.browser
def test_texts_of_the_store_run_in_no_browser(browser: Any, tmp_path: Path) -> None:
    from report_studies import evil, page_of

    path = tmp_path / "report.html"
    path.write_text(page_of(evil()))
    page = opened(browser, path)
    assert page.execute_script("return document.querySelectorAll('img').length") == 0
    assert page.get_log("browser") == []


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_is_wider_than_the_window(browser: Any, wide_report: Path, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        page = opened(browser, wide_report)
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
