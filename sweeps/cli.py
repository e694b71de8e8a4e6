"""The command line: parse, call one use case, print. Nothing heavy is imported before it is needed."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.errors import LightsweepError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from sweeps.run_reproduce import Request
    from sweeps.workbench import CommandLine

__all__ = ["main"]

_INTERRUPTED = 130  # what shells expect after Ctrl-C
_OVERRIDES = """\
Overrides are Hydra's: key=value, +key=value, ~key, group=option. Sweep expressions (for sweep, check and resume):
  optimizer.lr='tag(log,interval(1e-4,1e-1))'  model.depth='range(1,5)'  data.batch_size=32,64,128
  model.activation='choice(relu,tanh)'         optimizer='choice(sgd,adam)'
"""
_VALUES = """\
Values are quoted as on the sweep's command line, and must lie in the space of the study:
  lightsweep enqueue digits-mlp-1 optimizer.lr=0.01 'model.width=[64,32]'
"""
_NAMES = """\
A run is named by its id, or by as much of it as no other begins with, or as
  digits-mlp-1#12       trial 12 of the study digits-mlp-1 (digits-mlp-1#12/1: its replicate 1)
  best:digits-mlp-1     the study's best trial that satisfies its constraints; of a Pareto front, the first by the
                        leading metric
  train#3               the `lightsweep train` that lies in mlruns/train/0003
"""
_VERDICTS = """\
Verdicts, and the exit status of each:
  exact             0  weights, order of the data and all metrics are equal bit for bit
  within tolerance  3  they are not, but the objective and its curve are near enough; what most likely did it
  diverged          4  they are not; the epoch and the step, and what most likely did it
  not verifiable    5  the record or the data is gone or incomplete, or training failed
"""
_PROMOTING = """\
  lightsweep promote best:digits-mlp-1 --name digits --alias champion --require-reproduced
  lightsweep predict digits@champion samples.csv
  MLFLOW_TRACKING_URI=sqlite:///mlruns/mlflow.db mlflow models serve -m models:/digits@champion --env-manager local

"""
_PREDICTING = """\
A CSV has a sample a line; an array, or a list in JSON, has the shape of one sample or of several:
  lightsweep predict digits@champion samples.npy --probabilities
  lightsweep predict digits/3 samples.csv --output classes.csv
"""
_CONDITIONS = """\
Conditions, with and, or, not, parentheses; in [..], like '%..%' and contains beside = != < <= > >=:
  lightsweep compare --where "params.model.depth >= 3 and metrics.val/acc > 0.9"
  lightsweep compare --where "state in ['complete', 'pruned'] and not params.optimizer._target_ contains 'SGD'"
