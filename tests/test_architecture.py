"""The walls of the house: which room may import what. Rooms are the folders of `sweeps/`; see docs/structure.md."""

import ast
import itertools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

STOREYS = (  # from the ground up; a room imports from the storeys below its own, and of its own only itself
    ("core",),
    ("config",),
    ("search", "tracking"),
    ("results",),
    ("reproduce", "report"),
    ("worker",),
    ("launchers", "serving"),
    ("driver",),
    ("cli",),
)
LEVEL = {room: level for level, rooms in enumerate(STOREYS) for room in rooms}

LOADER = "sweeps.serving.predictor"  # what MLflow loads a registered model with, in a process of its own
PACKER = "sweeps.serving.package"  # builds the module of a run, as a rank does
DOORS = {  # a dependency, and the only places that import it
    "torch": ("sweeps.worker", LOADER, PACKER),
    "pytorch_lightning": ("sweeps.worker", LOADER, PACKER),
    "lightning_fabric": ("sweeps.worker",),
    "torchmetrics": ("sweeps.worker",),
    "optuna": ("sweeps.search",),
    "optuna_dashboard": ("sweeps.search",),
    "mlflow": ("sweeps.tracking", LOADER),
    "rich": ("sweeps.cli",),
    "hydra": ("sweeps.config", "sweeps.search.space"),
    "plotly": ("sweeps.report",),
    "matplotlib": ("sweeps.report",),
}


@dataclass(frozen=True)
class Import:
    """That `source` imports `target`, somewhere in its text."""

    source: str
    target: str
    line: int
    at_start: bool  # when `source` itself is imported, rather than later or for types only

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}"


def modules(package: str) -> dict[str, Path]:
    found = {}
    for file in (ROOT / package).rglob("*.py"):
        parts = file.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports(package: str) -> list[Import]:
    known = modules(package)
    return [found for name, file in known.items() for found in imports_of(name, ast.parse(file.read_text()), known)]


def imports_of(source: str, tree: ast.Module, known: dict[str, Path]) -> Iterator[Import]:
    at_start = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module is not None, f"{source}:{node.lineno} imports relatively"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            targets = [name if name in known else node.module for name in whole]
        else:
            continue
        for target in dict.fromkeys(targets):
            yield Import(source, target, node.lineno, id(node) in at_start)


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "sweeps" and len(parts) > 1 and parts[1] in LEVEL else None


SWEEPS = imports("sweeps")


def test_every_module_is_in_a_room() -> None:
    outside = {name for name in modules("sweeps") if room_of(name) is None}
    assert outside == {"sweeps", "sweeps.__main__", "sweeps.insights", "sweeps.promotion", "sweeps.promotion.serving"}


def test_rooms_import_only_from_the_storeys_below() -> None:
    between = [(room_of(found.source), room_of(found.target), found) for found in SWEEPS]
    upward = [str(found) for a, b, found in between if a and b and a != b and LEVEL[a] <= LEVEL[b]]
    assert upward == []


def test_no_module_is_imported_in_a_circle() -> None:
    edges: dict[str, set[str]] = {}
    for found in SWEEPS:
        if found.target.startswith("sweeps") and found.at_start:
            edges.setdefault(found.source, set()).add(found.target)
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for target in edges.get(module, ()):
                visit(target, (*path, module))
            done.add(module)

    for module in edges:
        visit(module, ())


@pytest.mark.parametrize("dependency", DOORS)
def test_a_dependency_has_one_door(dependency: str) -> None:
    others = [
        str(found)
        for found in SWEEPS
        if found.target.split(".")[0] == dependency and not found.source.startswith(DOORS[dependency])
    ]
    assert others == []


def test_the_platform_and_the_models_meet_only_in_yaml() -> None:
    across = [found for found in SWEEPS if found.target.startswith("lightning_modules")]
    across += [found for found in imports("lightning_modules") if found.target.startswith("sweeps")]
    assert list(map(str, across)) == []


@pytest.mark.parametrize("room", LEVEL)
def test_a_room_says_what_belongs_there_and_where_to_start_reading(room: str) -> None:
    tree = ast.parse((ROOT / "sweeps" / room / "__init__.py").read_text())
    text = ast.get_docstring(tree) or ""
    assert "Start reading at" in text
    named = text.split("Start reading at", 1)[1].split("`")[1]
    assert (ROOT / "sweeps" / room / named).is_file()
    assert [node for node in tree.body if not isinstance(node, ast.Expr)] == []


HEAVY = ("torch", "pytorch_lightning", "mlflow", "optuna", "hydra", "pandas", "matplotlib", "plotly", "sklearn")


@pytest.mark.parametrize(
    ("command", "allowed"),
    [
        (["--help"], ()),
        (["sweep", "--help"], ()),
        (["compare"], ()),
        (["show", "best:none"], ()),
        (["train", "optimizer.lrr=1"], ("hydra", "optuna")),
    ],
    ids=" ".join,
)
def test_what_a_command_imports(command: list[str], allowed: tuple[str, ...], tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from sweeps.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print('\\n' + ' '.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *command], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "sweeps.cli.parser" in loaded
    assert {name for name in HEAVY if name in loaded} - set(allowed) == set()


def test_the_storeys_name_each_room_once() -> None:
    rooms = list(itertools.chain(*STOREYS))
    assert sorted(rooms) == sorted(set(rooms)) and len(rooms) == 12
