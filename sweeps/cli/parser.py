"""The commands, their options, and their help texts."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["choices_of", "make_parser", "options", "parsed", "topics"]

_CONFIG = """\
Overrides have Hydra's syntax: key=value, +key=value, ~key, group=option. Print what they compose to with --cfg job.
Search expressions, for sweep, check and resume:
  optimizer.lr='tag(log,interval(1e-4,1e-1))'  model.depth='range(1,5)'  data.batch_size=32,64,128
  model.activation='choice(relu,tanh)'         optimizer='choice(sgd,adam)'
Each key is documented in docs/configuration.md, search spaces in docs/search_spaces.md.
"""
_RUNS = """\
RUN is a run id, a unique prefix of one, or
  digits-mlp-1#12       trial 12 of study digits-mlp-1 (digits-mlp-1#12/1: its replicate 1)
  best:digits-mlp-1     the best trial that satisfies the constraints; of a Pareto front, the first by its metric
  train#3               the `lightsweep train` in mlruns/train/0003
"""
_SEE_CONFIG = "Overrides, search expressions and config groups: lightsweep help config"
_SEE_RUNS = "\nWays to name a RUN: lightsweep help runs"
_VALUES = """\
Quote values as for `lightsweep sweep`; they must lie in the study's search space:
  lightsweep enqueue digits-mlp-1 optimizer.lr=0.01 'model.width=[64,32]'
"""
_VERDICTS = """\
Verdicts and exit status:
  exact             0  weights, data order and all metrics are equal bit for bit
  within tolerance  3  not equal, but the objective and its curve agree; with the most likely cause
  diverged          4  not equal; with the epoch, the step and the most likely cause
  not verifiable    5  the record or the data is missing or incomplete, or training failed
"""
_PROMOTING = """\
  lightsweep promote best:digits-mlp-1 --name digits --alias champion --require-reproduced
  lightsweep predict digits@champion samples.csv
  MLFLOW_TRACKING_URI=sqlite:///mlruns/mlflow.db mlflow models serve -m models:/digits@champion --env-manager local
"""
_PREDICTING = """\
A CSV file has one sample per line; an array or a JSON list has the shape of one sample or of several:
  lightsweep predict digits@champion samples.npy --probabilities
  lightsweep predict digits/3 samples.csv --output classes.csv
"""
_CONDITIONS = """\
Conditions combine = != < <= > >=, in [..], like '%..%' and contains with and, or, not and parentheses:
  lightsweep compare --where "params.model.depth >= 3 and metrics.val/acc > 0.9"
  lightsweep compare --where "state in ['complete', 'pruned'] and not params.optimizer._target_ contains 'SGD'"
