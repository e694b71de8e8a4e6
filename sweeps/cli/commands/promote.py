"""`lightsweep promote`: register a run's best checkpoint as a model version."""

import argparse
import ast
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rich.console import Console

from sweeps.cli.arguments import of_run
from sweeps.cli.console import SafeConsole
from sweeps.config.composer import ALLOWED_MODULES, Composer
from sweeps.core import paths
from sweeps.core.errors import ConfigError, LightsweepError, UsageError
from sweeps.core.text import code_block, escaped, number, plain, some_of
from sweeps.core.urls import hide_password, store_options
from sweeps.driver.run_request import RunRequest
from sweeps.driver.session import python_path
from sweeps.reproduce.local_config import derived, deriving, localize
from sweeps.reproduce.original import IncompleteError, Original, load_original
from sweeps.results.reader import open_reader
from sweeps.results.run import run_folder
from sweeps.search.space.typed_secrets import hide_typed
from sweeps.serving.model import DATA, ServedModel
from sweeps.tracking import tags
from sweeps.tracking.artifacts import download_artifacts, list_artifacts
from sweeps.tracking.registry import NewVersion, Registered, Registry, require_alias, require_name
from sweeps.tracking.runs import StoredRun

if TYPE_CHECKING:
    from sweeps.serving.package import Prepared

__all__ = ["NotReproducedError", "PromoteRequest", "Promotion", "own_code", "print_promotion", "promote", "run"]

_NEEDED = (
    "hydra-core",
    "mlflow",
    "numpy",
    "omegaconf",
    "pandas",
    "pytorch-lightning",
    "pyyaml",
    "torch",
    "torchmetrics",
)
"""the packages that a server needs besides the code that a model brings along"""

_LOADER = "sweeps.serving.predictor"
_CONTENT = "lightsweep.content"
_METRICS = 8


