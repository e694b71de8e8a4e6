"""How large the house is, how its rooms lie on each other, and how long the ways of data through it are.

    python benchmarks/house.py                    # this checkout
    python benchmarks/house.py BEFORE AFTER       # two checkouts side by side (git worktree add BEFORE b90f984)
    python benchmarks/house.py --ways             # also drive real commands; only this writes results/house.md
    python benchmarks/house.py --json             # for programs, with what stands behind the figures

Sizes and imports are read from the source. An edge is a module of `sweeps` that another imports, also within functions
and for types; a level is a step on the longest path of edges, on which a cycle is one.

The ways are counted in a process of the checkout, over the commands below, in the store of `tests/older_store`: the
files of `sweeps` that are entered, and how often a call is in another file than the call before it. Each command runs
twice, and the second time counts, so that imports do not. What a trial takes is the difference of two sweeps that run
once, in the driver's own thread, with real ranks: messages come when they come, so it varies by some percent.
"""

import argparse
import ast
import io
import json
import os
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from harness import Result, scratch

_PACKAGE = "sweeps"
_LONG_FUNCTION, _SHORT_MODULE, _LONG_MODULE = 60, 70, 500
_STOREYS = (
    {"cli"},
    {"driver"},
    {"launchers", "serving"},
    {"worker"},
    {"reproduce", "report"},
    {"results"},
    {"search", "tracking"},
    {"config"},
    {"core"},
)
"""the rooms from the top down; each may import what is below it"""
_STORE = Path(__file__).parents[1] / "tests" / "older_store"
_WAYS = {
    "compare --top 3": ["compare", "--top", "3"],
    "compare --where": ["compare", "--where", "metrics.val/acc > 0.3"],
    "show best:STUDY": ["show", "best:small"],
    "reproduce best:STUDY, refused for a wrong key": ["reproduce", "best:small", "no.such.key=1"],
    "reproduce STUDY#1, refused for a wrong key": ["reproduce", "small#1", "no.such.key=1"],
    "sweep of 2 trials": None,
    "sweep of 6 trials": None,
}


