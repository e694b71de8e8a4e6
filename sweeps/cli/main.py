"""The command line: call one use case, print. Nothing heavy is imported before it is needed; see `arguments`."""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sweeps.cli.parser import make_parser, options, parsed
from sweeps.core.errors import LightsweepError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from sweeps.cli.commands.reproduce import ReproduceRequest
    from sweeps.driver.session import CommandLine

__all__ = ["main"]

_INTERRUPTED = 130  # what shells expect after Ctrl-C


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 1 for a failure, 2 for a usage error, 130 after Ctrl-C."""
    args = parsed(arguments)
    try:
        status = _COMMANDS[args.command](args)
        sys.stdout.flush()  # here, where a closed pipe is caught
    except LightsweepError as error:
        if args.debug:
            raise
        print(f"lightsweep: {_harmless(str(error), args)}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:  # `lightsweep compare | head -1` has what it wants
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0 if args.command in ("compare", "show", "diff", "report", "predict") else 1
    except Exception as error:  # a full disk, a folder that may not be written; else a fault of ours
        if args.debug:
            raise
        if isinstance(error, OSError) and error.filename is not None:
            print(f"lightsweep: {error.filename}: {error.strerror}.", file=sys.stderr)
        else:
            print(f"lightsweep: {_unforeseen(error, args)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lightsweep: interrupted.", file=sys.stderr)
        return _INTERRUPTED
    return status


def _unforeseen(error: Exception, args: argparse.Namespace) -> str:
    """Return one line on an error that nobody has foreseen: what it is, where it was raised, and how to see more."""
    import traceback

    from sweeps.core.failure_text import one_line

    last = traceback.extract_tb(error.__traceback__)[-1]
    line = one_line(error, lambda text: _harmless(text, args))
    place = "" if last.filename in line else f"raised in {last.filename}, line {last.lineno}; "
    return f"{line} ({place}--debug shows the traceback)"


def _harmless(message: str, args: argparse.Namespace) -> str:
    """Hide in a message what is secret in the overrides that were typed or in the environment, and what steers."""
    from sweeps.core.secrets import Secrets
    from sweeps.core.text import plain_lines
    from sweeps.search.space.typed_secrets import typed_secrets

    secrets = Secrets()
    secrets.add(typed_secrets(getattr(args, "overrides", ())))
    return plain_lines(secrets.hide(message))


# --- the commands --------------------------------------------------------------------------------------


def _no_command(args: argparse.Namespace) -> int:
    if args.version:
        from importlib.metadata import version

        print(f"lightsweep {version('lightsweep')}")
        return 0
    make_parser().print_help()
    return 2


def _command_line(args: argparse.Namespace) -> "CommandLine":
    from sweeps.driver.session import CommandLine

    return CommandLine(overrides=tuple(args.overrides), config_name=args.config_name, config_dir=args.config_dir)


def _print_config(args: argparse.Namespace) -> int:
    from sweeps.config.composer import Composer, to_yaml
    from sweeps.search.space.declare import split_overrides

    plain, _ = split_overrides(args.overrides)
    public = Composer(args.config_name, plain, args.config_dir).shown(resolves=args.resolve)
    print(to_yaml(public), end="")
    return 0


def _train(args: argparse.Namespace) -> int:
    if args.cfg:
        return _print_config(args)
    from sweeps.cli.commands.train import train
    from sweeps.cli.live import warn_unsent
    from sweeps.core.text import number

    console = _console()
    result = train(_command_line(args), console)
    warn_unsent(result.unsent, console, is_sweep=False)
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
    from sweeps.cli.commands.sweep import sweep
    from sweeps.cli.summary import conclude

    console = _console()
    return conclude(sweep(_command_line(args), console, migrates=args.migrate), console)


def _check(args: argparse.Namespace) -> int:
    if args.cfg:
        return _print_config(args)
    from sweeps.cli.commands.check import run_check
    from sweeps.cli.preflight_report import print_report

    console = _console()
    result = run_check(_command_line(args), console)
    print_report(result.report, args.format, title=result.title, console=console, out=sys.stdout)
    return 0


def _resume(args: argparse.Namespace) -> int:
    from sweeps.cli.commands.sweep import resume
    from sweeps.cli.summary import conclude

    console = _console()
    return conclude(resume(args.study, args.store_dir, console, args.overrides, migrates=args.migrate), console)


def _enqueue(args: argparse.Namespace) -> int:
    from sweeps.cli.commands.steer import enqueue

    print(enqueue(args.study, args.store_dir, args.values))
    return 0


def _stop(args: argparse.Namespace) -> int:
    from sweeps.cli.commands.steer import stop

    print(stop(args.study, args.store_dir, is_now=args.now))
    return 0


def _compare(args: argparse.Namespace) -> int:
    from sweeps.cli.commands.compare import print_groups, print_rows
    from sweeps.results.groups import grouped
    from sweeps.results.select import Selection, parse_where, selected_rows

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
    from sweeps.cli.commands.show import print_run
    from sweeps.results.run import read_runs
    from sweeps.results.run_names import best_run_id
    from sweeps.results.summary import run_commands

    (detail,) = read_runs(_uri(args), [args.run], args.store_dir)
    best = best_run_id(_uri(args), detail.study) if detail.kind == "trial" and detail.study else None
    commands = run_commands(detail, args.store_dir, args.uri, is_best=best in (None, detail.run.run_id))
    texts = [command.text for command in commands]
    print_run(detail, args.format, console=_console(), out=sys.stdout, commands=texts)
    return 0


def _diff(args: argparse.Namespace) -> int:
    from sweeps.cli.commands.diff import difference, print_difference
    from sweeps.results.run import read_runs

    found = difference(read_runs(_uri(args), args.names, args.store_dir, lists_artifacts=False))
    print_difference(found, args.format, console=_console(), out=sys.stdout)
    return 0


def _report(args: argparse.Namespace) -> int:
    from sweeps.cli.summary import advice_lines
    from sweeps.core.paths import REPORT, require_no_link, study_dir
    from sweeps.report.build import make_report

    report = make_report(args.study, store_dir=args.store_dir, uri=args.uri)
    for line in advice_lines(report.advice, report.summary):
        print(line)
    folder = study_dir(args.store_dir, args.study)
    if not args.output:
        require_no_link(folder)
    path = args.output or folder / REPORT
    report.write(path)
    print(f"The report is in {path}")
    if args.png is not None:
        files = report.write_plots(args.png)
        print(
            f"The plots are in {args.png}: {', '.join(file.name for file in files) or 'there is nothing to draw yet'}"
        )
    return 0


def _reproduce(args: argparse.Namespace) -> int:
    from sweeps.cli.commands.reproduce import ReproduceRequest, Reproduction, print_reproduction, reproduce
    from sweeps.reproduce.original import IncompleteError

    request = ReproduceRequest(
        **_of_run(args), epochs=args.epochs, threads=args.threads, start_method=args.start_method
    )
    is_json, console = args.format == "json", _console()

    def say(text: str) -> None:
        if not is_json:
            console.print(text, markup=False, highlight=False, soft_wrap=True)

    try:
        if args.at_commit or args.in_env:
            return _reproduce_elsewhere(args, request)
        result = reproduce(request, console, say=say, is_quiet=is_json)
    except IncompleteError as error:
        result = Reproduction.impossible(request.run, error)
    if is_json:
        import json

        print(json.dumps(result.as_dict(), indent=2))
    print_reproduction(result, request, console, is_quiet=is_json)
    if result.outcome is not None and result.outcome.state == "interrupted":
        return _INTERRUPTED
    return result.verdict.exit_status


def _reproduce_elsewhere(args: argparse.Namespace, request: "ReproduceRequest") -> int:
    from sweeps.cli.commands.reproduce_isolated import Elsewhere, reproduce_elsewhere

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)  # not by rich, which would take the brackets of a patch for markup

    where = Elsewhere(at_commit=args.at_commit, in_env=args.in_env, agrees=args.yes or None)
    return reproduce_elsewhere(request, where, is_json=args.format == "json", say=say)


def _export(args: argparse.Namespace) -> int:
    from sweeps.reproduce.export import export

    original = export(args.run, args.target, uri=_uri(args), store_dir=args.store_dir)
    print(
        f"{original.name} is in {args.target}. To train it again: lightsweep reproduce {shlex.quote(str(args.target))}"
    )
    return 0


def _promote(args: argparse.Namespace) -> int:
    from sweeps.cli.commands.promote import PromoteRequest, print_promotion, promote

    request = PromoteRequest(**_of_run(args), name=args.name, alias=args.alias, needs_exact=args.require_reproduced)
    print_promotion(promote(request), request, _console())
    return 0


def _predict(args: argparse.Namespace) -> int:
    from sweeps.cli.commands.predict import Format, predict, print_predictions
    from sweeps.tracking.registry import parse_model_name

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

    from sweeps.core.paths import write_text

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
    from sweeps.cli.commands.ui import serve

    return serve(
        _uri(args),
        args.store_dir,
        args.port,
        study=args.study,
        has_dashboard=args.optuna,
        opens_browser=not args.no_browser,
    )


def _completion(args: argparse.Namespace) -> int:
    from sweeps.cli.completion import complete, script

    if args.line is None:
        print(script(args.shell))
    else:
        print("\n".join(complete(args.line, options())))
    return 0


def _of_run(args: argparse.Namespace) -> dict[str, Any]:
    """Return the part of a `RunRequest` that its commands take alike."""
    return {
        "run": args.run,
        "uri": args.uri,
        "store_dir": args.store_dir,
        "config_dir": args.config_dir,
        "allowed_modules": tuple(args.allow),
        "overrides": tuple(args.overrides),
    }


def _uri(args: argparse.Namespace) -> str:
    from sweeps.core.urls import default_uri

    return args.uri or default_uri(args.store_dir)


def _console() -> "Console":
    from sweeps.cli.console import SafeConsole

    return SafeConsole()


def _help(args: argparse.Namespace) -> int:
    from sweeps.cli.commands.help import text_on

    print(text_on(args.topic), end="")
    return 0


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "": _no_command,
    "train": _train,
    "sweep": _sweep,
    "check": _check,
    "resume": _resume,
    "enqueue": _enqueue,
    "stop": _stop,
    "compare": _compare,
    "show": _show,
    "diff": _diff,
    "report": _report,
    "reproduce": _reproduce,
    "export": _export,
    "promote": _promote,
    "predict": _predict,
    "ui": _ui,
    "completion": _completion,
    "help": _help,
}
