"""Package a run as a servable model: its best checkpoint, samples of its data, and its predictions for them."""

import hashlib
import math
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from sweeps.config.composer import Config, to_yaml
from sweeps.core import paths
from sweeps.core.errors import ConfigError, StoreError
from sweeps.core.safe_yaml import opened
from sweeps.core.text import number, plain
from sweeps.reproduce.original import Original
from sweeps.serving.model import DTYPES, MODEL, WEIGHTS, Output, SampleSpec, ServedModel, write_model
from sweeps.serving.predictor import Predictor, load_predictor, restored, transform_of
from sweeps.worker.building import build_data
from sweeps.worker.preflight import loader_of
from sweeps.worker.seeding import seed_streams
from sweeps.worker.tracer import weights_hash

__all__ = [
    "Checkpoint",
    "Prepared",
    "best_checkpoint",
    "content_digest",
    "kept_content",
    "output_kind",
    "prepare",
    "read_checkpoint",
    "sample_data",
]

_NUM_EXAMPLES = 4
_OF_MODEL = ("state_dict", "epoch", "global_step", "pytorch-lightning_version")
_OF_TRAINING = ("callbacks", "loops", "optimizer_states", "lr_schedulers", "hyper_parameters")
_CONTAINERS: Mapping[str, type] = {"collections.defaultdict": dict, "collections.deque": list}
_WHOLE = ("SingleDeviceStrategy", "DDPStrategy")  # each rank hashes all weights, as the checkpoint has them


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A model in a folder, ready to be registered.

    Attributes:
        model: What it is.
        examples: Some samples of the run's data.
        num_values: How many numbers it gives for a sample.
        is_traced: Whether the trace of the run has just these weights, of whatever epoch; None where it cannot tell.
        notes: What there is to say of the choice of the checkpoint.
    """

    model: ServedModel
    examples: NDArray[Any]
    num_values: int
    is_traced: bool | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The content of a checkpoint, read as plain data and tensors, with the name of its file."""

    name: str
    content: Mapping[str, Any]

    def score(self, metric: str) -> float | None:
        """Return the value of a metric that the checkpoint was saved for; not that of another which lay beside it."""
        callbacks = self.content.get("callbacks")
        for key, state in callbacks.items() if isinstance(callbacks, Mapping) else ():
            if str(key).startswith("ModelCheckpoint") and isinstance(state, Mapping) and state.get("monitor") == metric:
                score, saved = state.get("current_score"), state.get("best_k_models")
                if isinstance(saved, Mapping) and saved and self.name not in {Path(str(path)).name for path in saved}:
                    continue
                if isinstance(score, int | float) or (isinstance(score, Tensor) and score.numel() == 1):
                    return float(score) if math.isfinite(score) else None
        return None


def prepare(
    original: Original,
    config: Config,
    files: Sequence[Path],
    folder: Path,
    *,
    allowed: Sequence[str],
    modules: Sequence[str],
) -> Prepared:
    """Write the model of a run into a folder.

    Args:
        original: The run.
        config: Its config, with the folders of this machine.
        files: The checkpoints of the run, which others may have written: nothing in them is run.
        folder: Where the model goes.
        allowed: The modules that a `_target_` may come from.
        modules: Those among them that are the user's own.

    Raises:
        StoreError: No checkpoint can be read, or it does not fit the config.
        ConfigError: The config cannot be built, or gives what cannot be served.
    """
    best, notes = best_checkpoint([read_checkpoint(path) for path in sorted(files)], original, config)
    try:
        found = restored(config, best.content, allowed=allowed)
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        text = " ".join(str(error).split())[:300]
        raise StoreError(f"The checkpoint {best.name} does not fit the record's {paths.CONFIG}: {text}") from error
    module, weights = found.module, weights_hash(found.module, found.names)
    sample, examples, classes = sample_data(config, allowed)
    outputs = _outputs(
        Predictor(
            _described(original, best, weights, sample, modules, setup=found.setup),
            module,
            transform_of(sample.transform, allowed=allowed),
        ),
        examples,
    )
    kind, classes = output_kind(outputs, classes, config)
    model = _described(original, best, weights, sample, modules, setup=found.setup, output=kind, classes=classes)
    folder.mkdir(parents=True)
    torch.save(kept_content(best, module), folder / WEIGHTS)
    paths.write_text(folder / paths.CONFIG, to_yaml(original.config))
    write_model(folder, model)
    _require_readable(folder, outputs, examples, allowed)
    return Prepared(
        model=model,
        examples=examples,
        num_values=outputs.shape[1],
        is_traced=_is_traced(original, model),
        notes=tuple(notes),
    )


def content_digest(folder: Path, code: Sequence[Path], requirements: Sequence[str]) -> str:
    """Return a hash of all that decides what a registered model does: data, code and packages.

    The weights are in it by their own hash: the bytes of their file depend on the version of torch.
    """
    digest = hashlib.sha256()
    for name in (MODEL, paths.CONFIG):
        digest.update((folder / name).read_bytes())
    for top in code:
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(top.parent)}\n".encode())
                digest.update(path.read_bytes())
    digest.update("\n".join(requirements).encode())
    return digest.hexdigest()


