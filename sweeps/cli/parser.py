"""What may be typed: the commands, their options, and what `--help` says of them."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["make_parser", "options", "parsed"]

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


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; overrides may stand before and after options, which argparse cannot do by itself."""
    parser = make_parser()
    for word in sys.argv[1:] if arguments is None else arguments:
        if not word.isprintable() and any("\ud800" <= character <= "\udfff" for character in word):
            parser.error(f"what is typed must be UTF-8, but got {word!r}")
    args, others = parser.parse_known_args(arguments)
    others = [other for other in others if other != "--"]
    if others and (not hasattr(args, "overrides") or any(other.startswith("-") for other in others)):
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    if others:
        args.overrides += others
    return args


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; `command` is what was asked for, or empty."""
    parser = argparse.ArgumentParser(
        prog="lightsweep",
        description="Hyperparameter sweeps over Lightning modules: Hydra composes, Optuna searches, MLflow records.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Start with: lightsweep sweep",
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.set_defaults(command="")
    commands = parser.add_subparsers(metavar="COMMAND")

    for name, text, primary in (
        ("train", "train once, and record it", "train"),
        ("sweep", "search for the best configuration", "sweep"),
        ("check", "try every corner of a search, and train nothing", "sweep"),
    ):
        command = _add(commands, name, text, epilog=_OVERRIDES + _groups_text())
        command.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="key=value or group=option")
        command.add_argument("--config-dir", "-cd", type=Path, help="a folder of your own options and modules")
        command.add_argument("--config-name", "-cn", default=primary, help=f"the primary config (default: {primary})")
        command.add_argument("--cfg", "-c", choices=["job"], help="print the composed configuration and exit")
        command.add_argument("--resolve", action="store_true", help="with --cfg: resolve interpolations")
        if name == "sweep":
            _add_migrate(command)
        if name == "check":
            command.add_argument("--format", choices=["table", "json"], default="table")

    command = _add(commands, "resume", "go on with a study up to its total", epilog=_OVERRIDES)
    command.add_argument("study")
    command.add_argument(
        "overrides", nargs="*", metavar="OVERRIDE", help="from now on, such as study.num_trials=40 for a larger total"
    )
    _add_migrate(command)
    command.add_argument("--store-dir", type=Path, default=Path("mlruns"), help="the store (default: mlruns)")

    command = _add(commands, "enqueue", "let a study try these values next, running or not", epilog=_VALUES)
    command.add_argument("study")
    command.add_argument("values", nargs="+", metavar="KEY=VALUE", help="what it is to try; the sampler adds the rest")
    command.add_argument("--store-dir", type=Path, default=Path("mlruns"), help="the store (default: mlruns)")

    command = _add(commands, "stop", "let a running study start no more trials")
    command.add_argument("study")
    command.add_argument("--now", action="store_true", help="stop the running trials, too; `resume` goes on with them")
    command.add_argument("--store-dir", type=Path, default=Path("mlruns"), help="the store (default: mlruns)")

    command = _add(commands, "compare", "list trials, best first", epilog=_CONDITIONS)
    command.add_argument("studies", nargs="*", metavar="STUDY", help="studies by name (default: all)")
    command.add_argument("--top", type=_positive, metavar="N", help="only the best N")
    command.add_argument("--metric", help="sort by this metric rather than the study's")
    _add_selection(command)
    command.add_argument("--group-by", type=_names, metavar="A,B", help="the mean and the best of each group; N groups")
    command.add_argument("--columns", type=_names, default=(), metavar="A,B,C", help="only these, in a table or CSV")
    command.add_argument("--format", choices=["table", "csv", "json", "md"], default="table")
    _add_store(command)

    command = _add(commands, "show", "show all that is known of a run", epilog=_NAMES)
    command.add_argument("run", metavar="RUN", help="STUDY#12, best:STUDY, train#3, or an id or the beginning of it")
    command.add_argument("--format", choices=["table", "json"], default="table")
    _add_store(command)

    command = _add(commands, "diff", "show what differs between runs", epilog=_NAMES)
    command.add_argument("names", nargs="+", metavar="RUN", help="two or more, such as best:STUDY STUDY#12")
    command.add_argument("--format", choices=["table", "json"], default="table")
    _add_store(command)

    command = _add(commands, "report", "write what a study has found into one HTML file")
    command.add_argument("study")
    command.add_argument("--output", "-o", type=Path, metavar="FILE", help="the file (default: STUDY/report.html)")
    command.add_argument("--png", type=Path, metavar="DIR", help="write the plots there, too, as NAME.png")
    _add_store(command)

    command = _add(commands, "reproduce", "train a run again, and prove it equal", epilog=_VERDICTS + _NAMES)
    command.add_argument("run", metavar="RUN", help="STUDY#12, best:STUDY, train#3, or an id or the beginning of it")
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

    command = _add(commands, "export", "write all that training a run again takes", epilog=_NAMES)
    command.add_argument("run", metavar="RUN", help="STUDY#12, best:STUDY, train#3, or an id or the beginning of it")
    command.add_argument("target", metavar="DIR", type=Path, help="a new folder; `lightsweep reproduce DIR` reads it")
    _add_store(command)

    command = _add(
        commands, "promote", "register the best checkpoint of a run, to be served", epilog=_PROMOTING + _NAMES
    )
    command.add_argument("run", metavar="RUN", help="STUDY#12, best:STUDY, train#3, or an id or the beginning of it")
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

    command = _add(commands, "predict", "predict with a registered model", epilog=_PREDICTING)
    command.add_argument("model", metavar="MODEL", help="NAME@ALIAS, NAME/VERSION, or NAME for its newest version")
    command.add_argument("file", metavar="FILE", type=Path, help="samples: .csv, .npy, .npz, .json, or an image")
    command.add_argument("--probabilities", action="store_true", help="those of all classes, too")
    command.add_argument("--format", choices=["table", "csv", "json"], help="default: table, and for a file its ending")
    command.add_argument("--output", "-o", type=Path, metavar="OUT", help="write them to this file")
    command.add_argument("--config-dir", "-cd", type=Path, help="the folder of your own modules")
    command.add_argument("--allow", action="append", default=[], metavar="MODULE", help="a module that may be built")
    _add_store(command)

    command = _add(commands, "ui", "open MLflow's UI over the store, at the page of a study")
    command.add_argument("study", nargs="?", metavar="STUDY", help="a study by name (default: the latest)")
    command.add_argument("--port", type=_positive, default=5000, help="the port on 127.0.0.1 (default: 5000)")
    command.add_argument("--optuna", action="store_true", help="Optuna's dashboard, too, on the port after that")
    command.add_argument("--no-browser", action="store_true", help="only print the addresses")
    _add_store(command)

    command = _add(commands, "completion", "print the shell completion script")
    command.add_argument("shell", choices=["bash", "zsh", "fish"])
    command.add_argument("--line", help=argparse.SUPPRESS)  # what the script asks with
    return parser


def _add(commands: Any, name: str, text: str, epilog: str = "") -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
    command.set_defaults(command=name)
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
    from sweeps.core.paths import conf_dir

    lines = ["", "Config groups:"]
    for folder in sorted(entry for entry in conf_dir().iterdir() if entry.is_dir()):
        options = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        lines.append(f"  {folder.name + ':':<12}{options}")
    return "\n".join(lines)


def options() -> dict[str, list[str]]:
    """Return the commands with their long options, as the parser has them."""
    found: dict[str, list[str]] = {}
    for action in make_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                options = (option for item in command._actions for option in item.option_strings)
                shown = (option for option in options if option.startswith("--") and option != "--line")
                found[name] = sorted(shown)
    return found