Fields: study trial state value duration_s metric infeasible is_on_front run_id
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 1 for a failure, 2 for a usage error, 130 after Ctrl-C."""
    args = _parsed(arguments)
    try:
        status: int = args.run(args)
        sys.stdout.flush()  # here, where a closed pipe is caught
    except LightsweepError as error:
        if args.debug:
            raise
        print(f"lightsweep: {_harmless(str(error), args)}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:  # `lightsweep compare | head -1` has what it wants
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0 if args.run in (_compare, _show, _diff, _report, _predict) else 1
    except OSError as error:  # a full disk, a folder that may not be written
        if args.debug or error.filename is None:
            raise
        print(f"lightsweep: {error.filename}: {error.strerror}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lightsweep: interrupted.", file=sys.stderr)
        return _INTERRUPTED
    return status


def _harmless(message: str, args: argparse.Namespace) -> str:
    """Hide in a message what is secret in the overrides that were typed or in the environment, and what steers."""
    from sweeps.naming import plain_lines
    from sweeps.secrecy import Secrets, typed_secrets

    secrets = Secrets()
    secrets.add(typed_secrets(getattr(args, "overrides", ())))
    return plain_lines(secrets.hide(message))


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; overrides may stand before and after options, which argparse cannot do by itself."""
    parser = _parser()
    args, others = parser.parse_known_args(arguments)
    others = [other for other in others if other != "--"]
    if others and (not hasattr(args, "overrides") or any(other.startswith("-") for other in others)):
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    if others:
        args.overrides += others
    return args


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lightsweep",
        description="Hyperparameter sweeps over Lightning modules: Hydra composes, Optuna searches, MLflow records.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Start with: lightsweep sweep",
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.set_defaults(run=_no_command(parser))
    commands = parser.add_subparsers(metavar="COMMAND")

    for name, text, run, primary in (
        ("train", "train once, and record it", _train, "train"),
        ("sweep", "search for the best configuration", _sweep, "sweep"),
        ("check", "try every corner of a search, and train nothing", _check, "sweep"),
    ):
        command = _add(commands, name, text, run, epilog=_OVERRIDES + _groups_text())
        command.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="key=value or group=option")
        command.add_argument("--config-dir", "-cd", type=Path, help="a folder of your own options and modules")
        command.add_argument("--config-name", "-cn", default=primary, help=f"the primary config (default: {primary})")
        command.add_argument("--cfg", "-c", choices=["job"], help="print the composed configuration and exit")
        command.add_argument("--resolve", action="store_true", help="with --cfg: resolve interpolations")
        if name == "sweep":
            _add_migrate(command)
        if name == "check":
            command.add_argument("--format", choices=["table", "json"], default="table")

    command = _add(commands, "resume", "go on with a study up to its total", _resume, epilog=_OVERRIDES)
    command.add_argument("study")
    command.add_argument(
        "overrides", nargs="*", metavar="OVERRIDE", help="from now on, such as study.num_trials=40 for a larger total"
    )
    _add_migrate(command)
    command.add_argument("--store-dir", type=Path, default=Path("mlruns"), help="the store (default: mlruns)")

    command = _add(commands, "enqueue", "let a study try these values next, running or not", _enqueue, epilog=_VALUES)
    command.add_argument("study")
    command.add_argument("values", nargs="+", metavar="KEY=VALUE", help="what it is to try; the sampler adds the rest")
    command.add_argument("--store-dir", type=Path, default=Path("mlruns"), help="the store (default: mlruns)")

    command = _add(commands, "stop", "let a running study start no more trials", _stop)
    command.add_argument("study")
    command.add_argument("--now", action="store_true", help="stop the running trials, too; `resume` goes on with them")
    command.add_argument("--store-dir", type=Path, default=Path("mlruns"), help="the store (default: mlruns)")

    command = _add(commands, "compare", "list trials, best first", _compare, epilog=_CONDITIONS)
    command.add_argument("studies", nargs="*", metavar="STUDY", help="studies by name (default: all)")
    command.add_argument("--top", type=_positive, metavar="N", help="only the best N")
    command.add_argument("--metric", help="sort by this metric rather than the study's")
    _add_selection(command)
    command.add_argument("--group-by", type=_names, metavar="A,B", help="the mean and the best of each group; N groups")
    command.add_argument("--columns", type=_names, default=(), metavar="A,B,C", help="only these, in a table or CSV")
    command.add_argument("--format", choices=["table", "csv", "json", "md"], default="table")
    _add_store(command)

    command = _add(commands, "show", "show all that is known of a run", _show, epilog=_NAMES)
    command.add_argument("name", metavar="RUN", help="STUDY#12, best:STUDY, train#3, or an id or the beginning of it")
    command.add_argument("--format", choices=["table", "json"], default="table")
    _add_store(command)

    command = _add(commands, "diff", "show what differs between runs", _diff, epilog=_NAMES)
    command.add_argument("names", nargs="+", metavar="RUN", help="two or more, such as best:STUDY STUDY#12")
    command.add_argument("--format", choices=["table", "json"], default="table")
    _add_store(command)

    command = _add(commands, "report", "write what a study has found into one HTML file", _report)
    command.add_argument("study")
    command.add_argument("--output", "-o", type=Path, metavar="FILE", help="the file (default: STUDY/report.html)")
    command.add_argument("--png", type=Path, metavar="DIR", help="write the plots there, too, as NAME.png")
    _add_store(command)

    command = _add(
        commands, "reproduce", "train a run again, and prove it equal", _reproduce, epilog=_VERDICTS + _NAMES
    )
    command.add_argument("name", metavar="RUN", help="STUDY#12, best:STUDY, train#3, or an id or the beginning of it")
    command.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="after --: key=value, for a derived run")
    command.add_argument("--epochs", type=_positive, metavar="N", help="train and compare only the first N epochs")
    command.add_argument("--threads", type=_positive, metavar="N", help="CPU threads (default: as many as it had)")
    command.add_argument("--config-dir", "-cd", type=Path, help="the folder of your own modules")
    command.add_argument("--allow", action="append", default=[], metavar="MODULE", help="a module that may be built")
    command.add_argument("--start-method", choices=["forkserver", "spawn"], default="forkserver")
    command.add_argument("--at-commit", action="store_true", help="in a git worktree of the recorded code")
    command.add_argument("--in-env", action="store_true", help="in a virtual environment of the recorded packages")
    command.add_argument("--yes", "-y", action="store_true", help="run the recorded code and packages without asking")
    command.add_argument("--format", choices=["table", "json"], default="table")
    _add_store(command)

    command = _add(commands, "export", "write all that training a run again takes", _export, epilog=_NAMES)
    command.add_argument("name", metavar="RUN", help="STUDY#12, best:STUDY, train#3, or an id or the beginning of it")
    command.add_argument("target", metavar="DIR", type=Path, help="a new folder; `lightsweep reproduce DIR` reads it")
    _add_store(command)

    command = _add(
        commands, "promote", "register the best checkpoint of a run, to be served", _promote, epilog=_PROMOTING + _NAMES
    )
    command.add_argument(
        "run_name", metavar="RUN", help="STUDY#12, best:STUDY, train#3, or an id or the beginning of it"
    )
    command.add_argument(
        "overrides", nargs="*", metavar="OVERRIDE", help="after --: where its data lies here, such as data.root=FOLDER"
    )
    command.add_argument("--name", required=True, help="the registered model; it is made if there is none")
    command.add_argument("--alias", help="let this name the new version, such as champion")
    command.add_argument(
        "--require-reproduced",
        action="store_true",
        help="refuse unless `lightsweep reproduce` has proved the run exact",
    )
    command.add_argument("--config-dir", "-cd", type=Path, help="the folder of your own modules; they go along")
    command.add_argument("--allow", action="append", default=[], metavar="MODULE", help="a module that may be built")
    _add_store(command)

    command = _add(commands, "predict", "predict with a registered model", _predict, epilog=_PREDICTING)
    command.add_argument("model", metavar="MODEL", help="NAME@ALIAS, NAME/VERSION, or NAME for its newest version")
    command.add_argument("file", metavar="FILE", type=Path, help="samples: .csv, .npy, .npz, .json, or an image")
    command.add_argument("--probabilities", action="store_true", help="those of all classes, too")
    command.add_argument("--format", choices=["table", "csv", "json"], help="default: table, and for a file its ending")
    command.add_argument("--output", "-o", type=Path, metavar="OUT", help="write them to this file")
    command.add_argument("--config-dir", "-cd", type=Path, help="the folder of your own modules")
    command.add_argument("--allow", action="append", default=[], metavar="MODULE", help="a module that may be built")
    _add_store(command)

    command = _add(commands, "ui", "open MLflow's UI over the store, at the page of a study", _ui)
    command.add_argument("study", nargs="?", metavar="STUDY", help="a study by name (default: the latest)")
    command.add_argument("--port", type=_positive, default=5000, help="the port on 127.0.0.1 (default: 5000)")
    command.add_argument("--optuna", action="store_true", help="Optuna's dashboard, too, on the port after that")
    command.add_argument("--no-browser", action="store_true", help="only print the addresses")
    _add_store(command)

    command = _add(commands, "completion", "print the shell completion script", _completion)
    command.add_argument("shell", choices=["bash", "zsh", "fish"])
    command.add_argument("--line", help=argparse.SUPPRESS)  # what the script asks with
    return parser


