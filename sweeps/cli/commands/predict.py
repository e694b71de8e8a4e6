"""`lightsweep predict`: say what a registered model makes of the samples in a file."""

import argparse
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, TextIO

from sweeps.cli.arguments import uri_of
from sweeps.cli.tables import print_csv
from sweeps.config.composer import ALLOWED_MODULES, Composer
from sweeps.config.quoting import quote
from sweeps.core import paths
from sweeps.core.errors import ConfigError, StoreError
from sweeps.core.text import finite, number, plain
from sweeps.driver.session import python_path
from sweeps.serving.model import DATA, MODEL, WEIGHTS, ServedModel, read_model
from sweeps.serving.names import find_registered
from sweeps.serving.samples import read_samples
from sweeps.tracking.artifacts import download_artifacts
from sweeps.tracking.registry import ModelName, Registered

if TYPE_CHECKING:
    from sweeps.serving.predictor import Predictions

__all__ = ["Format", "Predicted", "open_model", "predict", "print_predictions", "run"]

Format = Literal["table", "csv", "json"]

_FILES = {f"data/{DATA}/{name}" for name in (MODEL, paths.CONFIG, WEIGHTS)}
_INSTEAD = "A model of another kind holds code that would be run: if you trust it, `mlflow models predict` does that."


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """What a model has said of the samples of a file."""

    version: Registered
    model: ServedModel
    predictions: "Predictions"


def predict(
    name: ModelName,
    file: Path,
    *,
    uri: str,
    config_dir: Path | None = None,
    allowed_modules: Sequence[str] = (),
) -> Predicted:
    """Predict for the samples of a file.

    Args:
        name: The registered model.
        file: See `sample_files`.
        uri: The store's address.
        config_dir: The user's own modules; never taken from the model.
        allowed_modules: Likewise what a `_target_` may name.

    Raises:
        UsageError: There is no such model or no such file, or its samples are not what the model takes.
        StoreError: The model was not made by `lightsweep promote`, or is damaged.
        ConfigError: The model is of modules that are not allowed.
    """
    with open_model(name, uri) as (version, folder):
        model = read_model(folder)
        samples = read_samples(file, model.sample)
        allowed: tuple[str, ...] = (*ALLOWED_MODULES, *allowed_modules)
        if config_dir is not None or allowed_modules:
            composer = Composer("train", [f"allowed_modules={quote(list(allowed_modules))}"], config_dir)
            allowed = composer.allowed_modules
            sys.path[:0] = [folder for folder in python_path(composer) if folder not in sys.path]
        from sweeps.serving.predictor import load_predictor  # torch, which no refusal above needs

        try:
            predictor = load_predictor(folder, allowed=allowed)
        except ConfigError as error:
            hint = " Modules of your own are found with --config-dir DIR or --allow MODULE."
            raise ConfigError(f"{error}{hint if 'allowed module' in str(error) else ''}") from error
        return Predicted(version=version, model=model, predictions=predictor.predict(samples))


@contextmanager
def open_model(name: ModelName, uri: str) -> Iterator[tuple[Registered, Path]]:
    """Copy the data of a registered model into a folder, for as long as it is used; its code is left where it is.

    Raises:
        UsageError: There is no such model.
        StoreError: It was not made by `lightsweep promote`, or its files cannot be read.
    """
    version = find_registered(uri, name)
    where = f"{version.name}/{version.version}"
    if not version.artifact_uri:
        raise StoreError(f"{where} was not registered by `lightsweep promote`. {_INSTEAD}")
    with TemporaryDirectory() as aside:
        copies = download_artifacts(version, Path(aside) / "model", uri=uri, wanted=lambda path: path in _FILES)
        if len(copies) != len(_FILES):
            there = ", ".join(copy.name for copy in copies) or "none of them"
            wanted = ", ".join(sorted(Path(path).name for path in _FILES))
            raise StoreError(
                f"{where} was not registered by `lightsweep promote`, or has lost files: of {wanted} it has {there}. "
                f"{_INSTEAD}"
            )
        yield version, Path(aside) / "model" / "data" / DATA


# --- printing ------------------------------------------------------------------------------------------


def print_predictions(found: Predicted, form: Format, *, probabilities: bool, out: TextIO) -> None:
    """Print predictions.

    Args:
        found: They, and the model.
        form: `table` for people; CSV; or `json`, which has the same records as MLflow's server.
        probabilities: Whether to also print those of all classes.
        out: Where they go.
    """
    records = found.predictions.records(probabilities=probabilities)
    if form == "json":
        out.write(json.dumps(finite(records), indent=1) + "\n")
        return
    header, rows = _columns(found.predictions.classes, records)
    if form == "csv":
        print_csv(header, rows, out)
        return
    cells = [
        [plain(name) for name in header],
        *([_cell(*pair) for pair in zip(header, row, strict=True)] for row in rows),
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        out.write("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) + "\n")


def _cell(name: str, value: Any) -> str:
    return f"{value:.4f}" if name.startswith("p") else number(value)


def _columns(classes: Sequence[str], records: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Return a header and rows, which begin with the number of the sample; probabilities are columns of their own."""
    names = [name for name in records[0] if name != "probabilities"]
    more = [f"p({name})" for name in classes] if "probabilities" in records[0] else []
    rows = [
        [at, *(record[name] for name in names), *record.get("probabilities", ())] for at, record in enumerate(records)
    ]
    return ["sample", *names, *more], rows


def run(args: argparse.Namespace) -> int:
    """Predict samples by a registered model, and print or write the predictions."""
    from sweeps.tracking.registry import parse_model_name

    found = predict(
        parse_model_name(args.model),
        args.file,
        uri=uri_of(args),
        config_dir=args.config_dir,
        allowed_modules=tuple(args.allow),
    )
    if args.output is None:
        shown: Format = "table" if args.format is None else args.format
        print_predictions(found, shown, probabilities=args.probabilities, out=sys.stdout)
        return 0
    by_ending: Format = "json" if args.output.suffix.lower() == ".json" else "csv"
    form = by_ending if args.format is None else args.format
    out = io.StringIO()
    print_predictions(found, form, probabilities=args.probabilities, out=out)
    paths.write_text(args.output, out.getvalue())
    print(
        f"{len(found.predictions.values)} predictions of {found.version.name}/{found.version.version} in {args.output}"
    )
    return 0