class NotReproducedError(LightsweepError):
    """A run is to be promoted only if a reproduction has proved it exact, and none has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromoteRequest(RunRequest):
    """What is to be promoted, and as what; `overrides` say where the data lies, and what the record withholds.

    Attributes:
        name: The registered model's name.
        alias: What else the version is to be called; None for nothing.
        needs_exact: Whether to refuse what was not reproduced exactly.
    """

    name: str
    alias: str | None = None
    needs_exact: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """A run that has become a version of a registered model.

    Attributes:
        version: Which.
        is_new: Whether it has been made now; else it was there.
        model: What it takes and gives.
        verdict: That of the run's last reproduction, in words.
        alias: The alias that names it now, if one was asked for.
        moved_from: The version that this alias named before.
        code: The user's own files and folders that went along.
        notes: What there is to say of it.
    """

    version: Registered
    is_new: bool
    model: ServedModel
    verdict: str
    alias: str | None
    moved_from: int | None
    code: tuple[Path, ...]
    notes: tuple[str, ...]


def promote(request: PromoteRequest) -> Promotion:
    """Register the best checkpoint of a run. Doing it again changes only the alias and the verdict.

    Raises:
        UsageError: There is no such run, or a name makes no sense.
        NotReproducedError: It has to be reproduced exactly, and was not.
        StoreError: The record lacks what it takes, or the store cannot be written.
    """
    require_name(request.name)
    if request.alias is not None:
        require_alias(request.alias)
    with open_reader(request.store_uri) as reader:
        original = load_original(reader, request.store_uri, request.run, request.store_dir)
    _require_complete(original)
    _require_places(original, request.overrides)
    verdict = original.run.tags.get(tags.REPRODUCED, "")
    if request.needs_exact:
        _require_exact(original.name, verdict, request)
    composer = request.composer()
    own = tuple(module for module in composer.allowed_modules if module not in ALLOWED_MODULES)
    folders = python_path(composer)
    sys.path[:0] = [folder for folder in folders if folder not in sys.path]
    code, requirements = own_code(own, [Path(folder) for folder in folders])
    with TemporaryDirectory() as aside:
        data = Path(aside) / DATA
        prepared, notes = _prepared(original, request, composer, own, Path(aside) / "checkpoints", data)
        new = _new_version(original, prepared, data, code, requirements, verdict, request)
        registry = Registry(request.store_uri)
        version = registry.find_version(request.name, {_CONTENT: new.version_tags[_CONTENT]})
        is_new = version is None
        if version is None:
            version = registry.register(new)
        else:
            registry.describe(version, new.description, new.version_tags)
        registry.tag_run(original.run.run_id, version)
        moved_from = None if request.alias is None else registry.set_alias(version, request.alias)
    return Promotion(
        version=version,
        is_new=is_new,
        model=prepared.model,
        verdict=verdict or "not reproduced",
        alias=request.alias,
        moved_from=moved_from if moved_from != version.version else None,
        code=tuple(code),
        notes=tuple(notes),
    )


def _prepared(
    original: Original, request: PromoteRequest, composer: Composer, own: Sequence[str], files: Path, data: Path
) -> tuple["Prepared", list[str]]:
    """Write the model into the folder `data`; return what it is, and notes for the user.

    Raises:
        NotReproducedError: Its weights have to be those that were proved exact, and are not.
        ConfigError: The config cannot be built, or gives what cannot be served.
        StoreError: There is no checkpoint that can be read and fits.
    """
    checkpoints = _checkpoints(original.run, request.store_uri, request.store_dir, files)
    from sweeps.serving.package import prepare  # torch, which no refusal before needs

    today, place = composer.trial({}, 0), composer.config_dir
    config, said = localize(original.config, today, typed=request.overridden, config_dir=place)
    config = derived(config, request.overrides)
    try:
        prepared = prepare(original, config, checkpoints, data, allowed=composer.allowed_modules, modules=own)
    except ConfigError as error:
        hint = " Modules of your own are found with --config-dir DIR or --allow MODULE."
        raise ConfigError(f"{error}{hint if 'allowed module' in str(error) else ''}") from error
    if request.needs_exact and not prepared.is_traced:
        raise NotReproducedError(_unproved(original, prepared))
    notes = [*original.notes, *said, *prepared.notes]
    if prepared.is_traced is False:
        notes.append(f"{prepared.model.checkpoint} has weights that trace.jsonl has at the end of no epoch.")
    return prepared, notes


def _new_version(
    original: Original,
    prepared: "Prepared",
    data: Path,
    code: Sequence[Path],
    requirements: Sequence[str],
    verdict: str,
    request: PromoteRequest,
) -> NewVersion:
    from sweeps.serving.package import content_digest

    packages = [*map(_pinned, _NEEDED), *requirements]
    shipped = [paths.code_dir() / "sweeps", paths.code_dir() / "lightning_modules", *code]
    return NewVersion(
        name=request.name,
        run_id=original.run.run_id,
        step=max(prepared.model.step, 0),
        data=data,
        loader_module=_LOADER,
        code=shipped,
        requirements=packages,
        examples=prepared.examples,
        classes=bool(prepared.model.classes),
        num_values=prepared.num_values,
        description=_description(original, prepared.model, verdict, request),
        version_tags=_tags(original, verdict, content_digest(data, shipped, packages)),
    )


def print_promotion(found: Promotion, request: PromoteRequest, console: Console) -> None:
    """Print what was promoted, and the next commands."""

    def say(text: str, style: str = "") -> None:
        console.print(plain(text), style=style, markup=False, highlight=False, soft_wrap=True)

    version, model = found.version, found.model
    name = f"{version.name}/{version.version}"
    for note in found.notes:
        say(note)
    say(f"{name} {'is' if found.is_new else 'was there already: it is'} {model.label}, {model.checkpoint}", "bold")
    say(f"  reproduced: {found.verdict}")
    say(f"  takes samples of {model.sample}")
    gives = f"the class: one of {some_of(model.classes, 12)}" if model.classes else "values"
    say(f"  gives {gives}{'' if model.output == 'values' else f', from the {model.output} of the module'}")
    if found.code:
        say(f"  has a copy of your code, which its server runs: {', '.join(path.name for path in found.code)}")
    if found.alias is not None:
        before = "" if found.moved_from is None else f" (it named version {found.moved_from} before)"
        say(f"  is called {version.name}@{found.alias} now{before}")
    called = version.name + (f"@{found.alias}" if found.alias is not None else f"/{version.version}")
    say("Next", "bold")
    say(f"  lightsweep predict {shlex.quote(called)} FILE{request.options()}")
    served, store = shlex.quote(f"models:/{called}"), shlex.quote(hide_password(request.store_uri))
    say(f"  MLFLOW_TRACKING_URI={store} mlflow models serve -m {served} --env-manager local")


# --- what may be promoted ------------------------------------------------------------------------------


def _require_complete(original: Original) -> None:
    if original.state == "complete":
        return
    words = {
        "pruned": "was pruned: it was stopped because others were better",
        "failed": "has failed",
        "interrupted": "was interrupted: resume it with `lightsweep resume`, or train it again",
        "running": "is running still, as far as the store knows",
    }
    why = words.get(
        original.state, f"is {plain(original.state)!r}" if original.state else "is not a run of Lightsweep's"
    )
    raise UsageError(f"{original.name} {why}. Only a run that is complete is promoted.")


def _require_places(original: Original, overrides: Sequence[str]) -> None:
    derived(original.config, overrides)  # refuses what is not an override, and unknown keys
    others = deriving(overrides, original.config)
    if others:
        raise UsageError(
            f"{hide_typed(others[0])} would make another model of {original.name}: after -- a promotion takes where "
            "the data lies here, such as data.root=FOLDER, and what the record withholds as secret. To train another, "
            "see `lightsweep reproduce --help`."
        )


def _require_exact(label: str, verdict: str, request: PromoteRequest) -> None:
    kind, _, _ = verdict.partition(":")
    if kind == "exact":
        return
    told = f"its last reproduction says: {plain(verdict)}" if verdict else "it has not been reproduced yet"
    raise NotReproducedError(
        f"{label} is not promoted: --require-reproduced asks for the verdict exact, over the whole run, and {told}"
        f"{'' if told.endswith('.') else '.'} Run: lightsweep reproduce {shlex.quote(label)}{request.options()}"
    )


def _unproved(original: Original, prepared: "Prepared") -> str:
    if prepared.is_traced is None:
        why = (
            f"cannot be checked: {original.name} has no {paths.TRACE} with a hash of all weights, which a training has "
            "whose ranks each hold all of them (one device, or trainer=ddp)"
        )
    else:
        why = f"are none that {original.name} had at the end of an epoch, which is what was proved exact"
    return (
        f"The weights of the checkpoint {plain(prepared.model.checkpoint)} {why}: it is not promoted. Without "
        "--require-reproduced it is."
    )


# --- its files -----------------------------------------------------------------------------------------


def _checkpoints(run: StoredRun, uri: str, store_dir: Path, aside: Path) -> list[Path]:
    """Return the checkpoints that were kept of a run.

    They are those that the run recorded, which is the best one; without these, those that lie in its folder.
    """
    prefix = f"{paths.CHECKPOINTS}/"
    if any(artifact.path.startswith(prefix) for artifact in list_artifacts(run, uri)):
        return download_artifacts(run, aside, uri=uri, wanted=lambda path: path.startswith(prefix))
    own = run_folder(run, store_dir)
    kept = [] if own is None else [path for path in (own / paths.CHECKPOINTS).glob("*") if path.is_file()]
    if not kept:
        raise IncompleteError(
            "There is no checkpoint of the run, neither among its artifacts nor in its folder. Train it again: "
            f"`lightsweep reproduce {run.run_id[:8]}` makes a run that is equal, and has one."
        )
    return kept


def own_code(modules: Sequence[str], folders: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Return the files and folders of the user's modules, and the packages that they import, as requirements."""
    code: dict[Path, None] = {}
    imported: dict[str, None] = {}
    for top in dict.fromkeys(module.partition(".")[0] for module in modules):
        try:
            spec = find_spec(top)
        except (ImportError, ValueError):
            spec = None
        if spec is None or spec.origin is None:
            raise UsageError(f"The module {top!r} is not found. It is looked for in {', '.join(map(str, folders))}.")
        file = Path(spec.origin)
        home = file.parent if file.name == "__init__.py" else file
        if home.parent in folders:
            code[home] = None
            imported |= dict.fromkeys(_imports(home))
        else:
            imported[top] = None
    distributions = metadata.packages_distributions()
    names = {name.lower() for top in imported for name in distributions.get(top, ())}
    return list(code), [_pinned(name) for name in sorted(names.difference(_NEEDED, ("lightsweep",)))]


