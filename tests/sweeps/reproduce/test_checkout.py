"""What is taken of a record of code, what git says of it, and how it is written out: nothing leads elsewhere."""

import base64
import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.core.errors import LightsweepError, StoreError, UsageError
from sweeps.reproduce.checkout import RecordedCode, checked_out, look_at, recorded_code, repository_here
from sweeps.reproduce.original import IncompleteError
from sweeps.reproduce.provenance import capture

COMMIT = "a" * 40


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=me", "-c", "user.email=me@example.org")
    return subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def record(patch: str = "", files: dict[str, str] | None = None, **changed: Any) -> dict[str, Any]:
    """Return what a driver captures, with these untracked files."""
    kept = {name: {"text": text, "sha256": sha256(text)} for name, text in (files or {}).items()}
    return bare(**{"diff": {"text": patch}, "diff_sha256": sha256(patch), "files": kept} | changed)


def bare(**changed: Any) -> dict[str, Any]:
    code = {
        "commit": COMMIT,
        "root": "/home/me/proj",
        "folder": ".",
        "diff": {"text": ""},
        "diff_sha256": sha256(""),
        "files": {},
    }
    return {"code": code | changed}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    (folder / "sub").mkdir(parents=True)
    git(folder, "init", "-q")
    (folder / "net.py").write_text("WIDTH = 8\n")
    (folder / "sub" / "other.py").write_text("DEPTH = 2\n")
    (folder / "out").symlink_to(tmp_path / "outside")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


def of(repository: Path, patch: str = "", files: dict[str, str] | None = None, **changed: Any) -> RecordedCode:
    found = record(patch, files, **{"commit": git(repository, "rev-parse", "HEAD").strip(), **changed})
    return recorded_code(found, repository)


def state(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, git's own included, as far as git does not write the time into it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


# --- the record ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "commit", ["--upload-pack=touch harm", "HEAD", "a" * 39, "a" * 40 + "\n", ["a" * 40], "A" * 40]
)
def test_a_commit_that_is_no_hash_is_refused(commit: Any) -> None:
    with pytest.raises(StoreError, match="hexadecimal"):
        recorded_code(record(commit=commit), Path("/"))


@pytest.mark.parametrize("root", ["proj", "/", "//proj", "/home/../etc", "/home/me/", "/a\nb", None, "/" + "a" * 2000])
def test_a_root_that_is_no_whole_path_is_refused(root: Any) -> None:
    with pytest.raises(StoreError, match="whole path"):
        recorded_code(record(root=root), Path("/"))


@pytest.mark.parametrize(
    "name",
    [
        *("../x.py", "/etc/x.py", "a/../../x.py", ".git/hooks/x.py", "sub/.GIT/x.py", "sub/.git. /x.py", "git~1/x.py"),
        *("x.sh", "x", "x.py/y", "a\x1bb.py", "a\nb.py", "", ".", "../proj2/x.py"),
    ],
)
def test_a_file_of_another_place_is_refused(name: str) -> None:
    with pytest.raises(StoreError):
        recorded_code(record(files={name: "x = 1\n"}), Path("/"))


@given(st.lists(st.sampled_from(["..", ".", "a", ".git", "x.py", "", "mine", "~", "-o"]), max_size=8))
def test_whatever_its_name_a_file_stays_below_the_repository_or_the_config_dir(parts: list[str]) -> None:
    name = "/".join([*parts, "x.py"])
    try:
        (file,) = recorded_code(record(files={name: ""}, config_dir="../mine"), Path("/")).files
    except StoreError:
        return
    assert file.place.startswith(("/home/me/proj/", "/home/me/mine/"))
    assert ".." not in file.place.split("/") and ".git" not in file.place.split("/")


KEYS = ["commit", "root", "folder", "files", "diff", "text", "base64", "sha256", "config_dir", "x.py"]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.dictionaries(st.sampled_from(KEYS), inner) | st.lists(inner, max_size=2),
    max_leaves=12,
)


@settings(max_examples=50)
@given(ANYTHING)
def test_whatever_a_record_is_nothing_but_an_error_of_ours_comes_of_it(code: Any) -> None:
    for content in ({"code": code}, bare(files=code), bare(diff=code), bare(config_dir=code)):
        try:
            recorded_code(content, Path("/nowhere"))
        except LightsweepError as error:
            assert str(error).isprintable()


@pytest.mark.parametrize("folder", ["..", "../proj2", "/proj", "a/../.."])
def test_a_working_folder_outside_is_refused(folder: str) -> None:
    with pytest.raises(StoreError):
        recorded_code(record(folder=folder), Path("/"))