# --- the checkpoint ------------------------------------------------------------------------------------


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and run nothing of it, whoever has written it.

    A training may leave any object in it. What is neither plain data nor a tensor is replaced by a thing that does
    nothing: a model is weights, and what is needed of the rest, the best metric and the epoch, is plain.
    """
    try:
        with opened(path) as (file, _):
            others = torch.serialization.get_unsafe_globals_in_checkpoint(file)
            file.seek(0)
            with torch.serialization.safe_globals([(_stand_in(name), name) for name in others]):
                content = torch.load(file, map_location="cpu", weights_only=True)
        if not isinstance(content, dict) or not isinstance(content.get("state_dict"), Mapping):
            raise ValueError("it is not a checkpoint of Lightning's")
        for key in ("epoch", "global_step"):
            if not isinstance(content.get(key, 0), int):
                raise ValueError(f"its {key} is not a whole number")
    except pickle.UnpicklingError as error:
        raise StoreError(
            f"The checkpoint {path.name} is not loaded: it has more in it than weights, which might run. Keep such "
            "objects out of it, by save_hyperparameters(ignore=[...]) or in what a callback saves."
        ) from error
    except (OSError, RuntimeError, ValueError, TypeError, EOFError) as error:
        text = " ".join(str(error).split())[:200]
        raise StoreError(f"The checkpoint {path.name} cannot be read: {text}") from error
    return Checkpoint(name=path.name, content=content)


def _stand_in(name: str) -> Callable[..., Any]:
    """Return what is called in place of a class or function that a pickle names."""
    if name in _CONTAINERS:  # pickle fills what the call has given
        return lambda *arguments, kind=_CONTAINERS[name]: kind()

    class StandIn:
        def __new__(cls, *arguments: Any) -> "StandIn":
            return object.__new__(cls)

        def __init__(self, *arguments: Any) -> None: ...

        def __setstate__(self, state: Any) -> None: ...

        def __reduce__(self) -> Any:
            raise StoreError(
                f"The checkpoint holds {plain(name)[:200]}, which the module reads (on_load_checkpoint): a model holds "
                "plain data and tensors alone."
            )

    return StandIn


def best_checkpoint(found: Sequence[Checkpoint], original: Original, config: Config) -> tuple[Checkpoint, list[str]]:
    """Choose the checkpoint that was best by the objective; without its value the last one."""
    metric, is_maximized = config["objective"]["metric"], config["objective"]["direction"] == "maximize"
    scored = [(score, one) for one in found if (score := one.score(metric)) is not None]
    if scored:
        score, best = max(scored, key=lambda pair: pair[0] if is_maximized else -pair[0])
        value = original.evidence.value
        if value is not None and not math.isclose(score, value, rel_tol=1e-5, abs_tol=1e-8):
            return best, [f"The checkpoint was saved for {metric} {number(score)}, and the run has {number(value)}."]
        return best, []
    best = max(found, key=lambda one: int(one.content.get("global_step") or 0))
    several = f" of {len(found)}" if len(found) > 1 else ""
    return best, [f"{best.name} is the last checkpoint{several}: none was saved for {metric}."]


def kept_content(checkpoint: Checkpoint, module: pl.LightningModule) -> dict[str, Any]:
    """Return what of a checkpoint goes into the model: weights, and what the module itself has put there.

    Not what training or the data module has: among hyperparameters there may be secrets.
    """
    reads_more = type(module).on_load_checkpoint is not pl.LightningModule.on_load_checkpoint
    own = [
        key
        for key in checkpoint.content
        if reads_more and key not in _OF_TRAINING and not key.startswith(("hparams_", "datamodule_"))
    ]
    return {key: checkpoint.content[key] for key in (*_OF_MODEL, *own) if key in checkpoint.content}


def _is_traced(original: Original, model: ServedModel) -> bool | None:
    """Tell whether the run's trace has the weights of the checkpoint; which epoch they are of only the file says."""
    trace = original.evidence.trace
    ranks = [rank for segment in trace.segments for rank in segment.ranks]
    if not ranks or not trace.epochs or any(rank.get("strategy") not in _WHOLE for rank in ranks):
        return None
    return any(model.weights in epoch.weights for epoch in trace.epochs)


# --- the data ------------------------------------------------------------------------------------------