def _add(commands: Any, name: str, text: str, run: Any, epilog: str = "") -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
    command.set_defaults(run=run)
    return command


def _add_migrate(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--migrate", action="store_true", help="move the study to this space: trials that fit are kept, others dropped"
    )


def _add_selection(command: argparse.ArgumentParser) -> None:
    command.add_argument("--where", metavar="CONDITION", help="only those for which this holds; see below")
    command.add_argument("--sort", metavar="KEY", help="sort by a parameter, a metric or a field, lowest first")
    order = command.add_mutually_exclusive_group()
    order.add_argument("--descending", action="store_const", const=True, dest="is_descending", help="highest first")
    order.add_argument("--ascending", action="store_const", const=False, dest="is_descending", help="lowest first")
    command.add_argument("--pareto", action="store_true", help="only the front of a study of several objectives")


def _add_store(command: argparse.ArgumentParser) -> None:
    command.add_argument("--store-dir", type=Path, default=Path("mlruns"), help="the store (default: mlruns)")
    command.add_argument("--uri", help="the database or server that tracking.uri named, if it did")


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, but got {text!r}")
    return number


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"must be names with commas between them, but got {text!r}")
    return names


def _groups_text() -> str:
    """List the config groups with their options, from the files' names alone."""
    from sweeps.paths import conf_dir

    lines = ["", "Config groups:"]
    for folder in sorted(entry for entry in conf_dir().iterdir() if entry.is_dir()):
        options = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        lines.append(f"  {folder.name + ':':<12}{options}")
    return "\n".join(lines)