def test_a_difference_that_is_not_the_one_of_its_hash_is_refused() -> None:
    with pytest.raises(StoreError, match="whose hash is recorded"):
        recorded_code(record("x", diff={"text": "y"}), Path("/"))
    with pytest.raises(StoreError, match="whose hash is recorded"):
        recorded_code(bare(files={"x.py": {"text": "", "sha256": "0"}}), Path("/"))


def test_what_was_not_kept_cannot_be_had() -> None:
    with pytest.raises(IncompleteError, match="9 bytes are too many"):
        recorded_code(record(diff={"cut": "9 bytes are too many to keep"}), Path("/"))
    with pytest.raises(IncompleteError, match="outside any git repository"):
        recorded_code({"code": {"commit": None}}, Path("/"))
    with pytest.raises(IncompleteError, match="no record of its code"):
        recorded_code({}, Path("/"))


def test_a_file_that_was_only_hashed_is_taken_from_today_if_it_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "my_secrets.py").write_text("KEY = 1\n")
    files = {"my_secrets.py": {"cut": "its name says that it is secret", "sha256": sha256("KEY = 1\n")}}
    assert recorded_code(bare(files=files), tmp_path).files[0].content == b"KEY = 1\n"
    (tmp_path / "my_secrets.py").write_text("KEY = 2\n")
    found = recorded_code(bare(files=files), tmp_path)
    assert found.files == () and found.notes == ("my_secrets.py is not in the record.",)


# --- what git says of it ---------------------------------------------------------------------------------

GOOD = """\
diff --git a/net.py b/net.py
--- a/net.py
+++ b/net.py
@@ -1 +1 @@
-WIDTH = 8
+WIDTH = 9
"""


def new_file(name: str, mode: str = "100644", line: str = "x") -> str:
    return f"diff --git a/{name} b/{name}\nnew file mode {mode}\n--- /dev/null\n+++ b/{name}\n@@ -0,0 +1 @@\n+{line}\n"


def test_the_look_has_the_changes_and_all_their_text_and_writes_nothing(repository: Path) -> None:
    before = state(repository)
    look = look_at(of(repository, GOOD, {"new.py": "a\nb\n", "sub/other.py": "DEPTH = 2\n"}), repository)
    assert [(one.name, one.added, one.removed) for one in look.changes] == [("net.py", 1, 1), ("new.py", 2, 0)]
    assert "+WIDTH = 9" in look.text and "+b" in look.text and "DEPTH" not in look.text
    assert state(repository) == before


HOSTILE = {
    "above": new_file("../x"),
    "absolute": new_file("/tmp/x"),
    "git's own": new_file(".git/hooks/post-checkout"),
    "git's own in capitals": new_file("sub/.GIT/config"),
    "a link": new_file("link", "120000", "/etc"),
    "a link with another spelling": new_file("link", "0120000", "/etc"),
    "through a link of its own": new_file("link", "120000", "..") + new_file("link/x"),
    "through a link of the commit": new_file("out/x"),
    "a submodule": new_file("module", "160000", "Subproject commit " + "a" * 40),
    "to a link": "diff --git a/net.py b/net.py\nold mode 100644\nnew mode 120000\n",
    "a copy from above": "diff --git a/../x b/y\nsimilarity index 100%\ncopy from ../x\ncopy to y\n",
    "a rename to above": "diff --git a/net.py b/../x\nsimilarity index 100%\nrename from net.py\nrename to ../x\n",
    "nothing of git's": "rm -r /\n",
    "another commit's": GOOD.replace("WIDTH = 8", "WIDTH = 7"),
}


@pytest.mark.parametrize("patch", HOSTILE.values(), ids=HOSTILE)
def test_a_difference_that_leads_elsewhere_is_refused(repository: Path, patch: str) -> None:
    before = state(repository.parent)
    with pytest.raises(StoreError, match="not used"):
        look_at(of(repository, patch), repository)
    assert state(repository.parent) == before


def test_a_commit_that_is_not_here_is_told_with_the_way_out(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="git fetch"):
        repository_here(repository, {"commit": COMMIT, "root": "/home/me/proj"})
    with pytest.raises(UsageError, match="/home/me/proj"):
        repository_here(tmp_path, {"commit": COMMIT, "root": "/home/me/proj"})


# --- written out -----------------------------------------------------------------------------------------


