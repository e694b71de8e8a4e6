"""What is shown of overrides that have a secret, and which of them are read for that."""

import subprocess
import sys

import pytest

from sweeps.core.secrets import Secrets
from sweeps.search.space.typed_secrets import hide_typed, typed_secrets


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("+data.password=abc", "+data.password=***"),
        ("+data.password='a=b, c'", "+data.password=***"),
        ("+data.password=abc,def", "+data.password=***"),
        ("+data.password={abc: 1, d", "+data.password=***"),
        ("+data.passwords[0]=abc,def", "+data.passwords[0]=***"),
        ("+data.auth.token=abc", "+data.auth.token=***"),
        ("+data.auth.token={a:abc,b:[def]}", "+data.auth.token=***"),
        ("+tracking.tags.api_token='a b'", "+tracking.tags.api_token=***"),
        ("+data.auth={token:abc,user:me}", "+data.auth={token:'***',user:me}"),
        ("+data.auth={user: me, password: 'a, b'}", "+data.auth={user:me,password:'***'}"),
        ("+e={user: me, password: correct horse battery staple}", "+e={user:me,password:'***'}"),
        (r"+e={password: 'abc\'defghijk'}", "+e={password:'***'}"),
        ("+e={passwords: [aaaaaa1, {a: b}], n: 1}", "+e={passwords:['***',{a:'***'}],n:1}"),
        ("+e={api key: abc}", r"+e={api\ key:'***'}"),
        ("+e=[{pin_password: 123}, {a: {secret: 0.5}}]", "+e=[{pin_password:'***'},{a:{secret:'***'}}]"),
        ("+e=choice({token: abc}, {token: def})", "+e={token:'***'},{token:'***'}"),
        ("+e=1,{token: abc} when optimizer=sgd", "+e=1,{token:'***'}"),
        ("~e={token: abc}", "~e={token:'***'}"),
        ('+e={"password": hunter2222}', "+e=***"),
        ("+e={password: hunter2222", "+e=***"),
        (
            "+e={url: postgresql://me:abc@host/db, mail: me@host}",
            "+e={url:'postgresql://me:***@host/db',mail:'me@host'}",
        ),
        ("tracking.uri=postgresql://me:abc@host/db", "tracking.uri=postgresql://me:***@host/db"),
    ],
)
def test_override_is_shown_without_its_secret(typed: str, shown: str) -> None:
    assert hide_typed(typed) == shown


@pytest.mark.parametrize(
    "typed",
    [
        "optimizer.lr=tag(log,interval(1e-4,1e-1))",
        "optimizer.lr='tag(log, interval(1e-4, 1e-1))'",
        "model.token_dim=range(1, 5)",
        "+model.blocks={width: 3, kind: 'a b'},{width: 4}",
        "+model.blocks={ width: 3} when model=cnn",
        "model=glob(*)",
        "data.password=${oc.env:PASSWORD}",
        "+data.auth={user: me, password: ${oc.env:PASSWORD}}",
        "+data.auth={token: null, secret: true}",
        "model.num_tokens=512",
        "~data.password",
        "--",
    ],
)
def test_override_without_a_secret_stays_as_it_was_typed(typed: str) -> None:
    assert hide_typed(typed) == typed


@pytest.mark.parametrize(
    ("typed", "message", "shown"),
    [
        ("+a.password=CANARY-1", "must be a number, but got 'CANARY-1'", "must be a number, but got '***'"),
        ("+a={token:CANARY-2}", "+a={token:CANARY-2}: no 'CANARY-2'", "+a=***: no '***'"),
        (r"+a={token: CANARY\, 3}", r"'+a={token: CANARY\, 3}': no 'CANARY, 3'", "'+a=***': no '***'"),
        ('+a={"token": CANARY-4}', "+a={\"token\": CANARY-4}: wrong at 'CANARY-4'", "+a=***: wrong at '***'"),
        ("+a={user: me token: x CANARY-5", "+a={user: me token: x CANARY-5: at 'CANARY-5'", "+a=***: at '***'"),
        ("+a.token=CANARY-6'(", "+a.token=CANARY-6'(: at 'CANARY-6'", "+a.token=***: at '***'"),
        ("+a={kind: [canary", "+a={kind: [canary: [ at 8 is not closed", "+a={kind: [canary: [ at 8 is not closed"),
    ],
)
def test_secret_that_was_typed_is_hidden_in_a_message_about_it(typed: str, message: str, shown: str) -> None:
    secrets = Secrets({})
    secrets.add(typed_secrets([typed]))

    assert secrets.hide(message) == shown


def test_override_that_has_no_secret_is_not_read_by_hydra() -> None:
    code = (
        "import sys; from sweeps.search.space.typed_secrets import hide_typed; "
        "hide_typed('optimizer.lr=tag(log,interval(1e-4,1e-1))'); hide_typed('data.root=${oc.env:ROOT}'); "
        "assert 'hydra' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