Fields: study trial state value duration_s metric infeasible is_on_front run_id
"""
_RUN = "run id, unique prefix, STUDY#12, best:STUDY or train#3"
_CONFIG_DIR = "directory with your own options and modules"
_STORE = "store directory (default: mlruns)"
_ALLOW = "module that may be built; may be repeated"


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of epilogs, and gives names of commands and options one column."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; unlike in plain argparse, overrides may come before and after options."""
    parser = make_parser()
    for word in sys.argv[1:] if arguments is None else arguments:
        if not word.isprintable() and any("\ud800" <= character <= "\udfff" for character in word):
            parser.error(f"arguments must be UTF-8, but got {word!r}")
    args, others = parser.parse_known_args(arguments)
    others = [other for other in others if other != "--"]
    if others and (not hasattr(args, "overrides") or any(other.startswith("-") for other in others)):
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    if others:
        args.overrides += others
    return args


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; `command` is the name of the command, or empty."""
    parser = argparse.ArgumentParser(
        prog="lightsweep",
        description="Hyperparameter sweeps over Lightning modules: Hydra composes, Optuna searches, MLflow records.",
        formatter_class=_Formatter,
        epilog="Start with: lightsweep sweep. Details of a command: lightsweep COMMAND --help",
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.set_defaults(command="")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    for add in (_add_training, _add_steering, _add_reading, _add_reproducing, _add_serving, _add_others):
        add(commands)
    return parser


def choices_of(command: str, option: str) -> tuple[str, ...] | None:
    """Return the values that an option can have, empty if they are open; None if it takes none or is unknown."""
    found = _commands().get(command)
    action = None if found is None else found._option_string_actions.get(option)
    return None if action is None or action.nargs == 0 else tuple(map(str, action.choices or ()))


def topics() -> dict[str, Callable[[], str]]:
    """Return what `lightsweep help TOPIC` explains, and how: each command, the configuration, names of runs."""
    commands = {name: command.format_help for name, command in _commands().items()}
    return {**commands, "config": lambda: _CONFIG + _groups_text() + "\n", "runs": lambda: _RUNS}


def _add_training(commands: Any) -> None:
    for name, text, primary in (
        ("train", "train and record one run", "train"),
        ("sweep", "search for the best configuration", "sweep"),
        ("check", "dry-run the corners of a search space", "sweep"),
    ):
        command = _add(commands, name, text, epilog=_SEE_CONFIG)
        command.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="key=value or group=option")
        command.add_argument("--config-dir", "-cd", type=Path, metavar="DIR", help=_CONFIG_DIR)
        command.add_argument(
            "--config-name", "-cn", metavar="NAME", default=primary, help=f"primary config (default: {primary})"
        )
        command.add_argument("--cfg", "-c", choices=["job"], help="print the composed config and exit")
        command.add_argument("--resolve", action="store_true", help="with --cfg: resolve interpolations")
        if name == "sweep":
            _add_migrate(command)
        if name == "check":
            command.add_argument("--format", choices=["table", "json"], default="table")

    command = _add(commands, "resume", "continue a study until num_trials is reached", epilog=_SEE_CONFIG)
    command.add_argument("study", metavar="STUDY", help="name of the study")
    command.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="applied from now on: study.num_trials=40")
    _add_migrate(command)
    command.add_argument("--store-dir", type=Path, metavar="DIR", default=Path("mlruns"), help=_STORE)


def _add_steering(commands: Any) -> None:
    command = _add(commands, "enqueue", "queue a trial with the given values", epilog=_VALUES)
    command.add_argument("study", metavar="STUDY", help="name of the study")
    command.add_argument("values", nargs="+", metavar="KEY=VALUE", help="values to try; the sampler chooses the rest")
    command.add_argument("--store-dir", type=Path, metavar="DIR", default=Path("mlruns"), help=_STORE)

    command = _add(commands, "stop", "stop a study once its running trials finish")
    command.add_argument("study", metavar="STUDY", help="name of the study")
    command.add_argument("--now", action="store_true", help="also stop the running trials; `resume` continues them")
    command.add_argument("--store-dir", type=Path, metavar="DIR", default=Path("mlruns"), help=_STORE)


def _add_reading(commands: Any) -> None:
    command = _add(commands, "compare", "list trials, best first", epilog=_CONDITIONS)
    command.add_argument("studies", nargs="*", metavar="STUDY", help="names of studies (default: all)")
    command.add_argument("--top", type=_positive, metavar="N", help="show only the best N")
    command.add_argument("--metric", help="sort by this metric instead of the study's")
    _add_selection(command)
    command.add_argument("--group-by", type=_names, metavar="A,B", help="show the mean and the best of each group")
    command.add_argument(
        "--columns", type=_names, default=(), metavar="A,B,C", help="show only these, as a table or CSV"
    )
    command.add_argument("--format", choices=["table", "csv", "json", "md"], default="table")
    _add_store(command)

    command = _add(commands, "show", "show one run in detail", epilog=_RUNS)
    command.add_argument("run", metavar="RUN", help=_RUN)
    command.add_argument("--format", choices=["table", "json"], default="table")
    _add_store(command)

    command = _add(commands, "diff", "show what differs between runs", epilog=_RUNS)
    command.add_argument("names", nargs="+", metavar="RUN", help="two or more runs, e.g. best:STUDY STUDY#12")
    command.add_argument("--format", choices=["table", "json"], default="table")
    _add_store(command)

    command = _add(commands, "report", "write an HTML report of a study")
    command.add_argument("study", metavar="STUDY", help="name of the study")
    command.add_argument("--output", "-o", type=Path, metavar="FILE", help="output file (default: STUDY/report.html)")
    command.add_argument("--png", type=Path, metavar="DIR", help="also write each plot to DIR/NAME.png")
    _add_store(command)


def _add_reproducing(commands: Any) -> None:
    command = _add(
        commands, "reproduce", "retrain a run and verify the result bit for bit", epilog=_VERDICTS + _SEE_RUNS
    )
    command.add_argument("run", metavar="RUN", help=_RUN)
    command.add_argument(
        "overrides", nargs="*", metavar="OVERRIDE", help="after --: key=value, for a changed copy of the run"
    )
    command.add_argument("--epochs", type=_positive, metavar="N", help="train and compare only the first N epochs")
    command.add_argument("--threads", type=_positive, metavar="N", help="CPU threads (default: as recorded)")
    command.add_argument("--config-dir", "-cd", type=Path, metavar="DIR", help="directory with your own modules")
    command.add_argument("--allow", action="append", default=[], metavar="MODULE", help=_ALLOW)
    command.add_argument("--start-method", choices=["forkserver", "spawn"], default="forkserver")
    command.add_argument("--at-commit", action="store_true", help="run the recorded code, in a git worktree")
    command.add_argument(
        "--in-env", action="store_true", help="run with the recorded packages, in a virtual environment"
    )
    command.add_argument("--yes", "-y", action="store_true", help="run recorded code and packages without asking")
    command.add_argument("--format", choices=["table", "json"], default="table")
    _add_store(command)

    command = _add(commands, "export", "export everything needed to reproduce a run elsewhere", epilog=_RUNS)
    command.add_argument("run", metavar="RUN", help=_RUN)
    command.add_argument("target", metavar="DIR", type=Path, help="new directory; `lightsweep reproduce DIR` reads it")
    _add_store(command)


def _add_serving(commands: Any) -> None:
    command = _add(
        commands, "promote", "register a run's best checkpoint as a model version", epilog=_PROMOTING + _SEE_RUNS
    )
    command.add_argument("run", metavar="RUN", help=_RUN)
    command.add_argument(
        "overrides", nargs="*", metavar="OVERRIDE", help="after --: location of the data, e.g. data.root=DIR"
    )
    command.add_argument("--name", required=True, help="registered model; created if it does not exist")
    command.add_argument("--alias", help="alias to assign to the new version, e.g. champion")
    command.add_argument(
        "--require-reproduced",
        action="store_true",
        help="refuse unless the run was reproduced exactly",
    )
    command.add_argument(
        "--config-dir", "-cd", type=Path, metavar="DIR", help="directory with your own modules; they are packed too"
    )
    command.add_argument("--allow", action="append", default=[], metavar="MODULE", help=_ALLOW)
    _add_store(command)

    command = _add(commands, "predict", "predict with a registered model", epilog=_PREDICTING)
    command.add_argument("model", metavar="MODEL", help="NAME@ALIAS, NAME/VERSION, or NAME for the newest")
    command.add_argument("file", metavar="FILE", type=Path, help="samples: .csv, .npy, .npz, .json or an image")
    command.add_argument("--probabilities", action="store_true", help="also print class probabilities")
    command.add_argument(
        "--format", choices=["table", "csv", "json"], help="default: table, or by the file extension of OUT"
    )
    command.add_argument("--output", "-o", type=Path, metavar="OUT", help="write the predictions to this file")
    command.add_argument("--config-dir", "-cd", type=Path, metavar="DIR", help="directory with your own modules")
    command.add_argument("--allow", action="append", default=[], metavar="MODULE", help=_ALLOW)
    _add_store(command)


def _add_others(commands: Any) -> None:
    command = _add(commands, "ui", "open MLflow's UI at the page of a study")
    command.add_argument("study", nargs="?", metavar="STUDY", help="name of the study (default: the latest)")
    command.add_argument("--port", type=_positive, default=5000, help="port on 127.0.0.1 (default: 5000)")
    command.add_argument("--optuna", action="store_true", help="also serve Optuna's dashboard, on the next port")
    command.add_argument("--no-browser", action="store_true", help="print the addresses without opening a browser")
    _add_store(command)

    command = _add(commands, "completion", "print the shell completion script")
    command.add_argument("shell", choices=["bash", "zsh", "fish"])
    command.add_argument("--line", help=argparse.SUPPRESS)  # the script asks with it

    command = _add(commands, "help", "explain a command, config or runs")
    command.add_argument("topic", nargs="?", metavar="TOPIC", help="a command, or one of: config, runs")


def _add(commands: Any, name: str, text: str, epilog: str = "") -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=epilog,
        formatter_class=_Formatter,
    )
    command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks of errors")
    command.set_defaults(command=name)
    return command


def _add_migrate(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--migrate", action="store_true", help="move the study to a new search space; keep the trials that fit"
    )


def _add_selection(command: argparse.ArgumentParser) -> None:
    command.add_argument("--where", metavar="CONDITION", help="show only matching trials; see below")
    command.add_argument("--sort", metavar="KEY", help="sort by a parameter, metric or field, lowest first")
    order = command.add_mutually_exclusive_group()
    order.add_argument("--descending", action="store_const", const=True, dest="is_descending", help="highest first")
    order.add_argument("--ascending", action="store_const", const=False, dest="is_descending", help="lowest first")
    command.add_argument("--pareto", action="store_true", help="show only the Pareto front")


def _add_store(command: argparse.ArgumentParser) -> None:
    command.add_argument("--store-dir", type=Path, metavar="DIR", default=Path("mlruns"), help=_STORE)
    command.add_argument("--uri", help="MLflow tracking URI, if not the default store")


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, but got {text!r}")
    return number


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"must be comma-separated names, but got {text!r}")
    return names


def _groups_text() -> str:
    """List the config groups and their options, by file name."""
    from sweeps.core.paths import conf_dir

    lines = ["", "Config groups:"]
    for folder in sorted(entry for entry in conf_dir().iterdir() if entry.is_dir()):
        options = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        lines.append(f"  {folder.name + ':':<12}{options}")
    return "\n".join(lines)


def options() -> dict[str, list[str]]:
    """Return the commands with their long options."""
    found = {}
    for name, command in _commands().items():
        options = (option for item in command._actions for option in item.option_strings)
        found[name] = sorted(option for option in options if option.startswith("--") and option != "--line")
    return found


def _commands() -> dict[str, argparse.ArgumentParser]:
    subparsers = (it for it in make_parser()._actions if isinstance(it, argparse._SubParsersAction))
    return dict(next(subparsers).choices)
