"""What is typed for a key that is text arrives as it was typed."""

from pathlib import Path

import pytest

from sweeps.config.composer import Composer
from sweeps.config.text_keys import as_typed, is_text
from sweeps.core.errors import ConfigError
from sweeps.search.space.declare import parse_space
from sweeps.search.space.space import read_values

TEXTS = ["2024_11_30", "1e3", "1_000", "0x10", "007", "true", "False", "nan", "NaN", "-inf", "1.10", "12e05", "+5", "5"]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    "key", ["study.name", "tracking.experiment", "+tracking.tags.day", "store_dir", "study.metric"]
)
def test_text_arrives_as_it_was_typed(key: str, text: str) -> None:
    composer = Composer("sweep", [f"{key}={text}"])

    assert composer.value(key.lstrip("+")) == text


def test_texts_in_lists_and_mappings_too() -> None:
    composer = Composer(
        "sweep",
        ["study.metric=[1e3, 2_0]", "study.direction=[maximize,minimize]", "+tracking.tags={day:2024_11_30,of:b:5}"],
    )

    assert composer.value("study.metric") == ["1e3", "2_0"]
    assert composer.base()["tracking"]["tags"] == {"day": "2024_11_30", "of": "b:5"}


def test_null_and_other_keys_are_what_hydra_reads() -> None:
    base = Composer("sweep", ["study.name=null", "+model.size=1_000", "optimizer.lr=1e-3"]).base()

    assert base["study"]["name"] is None
    assert base["model"]["size"] == 1000 and base["optimizer"]["lr"] == 0.001


@pytest.mark.parametrize(
    ("override", "quoted"),
    [
        ("study.name='1e3'", "study.name='1e3'"),
        ("study.name=1e3-${seed}", "study.name=1e3-${seed}"),
        ("tracking.tags.day=choice(1e3, true )", "tracking.tags.day=choice('1e3', 'true' )"),
        ("tracking.tags.n=range(1,5)", "tracking.tags.n=range(1,5)"),
        ("tracking.tags={1e3:1e3,a:{b:1e3}}", "tracking.tags={1e3:'1e3',a:{b:'1e3'}}"),
        ("trainer.precision=16", "trainer.precision=16"),
        ("model.name=1e3", "model.name=1e3"),
        ("~tracking.tags", "~tracking.tags"),
    ],
)
def test_only_what_would_be_changed_is_quoted(override: str, quoted: str) -> None:
    assert as_typed(override) == quoted


def test_text_is_what_the_schema_says() -> None:
    assert all(
        map(is_text, ["study.name", "tracking.tags", "tracking.tags.any", "study.constraints", "allowed_modules"])
    )
    assert not any(map(is_text, ["seed", "trainer.max_epochs", "trainer.deterministic", "model.name", "study"]))


def test_choices_and_enqueued_values_of_a_text_are_texts() -> None:
    space = parse_space({"tracking.tags.day": "2024_11_30,1e3"})

    assert space["tracking.tags.day"].values == ("2024_11_30", "1e3")
    assert space.encode(read_values(["tracking.tags.day=1e3"])) == {"tracking.tags.day": "1e3"}


@pytest.mark.parametrize(
    "name",
    ["it's 100%", 'q"uo', "a?b#c%20d", "back\\slash", "end\\", "b\\'s", "blank ", "a,b=[c]", "${x}", "\\${x}", "ü☃"],
)
def test_options_are_found_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name / "model").mkdir(parents=True)
    (tmp_path / name / "model" / "own.yaml").write_text("_target_: kit.Own\n")

    assert Composer("train", ["model=own"], tmp_path / name).base()["model"] == {"_target_": "kit.Own"}
    assert Composer("train", [], tmp_path / name).options("model") == ["cnn", "mlp", "own"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"a: 1\n\tb: 2\n",
            "own.yaml, line 2 cannot be read: not valid YAML: while scanning for the next token: found character '\\t'",
        ),
        (
            b"a: 1\na: 2\n",
            "own.yaml, line 2 cannot be read: not valid YAML: while constructing a mapping: found duplicate key a",
        ),
        (b"a: 1\nb: \xe9\n", "own.yaml, line 2 cannot be read: it must be UTF-8"),
        (b"- 1\n- 2\n", "model=own: it must be a mapping, but is a list"),
        (b"a: !!binary aGk=\n", "model.a must be text, a number"),
        (b"a: ${hydra:no.such}\n", "model.a cannot be resolved: ${hydra:no.such} has no value here"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_in_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "own.yaml").write_bytes(content)

    with pytest.raises(ConfigError) as caught:
        Composer("train", ["model=own"], tmp_path).base()

    assert words in str(caught.value) and "\n" not in str(caught.value)