def sample_data(config: Config, allowed: Sequence[str]) -> tuple[SampleSpec, NDArray[Any], tuple[str, ...]]:
    """Return what a sample is, some of them, and the names of the classes if the data has any."""
    seed_streams(config["seed"])
    data: Any = build_data(config, allowed=allowed)
    if data is None:
        raise ConfigError(
            "The run has data=null, so that there are no samples to give the model as its example: put the module's "
            "loaders into a LightningDataModule, and train it with that."
        )
    try:
        data.prepare_data()
        data.setup("fit")
        raw = data.raw_input(_NUM_EXAMPLES) if callable(getattr(data, "raw_input", None)) else None
        samples = _first_inputs(data) if raw is None else _told_samples(raw)
    except (OSError, ImportError, RuntimeError, ValueError) as error:
        text = " ".join(str(error).split())[:300]
        raise StoreError(
            f"The data, of which a model is given some samples as its example, cannot be had: {text}"
        ) from error
    raw = raw or {}
    kind = str(samples.dtype).removeprefix("torch.")
    if kind not in DTYPES:
        raise ConfigError(f"Samples that are served must be one of {', '.join(DTYPES)}, but are {kind}.")
    examples: NDArray[Any] = samples.detach().cpu().numpy()
    names = raw.get("class_names") or getattr(data, "class_names", None)
    spec = SampleSpec(
        shape=tuple(examples.shape[1:]),
        dtype=examples.dtype.name,
        least=raw.get("least"),
        greatest=raw.get("greatest"),
        transform=raw.get("transform"),
    )
    return spec, examples, tuple(map(str, names)) if isinstance(names, list | tuple) else ()


def _told_samples(raw: Any) -> Tensor:
    samples = raw.get("samples") if isinstance(raw, Mapping) else None
    if not isinstance(samples, Tensor) or not samples.ndim or not len(samples):
        raise ConfigError(
            "data: raw_input must return a mapping with `samples`, a tensor of some, but returns "
            f"{sorted(map(str, raw)) if isinstance(raw, Mapping) else type(raw).__name__}."
        )
    return samples


def _first_inputs(data: Any) -> Tensor:
    """Return the inputs of some validation samples, or of training samples, as the net reads them."""
    for split in ("val", "train"):
        loader = loader_of(data, split)
        for batch in _batches(loader):
            inputs = batch[0] if isinstance(batch, list | tuple) and batch else batch
            if isinstance(inputs, Tensor) and inputs.ndim and len(inputs):
                return inputs[:_NUM_EXAMPLES]
            raise ConfigError(
                "A model is served for one tensor of samples, the first part of each batch; here that "
                f"is a {type(inputs).__name__}."
            )
    raise ConfigError("The data has no batch to take an example from.")


def _batches(loader: Any) -> Iterator[Any]:
    first = loader[0] if isinstance(loader, list | tuple) and loader else loader
    if first is not None and hasattr(first, "__iter__"):
        yield from first


# --- what it gives -------------------------------------------------------------------------------------


def _outputs(predictor: Predictor, examples: NDArray[Any]) -> Tensor:
    with torch.inference_mode():
        try:
            found = predictor.outputs(torch.from_numpy(examples))
        except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
            text = " ".join(str(error).split())[:300]
            raise ConfigError(f"The module cannot be called with samples of its data alone: {text}") from error
    if found.ndim != 2 or len(found) != len(examples):
        raise ConfigError(
            f"A model that is served must give a row of numbers for each sample, but gives {tuple(found.shape)} for "
            f"{len(examples)} samples."
        )
    return found.double()


def output_kind(outputs: Tensor, names: tuple[str, ...], config: Config) -> tuple[Output, tuple[str, ...]]:
    """Tell whether rows of numbers are scores of classes, their probabilities, or neither, and name the classes."""
    count = outputs.shape[1]
    told = (config["data"] or {}).get("num_classes")
    if count < 2 or count not in (len(names), told):
        return "values", ()
    classes = names if len(names) == count else tuple(map(str, range(count)))
    sums = outputs.sum(dim=1)
    are_probabilities = bool((outputs >= 0).all()) and bool(torch.isclose(sums, torch.ones_like(sums), atol=1e-4).all())
    return ("probabilities" if are_probabilities else "scores"), classes


def _described(
    original: Original,
    best: Checkpoint,
    weights: str,
    sample: SampleSpec,
    modules: Sequence[str],
    *,
    setup: str,
    output: Output = "values",
    classes: tuple[str, ...] = (),
) -> ServedModel:
    return ServedModel(
        run_id=original.run.run_id,
        label=original.name,
        checkpoint=best.name,
        epoch=int(best.content.get("epoch", -1)),
        step=int(best.content.get("global_step", -1)),
        weights=weights,
        sample=sample,
        output=output,
        classes=classes,
        modules=tuple(modules),
        setup=setup,
        metrics=dict(original.run.metrics),
    )


def _require_readable(folder: Path, outputs: Tensor, examples: NDArray[Any], allowed: Sequence[str]) -> None:
    """Read the model back and compare what it gives: what is registered is what was looked at."""
    try:
        predictor = load_predictor(folder, allowed=allowed)
    except StoreError as error:
        raise StoreError(f"The checkpoint holds what cannot be read back as weights alone: {error}") from error
    if not torch.equal(_outputs(predictor, examples), outputs):
        raise StoreError("The model gives other numbers once it is read back: its weights are not all of its state.")
