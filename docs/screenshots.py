"""Make the pictures of docs/images anew: a real sweep, its end in the terminal, and MLflow's pages in Chromium.

    .venv/bin/python docs/screenshots.py

Needs the packages chromium and chromium-driver. `sweep.svg`, the live view, is not made here.
"""

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

from sweeps.cli.commands.sweep import sweep
from sweeps.cli.summary import conclude
from sweeps.driver.session import CommandLine

_IMAGES = Path(__file__).parent / "images"
_STUDY = "digits-mlp-1"
_COLUMNS = 119
_WIDTH, _HEIGHT = 1500, 1000


def main() -> None:
    """Sweep in a folder of its own, then take the pictures."""
    store = Path(tempfile.mkdtemp(prefix="screenshots-"))
    os.chdir(store)
    os.environ["LOGNAME"] = "you"  # whom MLflow's pages name
    command = CommandLine(overrides=(f"study.name={_STUDY}", "study.num_trials=20", "seed=3"), config_name="sweep")
    result = sweep(command, Console(file=io.StringIO()))
    terminal = Console(record=True, width=_COLUMNS, force_terminal=True, file=io.StringIO())
    terminal.print("[bold]$ lightsweep sweep")
    conclude(result, terminal)
    terminal.save_svg(str(_IMAGES / "result.svg"), title="lightsweep sweep")
    with _served() as addresses, _browser() as browser:
        browser.get(addresses["study"].partition("#")[0])
        browser.execute_script("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
        _take(browser, addresses["study"], "mlflow_study.png", _opened_description)
        _take(browser, addresses["trials"], "mlflow_trials.png", lambda b: b.find_elements("css selector", ".ag-row a"))
        _take(browser, addresses["charts"], "mlflow_charts.png", _drawn)
        for report in store.glob("mlruns/artifacts/*/artifacts/report.html"):
            _take(browser, report.as_uri(), "report.png", _scrolled_to_plots)
    shutil.rmtree(store)


@contextmanager
def _served() -> Iterator[dict[str, str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "sweeps", "ui", "--no-browser", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = ""
        while "their charts" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        found = dict(re.findall(r"(study|trials|charts)[^:\n]*: (http\S+)", said))
        try:
            yield found
        finally:
            process.terminate()


@contextmanager
def _browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", f"window-size={_WIDTH},{_HEIGHT}"):
        options.add_argument(f"--{argument}")
    browser = webdriver.Chrome(options=options, service=Service(executable_path=str(shutil.which("chromedriver"))))
    try:
        yield browser
    finally:
        browser.quit()


def _take(browser: Any, address: str, name: str, is_ready: Callable[[Any], Any]) -> None:
    """Open a page, wait until it shows what the picture is of, and keep it with few colours: a tenth of the size."""
    browser.get("about:blank")
    browser.get(address)
    WebDriverWait(browser, 60).until(is_ready)
    _settle(browser)
    picture = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    picture.quantize(128, dither=Image.Dither.NONE).save(_IMAGES / name, optimize=True)
    print(f"{name}: {(_IMAGES / name).stat().st_size // 1024} KB")


def _settle(browser: Any) -> None:
    """Wait until two looks in a row are the same."""
    before: list[bytes] = [b""]

    def is_still(_: Any) -> bool:
        now = browser.get_screenshot_as_png()
        is_same: bool = now == before[0]
        before[0] = now
        return is_same

    WebDriverWait(browser, 60, poll_frequency=1.0).until(is_still)


def _opened_description(browser: Any) -> bool:
    for more in browser.find_elements("xpath", "//*[text()='Show more']"):
        browser.execute_script("arguments[0].click()", more)
    return bool(browser.find_elements("xpath", "//*[text()='Show less']"))


def _scrolled_to_plots(browser: Any) -> bool:
    browser.execute_script("[...document.querySelectorAll('h2')].at(1)?.scrollIntoView()")
    return bool(browser.execute_script("return document.documentElement.dataset.drawn"))


def _drawn(browser: Any) -> bool:
    return bool(browser.find_elements("css selector", ".parcoords canvas")) and bool(
        browser.find_elements("css selector", ".js-plotly-plot .scatterlayer .point")
    )


if __name__ == "__main__":
    main()
