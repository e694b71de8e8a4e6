"""The checkpoints of a training: who may have written what is loaded, and who may write what is saved."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from sweeps import paths
from sweeps.errors import StoreError
from sweeps.ranks import Ranks
from sweeps.untrusted import opened

__all__ = ["at_hand", "best_checkpoint", "load_what_is_judged", "save_unwritable"]

_OWN_AGAIN = "If it is as it should be, make it yours alone (chown and chmod go-w); or remove it, to begin anew."


def best_checkpoint(trainer: pl.Trainer) -> Path | None:
    """Return the best checkpoint of a training, if there is one and it lies among its own."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.best_model_path and callback.dirpath:
            best = Path(callback.best_model_path)
            # A state to go on from may name any file of this machine, which would become an artifact for all to read
            if best.resolve().is_relative_to(Path(callback.dirpath).resolve()):
                return best
    return None


def load_what_is_judged(trainer: pl.Trainer) -> None:
    """Load a checkpoint that others can have written as plain data and tensors alone, and all that follows from it.

    Each rank judges the file that it has open, and loads from that: by its path, somebody could put another there.
    """
    strategy = trainer.strategy
    load_as_told, broadcast = strategy.load_checkpoint, strategy.broadcast
    has_foreign = False

    def load(checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        nonlocal has_foreign
        path = Path(checkpoint_path)
        with opened(path) as (file, is_own):
            has_foreign = has_foreign or not is_own
            weights_only = has_foreign or bool(weights_only)
            if weights_only and strategy.restore_checkpoint_after_setup:  # Lightning forgets what it was asked for
                raise StoreError(f"{path} is not loaded: others than you can have written it. {_OWN_AGAIN}")
            strategy.broadcast = _own_object  # type: ignore[method-assign]  # else rank 0's path would be every rank's
            try:
                return load_as_told(f"/dev/fd/{file.fileno()}", weights_only=weights_only)
            except pickle.UnpicklingError as error:
                if not weights_only:
                    raise
                raise StoreError(
                    f"{path} is not loaded: others than you can have written it, and it has more in it than weights, "
                    f"which might run. {_OWN_AGAIN}"
                ) from error
            finally:
                strategy.broadcast = broadcast  # type: ignore[method-assign]

    strategy.load_checkpoint = load  # type: ignore[method-assign]


def _own_object(obj: Any, src: int = 0) -> Any:
    return obj


def save_unwritable(trainer: pl.Trainer) -> None:
    """Let nobody else write to the checkpoints of this trial, whatever the user's umask is: see `opened`.

    Nor is one written through a link that others have put in its place, which Lightning does from another disk.
    """
    save_as_told = trainer.save_checkpoint

    def save(filepath: str | Path, *arguments: Any, **more: Any) -> None:
        before = os.umask(0o022)
        os.umask(before | 0o022)
        if Path(filepath).is_symlink():
            Path(filepath).unlink(missing_ok=True)
        try:
            save_as_told(filepath, *arguments, **more)
        finally:
            os.umask(before)

    trainer.save_checkpoint = save  # type: ignore[method-assign]


def at_hand(best: Path | None, ranks: Ranks, folder: Path) -> Path | None:
    """Return the best checkpoint where this rank can read it: a host without rank 0's disk gets a copy."""
    if best is None or ranks.place.num_nodes == 1:
        return best
    size, time_ns = ranks.decide(lambda: (best.stat().st_size, best.stat().st_mtime_ns))
    # A host may have a file of that name from a run of its own
    is_missing = not best.exists() or (best.stat().st_size, best.stat().st_mtime_ns) != (size, time_ns)
    if ranks.sum(torch.tensor([float(is_missing)])).item() == 0:
        return best
    content = ranks.decide(best.read_bytes)
    if not is_missing:
        return best
    copy = folder / paths.CHECKPOINTS / best.name
    copy.parent.mkdir(parents=True, exist_ok=True)
    paths.write_bytes(copy, content)
    return copy