def _imports(home: Path) -> Iterator[str]:
    """Yield the top-level modules that a file, or those of a folder, import."""
    for file in sorted(home.rglob("*.py")) if home.is_dir() else [home]:
        try:
            tree = ast.parse(file.read_bytes(), str(file))
        except (SyntaxError, ValueError):  # one that nobody imports, or the model could not have been built
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from (name.name.partition(".")[0] for name in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                yield node.module.partition(".")[0]


def _pinned(package: str) -> str:
    """Return a package with the version that is installed, without what only its own build is called (`+cpu`)."""
    return f"{package}=={metadata.version(package).partition('+')[0]}"


# --- what is said of it --------------------------------------------------------------------------------


def _tags(original: Original, verdict: str, digest: str) -> dict[str, str]:
    run = original.run
    kept = {key: run.tags[key] for key in (tags.STUDY, tags.METRIC, tags.VALUE, tags.REPRODUCED_BY) if key in run.tags}
    return {**kept, "lightsweep.run": original.name, tags.REPRODUCED: verdict or "not reproduced", _CONTENT: digest}


def _description(original: Original, model: ServedModel, verdict: str, request: PromoteRequest) -> str:
    """Say in Markdown what the version is; MLflow shows it on the version's page."""
    run, metric = original.run, original.config["objective"]["metric"]
    shown = sorted(run.metrics, key=lambda key: (key != metric, not key.startswith(("test/", "val/")), key))[:_METRICS]
    command = " ".join(filter(None, (run.tags.get("mlflow.source.name", ""), run.tags.get(tags.OVERRIDES, ""))))
    gives = f"the class ({escaped(some_of(model.classes, 12))})" if model.classes else "values"
    lines = [
        f"**{escaped(original.name)}**, {escaped(model.checkpoint)} (epoch {model.epoch}, step {model.step})",
        f"- reproduced: {escaped(verdict or 'not yet')}",
        f"- metrics: {escaped(', '.join(f'{key} {number(run.metrics[key])}' for key in shown))}",
        f"- takes samples of {escaped(str(model.sample))}, gives {gives}",
        "",
        "Trained by",
        "",
        code_block([command or "a run without a command"]),
        "",
        "To prove it equal again",
        "",
        code_block([f"lightsweep reproduce {shlex.quote(original.name)}{store_options(request.store_dir)}"]),
    ]
    return "\n".join(lines)


def run(args: argparse.Namespace) -> int:
    """Register the best checkpoint of a run, and print its version."""
    request = PromoteRequest(**of_run(args), name=args.name, alias=args.alias, needs_exact=args.require_reproduced)
    print_promotion(promote(request), request, SafeConsole())
    return 0