def _no_command(parser: argparse.ArgumentParser) -> Any:
    def run(args: argparse.Namespace) -> int:
        if args.version:
            from importlib.metadata import version

            print(f"lightsweep {version('lightsweep')}")
            return 0
        parser.print_help()
        return 2

    return run


# --- the commands --------------------------------------------------------------------------------------


def _command_line(args: argparse.Namespace) -> "CommandLine":
    from sweeps.workbench import CommandLine

    return CommandLine(overrides=tuple(args.overrides), config_name=args.config_name, config_dir=args.config_dir)


def _print_config(args: argparse.Namespace) -> int:
    from omegaconf import OmegaConf

    from sweeps.config import Composer, to_yaml
    from sweeps.secrecy import Secrets, withhold
    from sweeps.space import split_overrides

    plain, _ = split_overrides(args.overrides)
    tree = Composer(args.config_name, plain, args.config_dir).tree
    keys = [str(key) for key in tree if key != "hydra"]
    composed = OmegaConf.to_container(OmegaConf.masked_copy(tree, keys), resolve=args.resolve)
    assert isinstance(composed, dict)
    public, _ = withhold({str(key): value for key, value in composed.items()}, Secrets())
    print(to_yaml(public), end="")
    return 0


def _train(args: argparse.Namespace) -> int:
    if args.cfg:
        return _print_config(args)
    from sweeps.display import warn_unsent
    from sweeps.naming import number
    from sweeps.run_train import train

    console = _console()
    result = train(_command_line(args), console)
    warn_unsent(result.num_unsent, result.folder, console)
    outcome = result.outcome
    if result.is_guest and outcome is not None and outcome.state == "complete":
        return 0
    if outcome is None or outcome.state == "interrupted":
        if not result.is_guest:
            console.print("Interrupted. Nothing is lost of what was recorded.", highlight=False)
        return _INTERRUPTED
    if outcome.state == "failed":
        if result.is_guest:  # rank 0 has a display for that
            console.print(outcome.reason, markup=False, highlight=False, soft_wrap=True)
        console.print(f"The log is in {result.folder}.", markup=False, highlight=False, soft_wrap=True)
        return 1
    for key, value in sorted(outcome.metrics.items()):
        console.print(f"  {key:<16} {number(value)}", markup=False, highlight=False)
    console.print(f"run {result.run_id}  in {result.folder}", markup=False, highlight=False, soft_wrap=True)
    return 0


def _sweep(args: argparse.Namespace) -> int:
    if args.cfg:
        return _print_config(args)
    from sweeps.conclusion import conclude
    from sweeps.run_sweep import sweep

    console = _console()
    return conclude(sweep(_command_line(args), console, migrates=args.migrate), console)


def _check(args: argparse.Namespace) -> int:
    if args.cfg:
        return _print_config(args)
    from sweeps.check_report import print_report
    from sweeps.run_check import run_check

    console = _console()
    result = run_check(_command_line(args), console)
    print_report(result.report, args.format, title=result.title, console=console, out=sys.stdout)
    return 0


def _resume(args: argparse.Namespace) -> int:
    from sweeps.conclusion import conclude
    from sweeps.run_sweep import resume

    console = _console()
    return conclude(resume(args.study, args.store_dir, console, args.overrides, migrates=args.migrate), console)