@dataclass(frozen=True)
class Module:
    """One file of the package.

    Attributes:
        name: Its dotted name.
        path: Where it lies.
        text: Its source.
    """

    name: str
    path: Path
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def num_lines(self) -> int:
        return len(self.text.splitlines())

    @property
    def num_code_lines(self) -> int:
        """The lines that have something of a statement in them which is no docstring."""
        silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
        lines: set[int] = set()
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type not in silent:
                lines.update(range(token.start[0], token.end[0] + 1))
        for text in self._docstrings():
            lines -= set(range(text.lineno, (text.end_lineno or text.lineno) + 1))
        return len(lines)

    def _docstrings(self) -> Iterator[ast.Expr]:
        """Yield texts that are statements of their own: docstrings, and those of attributes."""
        for node in ast.walk(self.tree):
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                yield node

    @property
    def classes(self) -> list[ast.ClassDef]:
        return [node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef)]

    @property
    def long_functions(self) -> list[str]:
        return [
            f"{self.name}.{node.name} {length}"
            for node in ast.walk(self.tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > _LONG_FUNCTION
        ]

    def imported(self, known: set[str]) -> set[str]:
        """Return the modules of the package that it imports, also within functions and for types."""
        found: set[str] = set()
        package = self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = package.rsplit(".", node.level - 1)[0] if node.level else ""
                base = ".".join(part for part in (base, node.module) if part)
                for alias in node.names:
                    inner = f"{base}.{alias.name}"
                    found.add(inner if inner in known else base)
        return (found & known) - {self.name}


@dataclass
class House:
    """A checkout, and what was counted in it.

    Attributes:
        folder: The checkout.
        figures: Each quantity by its name; None where it cannot be counted.
        lists: What stands behind some of them, for those who mend it.
    """

    folder: Path
    figures: dict[str, int | None] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)

    def count(self) -> None:
        """Count all that can be read from the source."""
        modules = _modules(self.folder)
        edges = {module.name: module.imported({other.name for other in modules}) for module in modules}
        groups = _cycles(edges)
        self.lists = {
            "functions above 60 lines": [name for module in modules for name in module.long_functions],
            "modules above 500 lines": [
                f"{module.name} {module.num_lines}" for module in modules if module.num_lines > _LONG_MODULE
            ],
            "import cycles": [" ".join(sorted(group)) for group in groups if len(group) > 1],
            "upward imports": [f"{a} -> {b}" for a in edges for b in sorted(edges[a]) if _rise(a, b) > 0],
            "imports between rooms of a storey": [
                f"{a} -> {b}" for a in edges for b in sorted(edges[a]) if _rise(a, b) == 0 and _room(a) != _room(b)
            ],
        }
        tests = [path.read_text(encoding="utf-8") for path in sorted((self.folder / "tests").rglob("*.py"))]
        has_rooms = all((self.folder / _PACKAGE / room).is_dir() for storey in _STOREYS for room in storey)
        protocols = [node for module in modules for node in module.classes if _is_protocol(node)]
        short = [m for m in modules if m.num_lines < _SHORT_MODULE and m.path.name != "__init__.py"]
        self.figures = {
            "files": len(modules),
            "modules at the top": sum(module.path.parent == self.folder / _PACKAGE for module in modules),
            "lines": sum(module.num_lines for module in modules),
            "code lines": sum(module.num_code_lines for module in modules),
            "classes": sum(len(module.classes) for module in modules),
            "Protocols": len(protocols),
            "functions above 60 lines": len(self.lists["functions above 60 lines"]),
            "modules below 70 lines": len(short),
            "modules above 500 lines": len(self.lists["modules above 500 lines"]),
            "levels of imports": _levels(edges, groups),
            "edges": sum(map(len, edges.values())),
            "import cycles": len(self.lists["import cycles"]),
            "upward imports": len(self.lists["upward imports"]) if has_rooms else None,
            "imports between rooms of a storey": (
                len(self.lists["imports between rooms of a storey"]) if has_rooms else None
            ),
            "files of tests": len(tests),
            "lines of tests": sum(len(text.splitlines()) for text in tests),
        }

    def count_ways(self) -> None:
        """Count the ways of data over real commands; takes half a minute."""
        project = tomllib.loads((self.folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        found: dict[str, tuple[int, int]] = {}
        for name, arguments in _WAYS.items():
            with scratch() as folder:
                found[name] = _way(self.folder, project["scripts"]["lightsweep"], folder, name, arguments)
        named = found.pop("reproduce STUDY#1, refused for a wrong key")
        best = found["reproduce best:STUDY, refused for a wrong key"]
        few, many = found.pop("sweep of 2 trials"), found.pop("sweep of 6 trials")
        for name, (files, changes) in found.items():
            self.figures[f"{name}: files entered"] = files
            self.figures[f"{name}: changes of file"] = changes
        self.figures["of the last, to find best:STUDY: changes of file"] = best[1] - named[1]
        self.figures["a trial of a sweep, in the driver: changes of file"] = round((many[1] - few[1]) / 4)


def _modules(folder: Path) -> list[Module]:
    found = []
    for path in sorted((folder / _PACKAGE).rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(Module(name, path, path.read_text(encoding="utf-8")))
    return found


def _is_protocol(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base).partition("[")[0].rpartition(".")[2] == "Protocol" for base in node.bases)


def _cycles(edges: dict[str, set[str]]) -> list[set[str]]:
    """Return the modules in groups that reach each other, those first that others import (Tarjan 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    waiting: list[str] = []
    groups: list[set[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        waiting.append(name)
        for other in sorted(edges[name]):
            if other not in order:
                visit(other)
            if other in waiting:
                low[name] = min(low[name], low[other])
        if low[name] == order[name]:
            at = waiting.index(name)
            groups.append(set(waiting[at:]))
            del waiting[at:]

    for name in sorted(edges):
        if name not in order:
            visit(name)
    return groups


def _levels(edges: dict[str, set[str]], groups: list[set[str]]) -> int:
    """Return the number of modules on the longest path of imports; a cycle counts as one."""
    level: dict[str, int] = {}
    for group in groups:
        below = {other for name in group for other in edges[name]} - group
        level.update(dict.fromkeys(group, 1 + max((level[other] for other in below), default=0)))
    return max(level.values(), default=0)


def _room(name: str) -> str:
    return (*name.split("."), "")[1]


def _rise(importer: str, imported: str) -> int:
    """Return by how many storeys an import goes up; -1 also where one of the two is in no room."""
    at = [
        next((i for i, storey in enumerate(_STOREYS) if _room(name) in storey), None) for name in (importer, imported)
    ]
    return -1 if at[0] is None or at[1] is None else at[0] - at[1]


# --- the ways of data ----------------------------------------------------------------------------------

_COUNTER = """
import contextlib, importlib, io, json, os, sys
home, entry, times, *arguments = sys.argv[1:]
module, _, name = entry.partition(":")
main = getattr(importlib.import_module(module), name)
package = os.path.join(home, "sweeps") + os.sep
assert sys.modules["sweeps"].__file__.startswith(package), sys.modules["sweeps"].__file__
for left in range(int(times), 0, -1):
    files, changes, last, said = set(), 0, None, io.StringIO()
    def heard(frame, event, _):
        global changes, last
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(package):
            files.add(file)
            changes += last is not None and file != last
            last = file
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        sys.setprofile(heard if left == 1 else None)
        try:
            status = main(arguments)
        except SystemExit as exit_:
            status = exit_.code
        finally:
            sys.setprofile(None)
print(json.dumps([status, len(files), changes, said.getvalue()[-1000:]]))
"""


def _way(checkout: Path, entry: str, folder: Path, name: str, arguments: list[str] | None) -> tuple[int, int]:
    """Drive one command in a process of the checkout; return the files entered and the changes of file."""
    if arguments is None:
        arguments = [
            *("sweep", "trainer.accelerator=cpu", "launcher.slots=1", "launcher.threads=1", "debug=fast", "seed=1"),
            *("sampler=random", "pruner=none", "study.report=false", "optimizer.lr=tag(log,interval(1e-4,1e-1))"),
            f"study.num_trials={name.split()[2]}",
        ]
        times = 1
    else:
        subprocess.run(
            [sys.executable, _STORE / "unpack.py", folder],
            check=True,
            env={**os.environ, "PYTHONPATH": str(checkout)},
        )
        times = 2
    done = subprocess.run(
        [sys.executable, "-c", _COUNTER, checkout, entry, str(times), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(checkout), "TERM": "dumb"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{name} has failed in {checkout}:\n{done.stderr[-2000:]}")
    status, files, changes, said = json.loads(done.stdout.splitlines()[-1])
    if status not in ((2,) if "refused" in name else (0, None)):
        raise SystemExit(f"{name} ended with the status {status} in {checkout}:\n{said}")
    return files, changes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="*", type=Path, default=[Path(__file__).parents[1]])
    parser.add_argument("--ways", action="store_true", help="count the ways of data, too: half a minute a checkout")
    parser.add_argument("--json", action="store_true", help="print JSON, with the lists behind the figures")
    args = parser.parse_args()
    houses = [House(path.resolve()) for path in args.checkouts]
    for house in houses:
        house.count()
        if args.ways:
            house.count_ways()
    if args.json:
        print(json.dumps({str(house.folder): house.figures | {"lists": house.lists} for house in houses}, indent=1))
        return
    result = Result(
        name="house",
        claim="about 135 files, 24,000 lines, 10 levels of imports, none upwards; half the changes of file a way",
    )
    for name in houses[0].figures:
        values = ["-" if house.figures[name] is None else str(house.figures[name]) for house in houses]
        result.add(name, " → ".join(values))
    if args.ways:
        result.raw = {house.folder.name: house.figures for house in houses}
        result.save()


if __name__ == "__main__":
    main()
