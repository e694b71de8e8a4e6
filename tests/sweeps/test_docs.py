"""What the documents promise is there."""

import re
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from sweeps.cli.parser import make_parser
from sweeps.config import schema
from sweeps.core.paths import conf_dir
from sweeps.driver.session import CommandLine
from sweeps.driver.sweep_setup import read_sweep
from sweeps.results.rows import FIELDS
from sweeps.results.select import parse_where

ROOT = Path(__file__).parents[2]
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()
PAGES = [
    str(path.relative_to(ROOT))
    for folder in ("", "docs", "benchmarks")
    for path in sorted((ROOT / folder).glob("*.md"))
]
NODES = {
    "study": schema.StudyConfig,
    "launcher": schema.LauncherConfig,
    "tracking": schema.TrackingConfig,
    "objective": schema.ObjectiveConfig,
}


@pytest.mark.parametrize("node", NODES)
def test_every_fixed_key_is_documented(node: str) -> None:
    missing = [f.name for f in fields(NODES[node]) if f"`{node}.{f.name}`" not in CONFIGURATION]
    assert missing == []


def test_every_argument_of_the_trainer_is_documented() -> None:
    assert [f.name for f in fields(schema.TrainerConfig) if f"`{f.name}`" not in CONFIGURATION] == []


@pytest.mark.parametrize("group", sorted(path.name for path in conf_dir().iterdir() if path.is_dir()))
def test_every_group_and_option_is_documented(group: str) -> None:
    assert f"`{group}`" in CONFIGURATION
    if group not in ("experiment", "debug"):
        row = next(line for line in CONFIGURATION.splitlines() if line.startswith(f"| `{group}` |"))
        assert [path.stem for path in conf_dir().joinpath(group).glob("*.yaml") if f"`{path.stem}`" not in row] == []


@pytest.mark.parametrize("page", PAGES)
def test_no_link_leads_nowhere(page: str) -> None:
    missing = []
    for target, _, anchor in re.findall(r"\]\(([^)#\s]*)(#([^)\s]+))?\)", (ROOT / page).read_text()):
        path = (ROOT / page).parent / target if target else ROOT / page
        if "://" in target:
            continue
        if not path.exists() or (anchor and anchor not in _anchors(path.read_text())):
            missing.append(f"{target}#{anchor}" if anchor else target)
    assert missing == []


def _anchors(text: str) -> set[str]:
    """Return the anchors that GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ["steering", "reproducing", "mlflow", "promoting"])
def test_every_command_of_the_page_parses(name: str) -> None:
    page = (ROOT / "docs" / f"{name}.md").read_text()
    commands = re.findall(r"^lightsweep (.*?)(?:  #.*)?$", page, re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        make_parser().parse_args(shlex.split(command))


def test_every_command_of_the_page_on_comparing_parses() -> None:
    page = (ROOT / "docs" / "comparing.md").read_text()
    commands = re.findall(r"^lightsweep (.*?)(?:  #.*)?$", page, re.MULTILINE)
    assert {shlex.split(command)[0] for command in commands} >= {"show", "diff"}
    for command in commands:
        make_parser().parse_args(shlex.split(command))


def test_every_command_of_the_page_on_the_report_parses() -> None:
    page = (ROOT / "docs" / "report.md").read_text()
    commands = re.findall(r"^lightsweep (.*?)(?:  *#.*)?$", page, re.MULTILINE)
    assert len(commands) == 4
    for command in commands:
        make_parser().parse_args(shlex.split(command))


def test_the_known_points_of_the_page_on_steering_are_tried_first(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "steering.md").read_text()
    (text,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "known.yaml").write_text(text)
    command = CommandLine(overrides=("study=known",), config_name="sweep", config_dir=tmp_path)
    _, config, space = read_sweep(command)
    assert [space.encode(values) for values in config["study"]["enqueue"]] == [
        {"optimizer.lr": 0.003, "model.depth": 2},
        {"optimizer.lr": 0.01},
    ]


def test_every_example_of_the_page_on_comparing_parses() -> None:
    blocks = _blocks("")
    lines = [line for block in blocks for line in block.splitlines()]
    commands = [line for line in lines if line.startswith("lightsweep ")]
    assert len(lines) > len(commands) > 0
    for line in commands:
        args = make_parser().parse_args(shlex.split(line, comments=True)[1:])
        assert getattr(args, "where", None) is None or parse_where(args.where)
    for line in [line for line in lines if line not in commands]:
        assert parse_where(line).names


def test_python_on_the_page_on_comparing_runs(swept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = _blocks("python")
    monkeypatch.chdir(swept.folder)
    found: dict[str, Any] = {}

    exec(block.replace('"fashion"', '"small"').replace("[12]", "[0]"), found)

    assert len(found["frame"]) == 6 and len(found["everything"]) == 7 and set(found["curves"]["trial"]) == set(range(6))


def _blocks(language: str) -> list[str]:
    page = (ROOT / "docs" / "comparing.md").read_text()
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return [block for of, block in found if of == language]


def test_every_field_is_on_the_page_on_comparing() -> None:
    page = (ROOT / "docs" / "comparing.md").read_text()
    assert [name for name in FIELDS if f"`{name}`" not in page] == []


@pytest.mark.parametrize("path", sorted(conf_dir().rglob("*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_option_begins_with_the_command_that_uses_it(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
    assert lines[0].startswith("# lightsweep ")


def test_the_structure_fits_on_one_page_and_names_files_that_exist() -> None:
    text = (ROOT / "docs" / "structure.md").read_text()
    assert len(text.splitlines()) <= 90
    named = re.findall(r"\b(?:cli|driver|launchers|worker|results|search|tracking|config|core)/[a-z_/]+\.py\b", text)
    assert len(named) > 15
    assert [name for name in named if not (ROOT / "sweeps" / name).is_file()] == []


def test_the_walks_name_files_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = re.findall(r"`((?:sweeps|tests|docs)/[a-z_/]+\.(?:py|md))`", text)
    invented = {"tests/lightning_modules/nets/test_resnet.py", "lightning_modules/nets/resnet.py"}
    assert len(named) > 8
    assert [name for name in named if name not in invented and not (ROOT / name).is_file()] == []