def _enqueue(args: argparse.Namespace) -> int:
    from sweeps.steering import enqueue

    print(enqueue(args.study, args.store_dir, args.values))
    return 0


def _stop(args: argparse.Namespace) -> int:
    from sweeps.steering import stop

    print(stop(args.study, args.store_dir, is_now=args.now))
    return 0


def _compare(args: argparse.Namespace) -> int:
    from sweeps.reading.compare import print_rows
    from sweeps.reading.grouping import grouped, print_groups
    from sweeps.reading.selection import Selection, selected_rows
    from sweeps.reading.where import parse_where

    selection = Selection(
        where=None if args.where is None else parse_where(args.where),
        is_front=args.pareto,
        metric=args.metric,
        sort=args.sort,
        is_descending=args.is_descending,
        top=None if args.group_by else args.top,
    )
    if args.group_by and (args.sort or args.columns):
        raise UsageError("--group-by has columns and an order of its own: leave --sort and --columns out.")
    rows = selected_rows(_uri(args), args.studies, selection, args.group_by or None)
    if args.group_by:
        groups = grouped(rows, args.group_by, args.metric, args.is_descending)
        print_groups(groups[: args.top], args.format, console=_console(), out=sys.stdout)
    else:
        print_rows(rows, args.format, console=_console(), out=sys.stdout, metric=args.metric, columns=args.columns)
    if not rows and (args.where is not None or args.pareto):
        print("No trial is left: none passes what was asked for.", file=sys.stderr)
    elif not rows:
        where = f"study {' or '.join(map(repr, args.studies))} has no trials" if args.studies else "store has no runs"
        print(f"The {where} yet. Start some with `lightsweep sweep`.", file=sys.stderr)
    return 0


def _show(args: argparse.Namespace) -> int:
    from sweeps.reading.run_detail import read_runs
    from sweeps.reading.show import print_run
    from sweeps.urls import store_options

    (detail,) = read_runs(_uri(args), [args.name], args.store_dir)
    commands, where = [], store_options(args.store_dir, args.uri)
    if detail.study is not None:
        commands.append(f"lightsweep compare {shlex.quote(detail.study)} --top 10{where}")
        if detail.kind == "trial" and not args.name.startswith("best:"):
            best = f"best:{detail.study}"
            commands.append(f"lightsweep diff {shlex.quote(best)} {shlex.quote(detail.label)}{where}")
    if not (args.uri or "").startswith("http"):
        commands.append(f"lightsweep ui{f' {shlex.quote(detail.study)}' if detail.study else ''}{where}")
    print_run(detail, args.format, console=_console(), out=sys.stdout, commands=commands)
    return 0


def _diff(args: argparse.Namespace) -> int:
    from sweeps.reading.diff import difference, print_difference
    from sweeps.reading.run_detail import read_runs

    found = difference(read_runs(_uri(args), args.names, args.store_dir, lists_artifacts=False))
    print_difference(found, args.format, console=_console(), out=sys.stdout)
    return 0


def _report(args: argparse.Namespace) -> int:
    from sweeps.conclusion import advice_lines
    from sweeps.paths import REPORT, study_dir
    from sweeps.run_report import make_report
    from sweeps.urls import store_options

    where = store_options(args.store_dir, args.uri)
    report = make_report(args.study, store_dir=args.store_dir, uri=args.uri, where=where)
    for line in advice_lines(report.advice, args.study, args.store_dir):
        print(line)
    path = args.output or study_dir(args.store_dir, args.study) / REPORT
    report.write(path)
    print(f"The report is in {path}")
    if args.png is not None:
        files = report.write_plots(args.png)
        print(
            f"The plots are in {args.png}: {', '.join(file.name for file in files) or 'there is nothing to draw yet'}"
        )
    return 0


