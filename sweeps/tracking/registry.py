"""MLflow's model registry: write a model, register it, and find it again by its name.

A model is named `NAME@alias`, `NAME/3` for a version, or `NAME` for its newest version.
"""

import logging
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import sqlalchemy as sa
from numpy.typing import NDArray

from sweeps.core.errors import StoreError, UsageError, did_you_mean
from sweeps.core.text import plain, some_of
from sweeps.core.urls import hide_password, with_installed_driver
from sweeps.tracking import tags
from sweeps.tracking.artifacts import repository
from sweeps.tracking.database import require_store
from sweeps.tracking.runs import is_server
from sweeps.tracking.server import give_up_soon

__all__ = [
    "HOW",
    "ModelName",
    "NewVersion",
    "Registered",
    "Registry",
    "chosen_version",
    "model_id_of",
    "parse_model_name",
    "require_alias",
    "require_name",
]

HOW = "A registered model is named as NAME@ALIAS, as NAME/VERSION, or as NAME for its newest version."

_NAME = re.compile(r"[^\W_][\w. -]{0,199}")
_ALIAS = re.compile(r"\w[\w-]{0,254}", re.ASCII)
_SOURCE = re.compile(r"models:/(m-[0-9a-f]{32})")
_MAX_BATCH = 1000  # metrics of one log_batch
_MAX_DESCRIPTION = 5000
_MAX_TAG = 5000
_RESERVED = re.compile(r"latest|v\d+", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelName:
    """A registered model as it is typed: by an alias, by a version, or neither, which means the newest."""

    name: str
    alias: str | None = None
    version: int | None = None

    def __str__(self) -> str:
        """Return it as it is typed."""
        if self.alias is not None:
            return f"{self.name}@{self.alias}"
        return self.name if self.version is None else f"{self.name}/{self.version}"


def parse_model_name(text: str) -> ModelName:
    """Take a name apart; `models:/NAME@ALIAS`, as MLflow writes it, is the same.

    Raises:
        UsageError: It is not such a name.
    """
    bare = text.removeprefix("models:/")
    name, at, alias = bare.rpartition("@")
    if at:
        if not name or not _ALIAS.fullmatch(alias):
            raise UsageError(f"{text!r} names no registered model. {HOW}")
        return ModelName(name=name, alias=alias)
    name, slash, version = bare.rpartition("/")
    if slash:
        if not name or not re.fullmatch(r"[1-9]\d{0,8}", version, re.ASCII):
            raise UsageError(f"{text!r} names no registered model: after the / there is its version. {HOW}")
        return ModelName(name=name, version=int(version))
    if not bare:
        raise UsageError(f"The name of a registered model is missing. {HOW}")
    return ModelName(name=bare)


def chosen_version(
    wanted: ModelName, names: Collection[str], aliases: Mapping[str, int], versions: Collection[int]
) -> int:
    """Return the number of the version that is meant.

    Args:
        wanted: As it was typed.
        names: All registered models of the store.
        aliases: Those of the model, if it is one of these.
        versions: Likewise its versions.

    Raises:
        UsageError: There is none; names what there is.
    """
    if wanted.name not in names:
        hint = did_you_mean(wanted.name, names) or "The store has none yet: see `lightsweep promote --help`."
        raise UsageError(f"There is no registered model {wanted.name!r}. {hint}")
    if wanted.alias is not None and wanted.alias not in aliases:
        hint = did_you_mean(wanted.alias, aliases) or f"It has none. {HOW}"
        raise UsageError(f"The registered model {wanted.name!r} has no alias {wanted.alias!r}. {hint}")
    if not versions:
        raise UsageError(f"The registered model {wanted.name!r} has no version. See `lightsweep promote --help`.")
    number = aliases[wanted.alias] if wanted.alias is not None else wanted.version or max(versions)
    if number not in versions:
        there = some_of([str(one) for one in sorted(versions)], 10)
        raise UsageError(f"The registered model {wanted.name!r} has no version {number}. It has {there}.")
    return number


def require_name(name: str) -> None:
    """Refuse a name for a new registered model that MLflow, a shell or `NAME@ALIAS` would take for something else.

    Raises:
        UsageError: It is such a name.
    """
    if not _NAME.fullmatch(name) or name != name.strip():
        raise UsageError(
            f"--name must begin with a letter or a digit, with letters, digits, '_', '.', '-' and blanks after it, "
            f"but got {name!r}."
        )


def require_alias(alias: str) -> None:
    """Refuse an alias that MLflow does not take.

    Raises:
        UsageError: It is such an alias.
    """
    if not _ALIAS.fullmatch(alias) or _RESERVED.fullmatch(alias):
        raise UsageError(
            f"--alias must be of letters, digits, '_' and '-', and neither 'latest' nor 'v1', which MLflow keeps for "
            f"itself, but got {alias!r}."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVersion:
    """What becomes a version of a registered model.

    Attributes:
        name: The registered model's name.
        run_id: The run that trained it.
        step: The step of its checkpoint.
        data: The folder with its data.
        loader_module: The module that MLflow's server loads it by.
        code: Files and folders of Python code that the server needs.
        requirements: Packages that it needs, as pip takes them.
        examples: Some samples that it takes.
        classes: Whether it tells classes and probabilities; else values.
        num_values: How many values it gives for a sample.
        description: In Markdown.
        version_tags: Tags of the version.
    """

    name: str
    run_id: str
    step: int
    data: Path
    loader_module: str
    code: Sequence[Path]
    requirements: Sequence[str]
    examples: NDArray[Any]
    classes: bool
    num_values: int
    description: str
    version_tags: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A version of a registered model.

    Attributes:
        name: The registered model's name.
        version: Its number.
        model_id: MLflow's id of the model that it is, `m-...`; empty if it is not one.
        artifact_uri: Where its artifacts are.
        version_tags: Its tags.
        aliases: Its aliases.
    """

    name: str
    version: int
    model_id: str = ""
    artifact_uri: str = ""
    version_tags: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def run_id(self) -> str:
        """The id by which `artifacts` knows them."""
        return self.model_id


def model_id_of(source: str) -> str:
    """Return the id of MLflow's model that a version was made from; empty if it was made from something else."""
    found = _SOURCE.fullmatch(source)
    return found[1] if found else ""


class Registry:
    """The registered models of a store.

    Args:
        uri: The address of the database or the server.

    Raises:
        StoreError: The store cannot be opened, or is not MLflow's.
    """

    def __init__(self, uri: str) -> None:
        if not is_server(uri):
            require_store(uri)
        self._uri = uri = with_installed_driver(uri)
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        with self._told():
            import mlflow
            from mlflow.tracking import MlflowClient

            for name in ("mlflow", "alembic", "urllib3"):
                logging.getLogger(name).setLevel(logging.ERROR)
            give_up_soon()
            mlflow.set_tracking_uri(uri)  # the registry asks there for the model that a version is made from
            self._client = MlflowClient(uri, registry_uri=uri)

    def find_version(self, name: str, version_tags: Mapping[str, str]) -> Registered | None:
        """Return the newest version of a model that has these tags."""
        with self._told():
            same = [
                found
                for found in self._versions(name)
                if all(found.tags.get(key) == value for key, value in version_tags.items())
            ]
        newest = max(same, key=lambda found: int(found.version), default=None)
        return None if newest is None else Registered(name=name, version=int(newest.version))

    def register(self, new: NewVersion) -> Registered:
        """Write a model, and make it a version of a registered one, which is created if there is none.

        Its metrics and params are those of its run.
        """
        from mlflow.entities import LoggedModelOutput, Metric
        from mlflow.exceptions import MlflowException

        with self._told(), TemporaryDirectory() as aside:
            run = self._client.get_run(new.run_id)
            logged = self._client.create_logged_model(
                run.info.experiment_id,
                name=re.sub(r"[^\w-]+", "-", new.name),
                source_run_id=new.run_id,
                tags={key: value[:_MAX_TAG] for key, value in new.version_tags.items()},
                params=run.data.params,
            )
            model_id = str(logged.model_id)
            try:
                folder = Path(aside) / "model"
                _write(folder, new, model_id)
                place = Registered(name=new.name, version=0, model_id=model_id, artifact_uri=logged.artifact_location)
                repository(place, self._uri).log_artifacts(str(folder))
                self._client.finalize_logged_model(model_id, "READY")
            except BaseException:
                self._client.finalize_logged_model(model_id, "FAILED")
                raise
            self._client.log_outputs(new.run_id, [LoggedModelOutput(model_id, step=new.step)])
            # The points that the run has already, so that the model also has them
            metrics = [
                Metric(point.key, point.value, point.timestamp, point.step, model_id=model_id, run_id=new.run_id)
                for point in run.data._metric_objs
                if tags.judged_by(point.key) is None  # which only serves for sorting runs
            ]
            for start in range(0, len(metrics), _MAX_BATCH):
                self._client.log_batch(new.run_id, metrics=metrics[start : start + _MAX_BATCH], synchronous=True)
            if new.name not in self._names():
                try:
                    self._client.create_registered_model(new.name)
                except MlflowException as error:
                    if error.error_code != "RESOURCE_ALREADY_EXISTS":  # by somebody else, meanwhile
                        raise
            made = self._client.create_model_version(
                new.name,
                source=f"models:/{model_id}",
                run_id=new.run_id,
                tags={key: value[:_MAX_TAG] for key, value in new.version_tags.items()},
                description=new.description[:_MAX_DESCRIPTION],
                model_id=model_id,
            )
        return Registered(name=new.name, version=int(made.version))

    def describe(self, version: Registered, description: str, version_tags: Mapping[str, str]) -> None:
        """Replace the description of a version, and set tags."""
        with self._told():
            self._client.update_model_version(version.name, str(version.version), description[:_MAX_DESCRIPTION])
            for key, value in version_tags.items():
                self._client.set_model_version_tag(version.name, str(version.version), key, value[:_MAX_TAG])

    def set_alias(self, version: Registered, alias: str) -> int | None:
        """Assign an alias to a version; return the number of the version that had it before."""
        with self._told():
            before = self._client.get_registered_model(version.name).aliases.get(alias)
            self._client.set_registered_model_alias(version.name, alias, str(version.version))
        return None if before is None else int(before)

    def tag_run(self, run_id: str, version: Registered) -> None:
        """Tag the run with its model version."""
        with self._told():
            self._client.set_tag(run_id, tags.PROMOTED, f"{version.name}/{version.version}")

    def find(self, wanted: ModelName) -> Registered:
        """Return the version that is called so.

        Raises:
            UsageError: There is none; names what there is.
            StoreError: Its artifacts are where a record must not lead.
        """
        with self._told():
            names = self._names()
            exists = wanted.name in names
            known = self._client.get_registered_model(wanted.name).aliases if exists else {}
            aliases = {str(alias): int(version) for alias, version in known.items()}
            versions = {int(found.version): found for found in self._versions(wanted.name)}
            number = chosen_version(wanted, names, aliases, versions)
            model_id = model_id_of(str(versions[number].source or ""))
            location = str(self._client.get_logged_model(model_id).artifact_location) if model_id else ""
        return Registered(
            name=wanted.name,
            version=number,
            model_id=model_id,
            artifact_uri=location,
            version_tags=dict(versions[number].tags),
            aliases=tuple(sorted(alias for alias, version in aliases.items() if version == number)),
        )

    def _names(self) -> list[str]:
        return [str(found.name) for found in _pages(self._client.search_registered_models)]

    def _versions(self, name: str) -> list[Any]:
        # MLflow's filters know no escape for a quote, so that it stands as any character and is compared here.
        pattern = re.sub(r"['\\]", "_", name)
        found = _pages(self._client.search_model_versions, filter_string=f"name like '{pattern}'")
        return [version for version in found if version.name == name]

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Translate what MLflow and databases raise."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except (MlflowException, sa.exc.SQLAlchemyError, OSError) as error:
            text = plain(" ".join(str(error).split()))[:300]
            raise StoreError(f"The registry of {hide_password(self._uri)} does not take this: {text}") from error


def _write(folder: Path, new: NewVersion, model_id: str) -> None:
    """Write a model as MLflow reads it."""
    import mlflow.pyfunc
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    if new.classes:
        outputs = [ColSpec(DataType.string, "class"), ColSpec(DataType.double, "probability")]
    else:
        names = ["value"] if new.num_values == 1 else [f"value{at}" for at in range(new.num_values)]
        outputs = [ColSpec(DataType.double, name) for name in names]
    params = ParamSchema([ParamSpec("probabilities", DataType.boolean, False)]) if new.classes else None
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(new.examples.dtype), (-1, *new.examples.shape[1:]))]),
        outputs=Schema(outputs),
        params=params,
    )
    mlflow.pyfunc.save_model(
        str(folder),
        loader_module=new.loader_module,
        data_path=str(new.data),
        code_paths=[str(path) for path in new.code],
        pip_requirements=list(new.requirements),
        signature=signature,
        input_example=new.examples,
        mlflow_model=Model(run_id=new.run_id, model_id=model_id, model_uuid=model_id),
    )


def _pages(search: Any, **arguments: Any) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = search(**arguments, page_token=token)
        found += page
        token = page.token
        if not token:
            return found
