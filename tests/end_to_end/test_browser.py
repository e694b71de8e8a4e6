"""MLflow's UI in a real browser after a real sweep: the study, its trials and its report are found by clicking."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from free_ports import free_port
from own_modules import FRAGILE_NET

pytestmark = [pytest.mark.browser, pytest.mark.slow]

STUDY = "odd *b* <i>x</i>"
TRIALS = (  # complete, pruned, failed, whatever
    "{model.limit:1000,optimizer:adam,optimizer.lr:0.01}",
    "{model.limit:1000,optimizer:sgd,optimizer.lr:1e-7}",
    "{model.limit:5,optimizer:adam,optimizer.lr:0.01}",
    "{model.limit:1000,optimizer:sgd,optimizer.lr:0.01}",
)


TOO_SOON = re.compile(r"/static-files/\S+\.js \d+ Error: <\w+> attribute \w+: ")


@dataclass
class Page:
    """MLflow's UI over the store of a sweep, looked at by a browser."""

    browser: Any
    folder: Path
    said: str
    process: subprocess.Popen[str]
    errors: list[str] = field(default_factory=list)

    def address(self, of: str) -> str:
        """Return the address that the command printed for the study, its trials or their charts."""
        (found,) = re.findall(rf"^  {re.escape(of)}: (http\S+)$", self.said, re.MULTILINE)
        return str(found)

    def open(self, address: str) -> None:
        self.note_errors()
        self.browser.get("about:blank")  # else an address that differs after the # only is no new page
        self.browser.get(address)

    def wait(self, what: Callable[[], Any]) -> Any:
        """Wait until something is there, and return it."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        wait = WebDriverWait(self.browser, 30, ignored_exceptions=[StaleElementReferenceException])
        return wait.until(lambda browser: what())

    def all(self, css: str) -> list[Any]:
        return list(self.browser.find_elements("css selector", css))

    def link(self, beginning: str) -> Any:
        return self.wait(lambda: next((a for a in self.all("a") if a.text.startswith(beginning)), None))

    def sees(self, text: str) -> bool:
        return bool(self.wait(lambda: text in self.browser.find_element("tag name", "body").text))

    def runs(self) -> list[str]:
        """Return the names of the runs that the table shows, once it shows any."""
        return [a.text for a in self.wait(lambda: self.all(".ag-row a[href*='/runs/']"))]

    def note_errors(self) -> None:
        """Keep what the console calls severe, but for what MLflow asks its own server in vain.

        Its charts also draw themselves once before their places have a size, if the machine is slow.
        """
        said = [entry["message"] for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]
        self.errors += [text for text in said if "/mlflow/users/current" not in text and not TOO_SOON.search(text)]


@pytest.fixture(scope="module")
def page(browser: Any, lightsweep_in: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("browsed")
    (folder / "conf" / "model").mkdir(parents=True)
    (folder / "conf" / "fragile.py").write_text(FRAGILE_NET)
    (folder / "conf" / "model" / "fragile.yaml").write_text("_target_: fragile.Fragile\nlimit: 0\n")
    swept = lightsweep_in(
        *("sweep", f"study.name='{STUDY}'", "study.num_trials=4", f"study.enqueue=[{','.join(TRIALS)}]"),
        *("model.limit=choice(5,1000)", "optimizer=choice(sgd,adam)", "optimizer.lr=choice(0.01,1e-7)"),
        *("--config-dir", "conf", "model=fragile", "sampler=random", "pruner.n_startup_trials=1", "launcher.slots=1"),
        *("trainer.max_epochs=3", "trainer.accelerator=cpu"),
        cwd=folder,
    )
    assert swept.returncode == 0, swept.stdout + swept.stderr
    port = free_port()
    command = [sys.executable, "-m", "sweeps", "ui", STUDY, "--port", str(port), "--no-browser"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            said = ""
            while "their charts" not in said:
                line = process.stdout.readline()
                assert line, said
                said += line
            # The assistant would open by itself, before the first page
            browser.get(f"http://127.0.0.1:{port}/#/")
            browser.execute_script("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
            yield Page(browser, folder, said, process)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def test_table_of_all_runs_has_the_study_with_its_trials_below_it(page: Page) -> None:
    page.open(page.address(f"study {STUDY}").split("#")[0] + "#/experiments/1/runs?workflowType=machine_learning")
    assert page.runs() == [STUDY]

    page.all(".ag-row button[data-component-id*=runnamecellrenderer]")[0].click()

    assert page.wait(lambda: len(page.runs()) == 5)
    assert [name.split()[0] for name in page.runs()[1:]] == ["#3", "#2", "#1", "#0"]


def test_page_of_the_study_says_how_far_it_is_and_names_the_best(page: Page) -> None:
    page.open(page.address(f"study {STUDY}"))

    assert page.sees("4 of 4 trials (") and page.sees("1 failed), best: trial 0, val/acc = 0.")
    assert page.link("trial 0").get_attribute("href").startswith(page.address(f"study {STUDY}").split("#")[0])


def test_metrics_of_the_best_trial_are_those_of_the_study(page: Page) -> None:
    page.open(page.address(f"study {STUDY}"))

    for metric in ("val/acc", "val/loss", "test/acc", "trials/finished"):
        assert page.sees(metric)


def test_link_to_the_best_leads_to_its_page_and_from_there_back(page: Page) -> None:
    page.open(page.address(f"study {STUDY}"))
    window = page.browser.current_window_handle
    page.link("trial 0").click()
    page.wait(lambda: len(page.browser.window_handles) == 2)
    page.browser.switch_to.window(page.browser.window_handles[-1])

    assert page.sees("#0 limit=1000 optimizer=adam lr=0.01") and page.sees(f"Trial 0 of {STUDY}: complete, val/acc")
    (back,) = [a for a in page.all("a") if a.text == STUDY and a.get_attribute("target") == "_blank"]
    assert back.get_attribute("href") == page.address(f"study {STUDY}")
    page.note_errors()
    page.browser.close()
    page.browser.switch_to.window(window)


def test_name_of_the_study_is_text_and_no_markup(page: Page) -> None:
    page.open(page.address("its trials"))
    page.wait(lambda: len(page.runs()) == 4)
    page.link("#0").click()

    assert page.sees(f"Trial 0 of {STUDY}: complete")
    assert not [e for e in page.all("i, em") if e.text == "x"]


@pytest.mark.parametrize(
    ("trial", "said"), [("#1", "pruned: 0."), ("#2", "failed: RuntimeError: no more than 5 steps")]
)
def test_page_of_a_trial_says_why_it_ended(page: Page, trial: str, said: str) -> None:
    page.open(page.address("its trials"))
    page.link(trial).click()

    assert page.sees(f"of {STUDY}: {said}")


def test_saved_view_has_the_trials_best_first_and_the_searched_parameters(page: Page) -> None:
    page.open(page.address("its trials"))
    page.wait(lambda: len(page.runs()) == 4)

    names = [name.split()[0] for name in page.runs()]
    assert names[0] == "#0" and names[-1] == "#2" and set(names) == {"#0", "#1", "#2", "#3"}
    header = " ".join(e.text for e in page.all(".ag-header"))
    for column in ("val/acc", "model.limit", "optimizer", "optimizer.lr"):
        assert column in header
    assert "trainer.max_epochs" not in header and "Source" not in header
    assert page.sees(f"study {STUDY}")


def test_charts_of_the_study_are_set_up(page: Page) -> None:
    page.open(page.address("their charts"))

    assert page.sees("Parallel coordinates\n(1)") and page.sees("val/acc by each parameter\n(5)")
    assert page.wait(lambda: page.all(".parcoords canvas")) and page.wait(lambda: page.all(".js-plotly-plot"))
    axes = page.all(".parcoords")[0].text
    assert "optimizer.lr" in axes and "adam" in axes, "a trial that lacks a conditional parameter is shown, too"


def test_artifacts_of_a_trial_are_shown(page: Page) -> None:
    page.open(page.address("its trials"))
    page.link("#0").click()
    page.wait(lambda: next((e for e in page.all("[role=tab]") if e.text == "Artifacts"), None)).click()

    assert page.sees("config.yaml")


def test_report_and_its_plots_are_among_the_artifacts_of_the_study(page: Page) -> None:
    page.open(page.address(f"study {STUDY}"))
    page.wait(lambda: next((e for e in page.all("[role=tab]") if e.text == "Artifacts"), None)).click()

    assert page.sees("plots") and page.sees("report.html")


def test_link_to_the_report_shows_it(page: Page) -> None:
    page.open(page.address(f"study {STUDY}"))
    page.open(page.link("Report").get_attribute("href"))
    frame = page.wait(lambda: next(iter(page.all("iframe")), None))
    page.browser.switch_to.frame(frame)

    assert page.sees("val/acc") and page.sees(STUDY)
    page.browser.switch_to.default_content()


def test_console_has_no_error_of_ours(page: Page) -> None:
    page.note_errors()

    assert page.errors == []


def test_kill_9_of_the_command_leaves_nothing(page: Page) -> None:
    os.kill(page.process.pid, signal.SIGKILL)
    page.process.wait(10)

    with pytest.raises(ProcessLookupError):
        os.killpg(page.process.pid, 0)