def _reproduce(args: argparse.Namespace) -> int:
    from sweeps.display import warn_unsent
    from sweeps.reproducing.original import IncompleteError
    from sweeps.run_reproduce import Reproduction, Request, reproduce

    is_json = args.format == "json"
    console = _console()

    def say(text: str, style: str = "") -> None:
        if not is_json:
            console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    request = Request(
        name=args.name,
        uri=args.uri,
        store_dir=args.store_dir,
        config_dir=args.config_dir,
        allowed_modules=tuple(args.allow),
        epochs=args.epochs,
        threads=args.threads,
        overrides=tuple(args.overrides),
        start_method=args.start_method,
    )
    try:
        if args.at_commit or args.in_env:
            return _reproduce_elsewhere(args, request)
        result = reproduce(request, console, uri=_uri(args), say=say, is_quiet=is_json)
    except IncompleteError as error:
        result = Reproduction.impossible(args.name, error)
    if is_json:
        import json

        print(json.dumps(result.as_dict(), indent=2))
    if result.folder is not None:
        warn_unsent(result.num_unsent, result.folder, console)
        say(f"run {result.run_id}  in {result.folder}")
    verdict = result.verdict
    style = {"exact": "bold green", "diverged": "bold red"}.get(verdict.kind, "bold yellow")
    say(f"{verdict.kind}: {verdict.reason}", style)
    if result.outcome is not None and result.outcome.state == "interrupted":
        return _INTERRUPTED
    return verdict.exit_status


def _reproduce_elsewhere(args: argparse.Namespace, request: "Request") -> int:
    from sweeps.run_elsewhere import Elsewhere, reproduce_elsewhere

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)  # not by rich, which would take the brackets of a patch for markup

    where = Elsewhere(at_commit=args.at_commit, in_env=args.in_env, agrees=args.yes or None)
    return reproduce_elsewhere(request, where, uri=_uri(args), is_json=args.format == "json", say=say)


def _export(args: argparse.Namespace) -> int:
    from sweeps.reproducing.exporting import export

    original = export(args.name, args.target, uri=_uri(args), store_dir=args.store_dir)
    print(
        f"{original.name} is in {args.target}. To train it again: lightsweep reproduce {shlex.quote(str(args.target))}"
    )
    return 0


def _promote(args: argparse.Namespace) -> int:
    from sweeps.run_promote import Request, print_promotion, promote

    request = Request(
        run=args.run_name,
        name=args.name,
        alias=args.alias,
        needs_exact=args.require_reproduced,
        overrides=tuple(args.overrides),
        uri=args.uri,
        store_dir=args.store_dir,
        config_dir=args.config_dir,
        allowed_modules=tuple(args.allow),
    )
    print_promotion(promote(request, uri=_uri(args)), request, uri=_uri(args), console=_console())
    return 0


def _predict(args: argparse.Namespace) -> int:
    from sweeps.promotion.model_names import parse_model_name
    from sweeps.run_predict import Format, predict, print_predictions

    found = predict(
        parse_model_name(args.model),
        args.file,
        uri=_uri(args),
        config_dir=args.config_dir,
        allowed_modules=tuple(args.allow),
    )
    if args.output is None:
        shown: Format = "table" if args.format is None else args.format
        print_predictions(found, shown, probabilities=args.probabilities, out=sys.stdout)
        return 0
    import io

    from sweeps.paths import write_text

    by_ending: Format = "json" if args.output.suffix.lower() == ".json" else "csv"
    form = by_ending if args.format is None else args.format
    out = io.StringIO()
    print_predictions(found, form, probabilities=args.probabilities, out=out)
    write_text(args.output, out.getvalue())
    print(
        f"{len(found.predictions.values)} predictions of {found.version.name}/{found.version.version} in {args.output}"
    )
    return 0


def _ui(args: argparse.Namespace) -> int:
    from sweeps.ui import serve

    return serve(
        _uri(args),
        args.store_dir,
        args.port,
        study=args.study,
        has_dashboard=args.optuna,
        opens_browser=not args.no_browser,
    )


def _completion(args: argparse.Namespace) -> int:
    from sweeps.completion import complete, script

    if args.line is None:
        print(script(args.shell))
    else:
        print("\n".join(complete(args.line, _options())))
    return 0


def _options() -> dict[str, list[str]]:
    """Return the commands with their long options, as the parser has them."""
    found: dict[str, list[str]] = {}
    for action in _parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                options = (option for item in command._actions for option in item.option_strings)
                shown = (option for option in options if option.startswith("--") and option != "--line")
                found[name] = sorted(shown)
    return found


def _uri(args: argparse.Namespace) -> str:
    from sweeps.urls import default_uri

    return args.uri or default_uri(args.store_dir)


def _console() -> "Console":
    from sweeps.terminal import SafeConsole

    return SafeConsole()
