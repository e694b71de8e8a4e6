"""The record of a run, as it is read to train it again: all of it is data that others may have written."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeps.core import paths
from sweeps.core.errors import StoreError, UsageError
from sweeps.reproduce.original import IncompleteError, config_of, load_original
from sweeps.reproduce.trace import Segment, TraceFile
from sweeps.results.reader import open_reader
from sweeps.tracking.artifacts import local_artifacts


def segment(begins: int) -> Segment:
    return Segment(begins=begins, config="c", seed=1, provenance="here", ranks=({"threads": 1},), weights=("w",))


def load(address: str, name: str, store_dir: Path = Path("nowhere")) -> Any:
    with open_reader(address) as reader:
        return load_original(reader, address, name, store_dir)


def test_artifacts_are_read_from_a_database_and_from_a_server(filled: Any, address: str) -> None:
    with open_reader(address) as reader:
        run = reader.run(filled.ids["train3"])
        assert reader.read_artifact(run, "config.yaml") == b"model:\n  depth: 1\n"
        assert reader.read_artifact(run, "trace.jsonl") is None


def test_a_config_that_lacks_parts_is_incomplete(filled: Any, address: str) -> None:
    with pytest.raises(IncompleteError, match=r"config\.yaml has no data, system, optimizer"):
        load(address, filled.ids["train3"])


@pytest.mark.parametrize("key", ["data", "trainer", "objective"])
def test_a_config_whose_sections_are_none_is_incomplete(key: str) -> None:
    content = (
        "{data: {}, model: {}, system: {}, optimizer: {}, scheduler: {}, trainer: {}, callbacks: {}, objective: {}"
    )
    config = f"{content}, seed: 0, test: true}}".replace(f"{key}: {{}}", f"{key}: [1]")
    with pytest.raises(IncompleteError, match=f"must have keys and values in {key}"):
        config_of(config.encode())


def test_a_run_without_a_config_is_incomplete(address: str) -> None:
    with pytest.raises(IncompleteError, match=r"has no config\.yaml, neither as an artifact nor in its folder"):
        load(address, "train#4")


def test_a_run_that_does_not_exist_names_those_that_do(address: str) -> None:
    with pytest.raises(UsageError, match="There is no run 'a#77'"):
        load(address, "a#77")


PARTS = {
    **{name: {"x": 1} for name in ("data", "model", "system", "trainer", "objective")},
    "optimizer": {"lr": 0.1},
    "scheduler": None,
    "callbacks": None,
    "seed": 3,
    "test": True,
}


@pytest.fixture
def written(tmp_path: Path, empty_mlflow: Path) -> Any:
    """A store to which a test adds a run, with files in its folder or among its artifacts."""
    from run_stores import StoreWriter

    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    store = StoreWriter(uri, tmp_path / "artifacts")

    def write(files: dict[str, Any], params: Any = None, **run_tags: str) -> str:
        run_id = store.add({"val/acc": [0.5, 0.75]}, params, kind="train", folder="0000", state="complete", **run_tags)
        for name, content in files.items():
            text = content if isinstance(content, str) else json.dumps(content)
            (tmp_path / name).write_text(text)
            store.client.log_artifact(run_id, str(tmp_path / name))
        return uri

    return write


def test_what_is_recorded_is_found_again(written: Any) -> None:
    provenance = {"packages": {"torch": "2"}}
    digest = "0123456789abcdef"
    uri = written({paths.CONFIG: PARTS, f"provenance-{digest}.json": provenance}, provenance=digest, value="0.75")
    found = load(uri, "train#0")
    assert (found.name, found.config, found.provenance) == ("train#0", PARTS, provenance)
    assert found.evidence.value == 0.75
    assert found.evidence.points == {"val/acc": [(0, 0.5), (1, 0.75)]}
    assert not found.evidence.trace.is_whole


def test_what_params_contradict_was_edited(written: Any) -> None:
    assert load(written({paths.CONFIG: PARTS}, {"optimizer.lr": 0.2, "seed": 3}), "train#0").edited == ("optimizer.lr",)


@pytest.mark.parametrize(
    "text", ["[1, 2]", "{", "a: &a [*a", "!!python/object/apply:os.system ['touch /tmp/never']", "\x00", "seed: 1"]
)
def test_a_config_that_is_none_is_incomplete(written: Any, text: str) -> None:
    uri = written({paths.CONFIG: text})
    with pytest.raises(IncompleteError):
        load(uri, "train#0")


@pytest.mark.parametrize("digest", ["../../../etc/passwd", "0" * 15, "/etc/passwd", ""])
def test_a_tag_cannot_name_another_file(written: Any, digest: str) -> None:
    assert load(written({paths.CONFIG: PARTS}, provenance=digest), "train#0").provenance == {}


@pytest.mark.parametrize("provenance", ["[]", "7", "nonsense", "[" * 100_000])
def test_provenance_that_is_none_is_passed_over(written: Any, provenance: str) -> None:
    digest = "0123456789abcdef"
    uri = written({paths.CONFIG: PARTS, f"provenance-{digest}.json": provenance}, provenance=digest)
    assert load(uri, "train#0").provenance == {}


def test_a_link_among_the_artifacts_is_not_followed(written: Any, tmp_path: Path) -> None:
    uri = written({paths.CONFIG: PARTS})
    with open_reader(uri) as reader:
        run = reader.run(reader.runs_with({"lightsweep.kind": "train"})[0].run_id)
        folder = local_artifacts(run)
        assert folder is not None
        (tmp_path / "secret").write_text("canary")
        (folder / paths.TRACE).symlink_to(tmp_path / "secret")
        assert reader.read_artifact(run, paths.TRACE) is None


def test_an_export_has_what_the_record_has(written: Any, tmp_path: Path) -> None:
    from sweeps.reproduce.export import export, is_export, load_exported

    digest = "0123456789abcdef"
    diff = {"text": "diff --git a/x b/x\n"}
    packages = {"torch": "2.1+cpu", "lightsweep": "0.1.0", "ours": "1.0"}
    provenance = {
        "packages": packages,
        "local_packages": ["lightsweep", "ours"],
        "machine": {"python": "CPython 3.11.7"},
        "code": {"commit": "c0ffee", "diff": diff},
    }
    uri = written({paths.CONFIG: PARTS, f"provenance-{digest}.json": provenance}, provenance=digest, value="0.75")
    target = tmp_path / "new" / "folder"
    before = export("train#0", target, uri=uri, store_dir=tmp_path)
    again = load_exported(target)
    assert is_export(str(target)) and not is_export(str(tmp_path))
    assert (again.config, again.provenance, again.evidence) == (before.config, before.provenance, before.evidence)
    assert (again.run, again.state, again.name, again.is_stored) == (before.run, "complete", "train#0", False)
    lock = (target / "requirements.txt").read_text()
    assert lock == "# not from an index: lightsweep\n# not from an index: ours\ntorch==2.1+cpu\n"
    assert (target / "uncommitted.patch").read_text() == diff["text"]
    assert "git checkout c0ffee" in (target / "README.md").read_text()


def test_an_export_of_a_trace_that_cannot_be_read_cannot_be_read_either(written: Any, tmp_path: Path) -> None:
    from sweeps.reproduce.export import export, load_exported

    file = TraceFile(tmp_path)
    file.begin(segment(0))
    text = f'{file.path.read_text()}{{"epoch": 0, "st'
    uri = written({paths.CONFIG: PARTS, paths.TRACE: text})
    assert export("train#0", tmp_path / "new", uri=uri, store_dir=tmp_path).evidence.trace.is_damaged
    assert load_exported(tmp_path / "new").evidence.trace.is_damaged
    assert (tmp_path / "new" / paths.TRACE).read_text() == text


def test_an_export_says_what_changed_midway(written: Any, tmp_path: Path) -> None:
    from sweeps.reproduce.export import export, load_exported

    file = TraceFile(tmp_path)
    for begins, threads in ((0, 1), (2, 2)):
        file.begin(replace(segment(begins), ranks=({"threads": threads},)))
    uri = written({paths.CONFIG: PARTS, paths.TRACE: file.path.read_text()})
    export("train#0", tmp_path / "new", uri=uri, store_dir=tmp_path)
    ((begins, changes),) = load_exported(tmp_path / "new").midway
    assert (begins, changes["threads"]) == (2, ["threads 1 (from epoch 2 on 2)"])
    older = json.loads((tmp_path / "new" / "run.json").read_text())
    del older["midway"]
    (tmp_path / "new" / "run.json").write_text(json.dumps(older))
    assert load_exported(tmp_path / "new").midway == ()


@pytest.mark.parametrize("diff", [{"base64": "a"}, {"base64": "\ud800"}, {"text": "\ud800"}, {"text": 7}, {}, "x"])
def test_an_export_has_no_patch_where_the_record_has_none_that_is_one(written: Any, tmp_path: Path, diff: Any) -> None:
    from sweeps.reproduce.export import export, load_exported

    digest = "0123456789abcdef"
    provenance = {"code": {"commit": "\ud800", "diff": diff}, "machine": {"python": "\ud800"}}
    uri = written({paths.CONFIG: PARTS, f"provenance-{digest}.json": provenance}, provenance=digest)
    before = export("train#0", tmp_path / "new", uri=uri, store_dir=tmp_path)
    assert not (tmp_path / "new" / "uncommitted.patch").exists()
    assert load_exported(tmp_path / "new").provenance == before.provenance == provenance


def test_an_export_has_no_option_for_pip(written: Any, tmp_path: Path) -> None:
    from sweeps.reproduce.export import export

    digest = "0123456789abcdef"
    provenance = {"packages": {"--index-url=https://example.org/": "1"}, "machine": {"python": "CPython 3.11.7"}}
    uri = written({paths.CONFIG: PARTS, f"provenance-{digest}.json": provenance}, provenance=digest, value="0.75")
    with pytest.raises(StoreError, match="names with versions"):
        export("train#0", tmp_path / "new", uri=uri, store_dir=tmp_path)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"points": 7}', '{"points": {}, "run": {"tags": {}, "x": 1}}'])
def test_an_export_that_is_none_is_incomplete(tmp_path: Path, record: str) -> None:
    from sweeps.reproduce.export import load_exported

    (tmp_path / "run.json").write_text(record)
    with pytest.raises(IncompleteError):
        load_exported(tmp_path)
