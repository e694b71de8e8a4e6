"""What is taken for secret, where it is hidden, and what a rank gets back."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
import yaml

from sweeps.config.composer import Composer, fingerprint, load_frozen, to_yaml
from sweeps.core.secrets import Secrets, is_secret, reveal, withhold

CONFIG = {
    "data": {
        "password": "CANARY-1",
        "url": "postgresql://me:CANARY%2D2@host/data",
        "header": "Bearer CANARY-1",
        "auth": {"token": "CANARY-3", "renew": True, "client": None},
        "shards": [{"secret": "CANARY-4"}, {"secret": "${oc.env:WHERE_IT_IS}"}],
        "pin_password": 12345678,
        "num_tokens": 512,
        "tokenizer": "bpe",
    },
    "model": {"note": "CANARY-2 and a-secret-of-the-environment"},
}


SECRET = (
    "password db_password dbPassword passwd PGPASSWORD MYSQL_PWD passphrase api_token apiToken token hf_token HF_TOKEN "
    "secret client_secret AWS_SECRET_ACCESS_KEY accessKey api_key apikey OPENAI_API_KEY private_key credentials "
    "Authorization secrets"
)
NO_SECRET = (
    "num_tokens tokens tokenizer token_dim max_token pad_token cls_token monkey key sort_key public_key keyboard PWD "
    "OLDPWD password_file password_length secretary passes bypass author authors lr width"
)


@pytest.mark.parametrize(("keys", "expected"), [(SECRET, True), (NO_SECRET, False)], ids=["secret", "no secret"])
def test_secret_is_known_by_the_name_of_its_key(keys: str, expected: bool) -> None:
    assert [key for key in keys.split() if is_secret(key) != expected] == []


def test_what_is_withheld_is_nowhere_in_what_is_left_and_comes_back_whole() -> None:
    secrets = Secrets({"API_TOKEN": "a-secret-of-the-environment", "SHORT_TOKEN": "bpe", "HOME": "/home/me"})

    public, hidden = withhold(CONFIG, secrets)

    text = to_yaml(public)
    assert "CANARY" not in text and "12345678" not in text and "a-secret" not in text
    assert public["data"]["auth"] == {"token": "***", "renew": True, "client": None}
    assert (public["data"]["num_tokens"], public["data"]["tokenizer"]) == (512, "bpe")
    assert public["data"]["shards"][1]["secret"] == "${oc.env:WHERE_IT_IS}"
    assert public["data"]["url"] == "postgresql://me:***@host/data"
    assert reveal(public, hidden) == CONFIG


def test_configuration_without_a_secret_stays_as_it_is() -> None:
    config = Composer("train").base()

    assert withhold(config, Secrets({})) == (config, ())


@pytest.mark.parametrize(
    "written",
    [
        repr,
        ascii,
        json.dumps,
        lambda value: json.dumps(value, ensure_ascii=False),
        lambda value: repr(f'{value} and "'),
        lambda value: repr(value.encode()),
        lambda value: json.dumps({"error": repr(value)}),
        lambda value: yaml.dump(value, allow_unicode=True),
        yaml.dump,
        quote,
        lambda value: quote(value, safe=""),
        lambda value: urlencode({"password": value}),
    ],
)
@pytest.mark.parametrize("value", ["Passwort\\99ö", 'it\'s/99 "CANARY"', "CANARY\t'1+2", "it is 100% CANARY"])
def test_secret_is_hidden_however_a_program_writes_it(value: str, written: Callable[[str], str]) -> None:
    secrets = Secrets({"DB_PASSWORD": value})

    assert "***" in secrets.hide(written(value)) and not re.search("CANARY|99", secrets.hide(written(value)))


def test_records_are_hidden_in_every_text_and_keep_their_types() -> None:
    @dataclass(frozen=True, slots=True)
    class Event:
        message: str
        values: tuple[str, ...]
        number: float

    secrets = Secrets({"MY_PASSWORD": "CANARY-123"})

    assert secrets.hide_in(Event("a CANARY-123", ("CANARY-123", "b"), 0.5)) == Event("a ***", ("***", "b"), 0.5)


def test_text_is_published_without_its_secrets_and_other_files_only_if_they_have_none(tmp_path: Path) -> None:
    log, weights, plain = tmp_path / "rank0.log", tmp_path / "best.ckpt", tmp_path / "plain.ckpt"
    log.write_text("logged in by CANARY-1\n")
    weights.write_bytes(b"PK\0" + b"x" * 8_000_000 + b"CANARY-1" + b"\0")
    plain.write_bytes(b"PK\0" + b"x" * 9_000_000)
    secrets = Secrets({})
    secrets.add(["CANARY-1"])

    with secrets.public_copy(log) as copy:
        assert copy is not None and (copy.name, copy.read_text()) == ("rank0.log", "logged in by ***\n")
    with secrets.public_copy(weights) as nothing, secrets.public_copy(plain) as itself:
        assert (nothing, itself) == (None, plain)
    assert log.read_text() == "logged in by CANARY-1\n"


def test_composer_hides_for_the_record_and_gives_the_rank_what_its_parts_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_PASSWORD", "CANARY-12345")
    overrides = ["+model.password=${oc.env:MY_PASSWORD}", "tracking.uri=postgresql://me:pa55w0rd@host/db"]
    composer = Composer("train", overrides)

    config = composer.trial({}, seed=0)

    assert config["model"]["password"] == "***"
    assert composer.hidden(config) == ((("model", "password"), "CANARY-12345"),)  # no rank opens a store
    assert composer.base()["tracking"]["uri"].endswith("pa55w0rd@host/db")  # the driver does
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert fingerprint(load_frozen(tmp_path)) == fingerprint(config)


def test_another_password_makes_no_other_configuration() -> None:
    first, second = (Composer("train", [f"+model.password={word}"]).trial({}, seed=0) for word in ("CANARY-1", "x" * 9))

    assert fingerprint(first) == fingerprint(second)