def test_a_worktree_has_all_that_was_recorded_and_goes_without_a_trace(repository: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "my.yaml").write_text("a: 1\n")
    (repository / "net.py").write_text("WIDTH = 9\n")
    (repository / "staged.bin").write_bytes(bytes(range(256)))
    git(repository, "add", "staged.bin")
    (repository / "sub" / "new.py").write_text("x = 1\n")
    then = capture(["train"], mine, folder=repository / "sub").content
    (repository / "net.py").write_text("WIDTH = 10\n")
    (repository / "sub" / "new.py").unlink()
    (mine / "my.yaml").unlink()
    (repository / ".git" / "hooks" / "post-checkout").write_text(f"#!/bin/sh\ntouch {tmp_path}/harm\n")
    (repository / ".git" / "hooks" / "post-checkout").chmod(0o755)
    before = state(repository)
    code = recorded_code(then, repository)
    with checked_out(code, repository) as checkout:
        top = checkout.top
        assert not checkout.root.is_relative_to(repository)
        assert code.config_dir is not None
        now = capture(["train"], checkout.at(code.config_dir), folder=checkout.folder).content
        for key in ("commit", "diff_sha256", "files", "folder", "config_dir"):
            assert now["code"][key] == then["code"][key]
    assert not top.exists() and not (tmp_path / "harm").exists()
    after = {name: of for name, of in state(repository).items() if not name.startswith(".git/objects/")}
    assert after == {name: of for name, of in before.items() if not name.startswith(".git/objects/")}
    assert len(git(repository, "worktree", "list").splitlines()) == 1


def test_a_failure_leaves_no_worktree(repository: Path) -> None:
    code = of(repository)
    with pytest.raises(ZeroDivisionError), checked_out(code, repository) as checkout:
        raise ZeroDivisionError
    assert not checkout.top.exists()
    assert len(git(repository, "worktree", "list").splitlines()) == 1


def test_a_worktree_that_somebody_has_removed_is_forgotten(repository: Path) -> None:
    with checked_out(of(repository), repository) as checkout:
        shutil.rmtree(checkout.root)
    assert len(git(repository, "worktree", "list").splitlines()) == 1


def test_no_file_is_written_through_a_link_of_the_commit(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    code = of(repository, files={"out/sub/x.py": "x = 1\n"})
    with pytest.raises(StoreError, match="link"), checked_out(code, repository):
        pass
    assert list((tmp_path / "outside").iterdir()) == []
    with pytest.raises(StoreError, match="link"), checked_out(of(repository, folder="out/deep"), repository):
        pass
    assert list((tmp_path / "outside").iterdir()) == []


def test_git_variables_of_a_hook_do_not_lead_to_another_repository(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere/.git")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    assert repository_here(repository, {}) == repository


def test_a_binary_difference_is_told_as_such(repository: Path) -> None:
    (repository / "net.py").write_bytes(b"\0\1\2")
    content = capture(["train"], folder=repository).content
    git(repository, "checkout", "-q", "net.py")
    (change,) = look_at(recorded_code(content, repository), repository).changes
    assert (change.name, change.added) == ("net.py", None)


def test_a_file_that_is_no_text_is_put_in_place(repository: Path) -> None:
    raw = "# grün\n".encode("latin-1")
    entry = {"base64": base64.b64encode(raw).decode(), "sha256": hashlib.sha256(raw).hexdigest()}
    commit = git(repository, "rev-parse", "HEAD").strip()
    code = recorded_code(bare(commit=commit, files={"old.py": entry}), repository)
    with checked_out(code, repository) as checkout:
        assert (checkout.root / "old.py").read_bytes() == raw


def test_a_commit_without_changes_takes_no_patch(repository: Path) -> None:
    code = recorded_code(capture(["train"], folder=repository).content, repository)
    look = look_at(code, repository)
    assert (look.changes, look.text, look.project) == ((), "", None)


def test_a_difference_is_kept_as_git_reads_it_whatever_is_set_for_ones_own_eyes(repository: Path) -> None:
    (repository / "net.py").write_text("WIDTH = 9\n")
    before = capture(["train"], folder=repository).content["code"]["diff_sha256"]
    for key, value in (
        ("diff.noprefix", "true"),
        ("diff.context", "0"),
        ("color.ui", "always"),
        ("diff.relative", "true"),
    ):
        git(repository, "config", key, value)
    content = capture(["train"], folder=repository / "sub").content
    assert content["code"]["diff_sha256"] == before
    (change,) = look_at(recorded_code(content, repository), repository).changes
    assert (change.name, change.added) == ("net.py", 1)
