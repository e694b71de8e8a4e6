"""What of an address is secret, and how the rest of it is shown."""

import pytest

from sweeps.secrecy import Secrets, withhold
from sweeps.urls import hide_password, passwords_in


@pytest.mark.parametrize(
    ("text", "shown", "secrets"),
    [
        ("postgresql://h/db?user=u&password=geheim", "postgresql://h/db?user=u&password=***", ["geheim"]),
        ("postgresql://h/db?password=ge@h/e?i:m&user=u", "postgresql://h/db?password=***&user=u", ["ge@h/e?i:m"]),
        ("mysql://me:one@h/db?ssl_password=tw%26o", "mysql://me:***@h/db?ssl_password=***", ["tw%26o", "tw&o", "one"]),
        ("x://h?pass%77ord=a+b", "x://h?pass%77ord=***", ["a+b", "a b"]),
        ("(see 'x://h?api_key=geheim') x", "(see 'x://h?api_key=***') x", ["geheim"]),
        (r'{"a":"[\"x://h?token=ge\"heim\"]","b":1}', r'{"a":"[\"x://h?token=***\"]","b":1}', [r"ge\"heim"]),
        ("https://TOKEN@host/x", "https://***@host/x", ["TOKEN"]),
        ("git+HTTPS://TOKEN:@host", "git+HTTPS://***:@host", ["TOKEN"]),
        ("sqlite:///a,http://TO@a,https://KEN@b", "sqlite:///a,http://***@a,https://***@b", ["TO", "KEN"]),
        ("https://me:pa?ss@host", "https://me:***@host", ["pa?ss"]),
        ("https://host/@me?to=me@host x@y", "https://host/@me?to=me@host x@y", []),
        ("postgresql://me@host/db?num_tokens=5&sslmode=require", None, []),
        ("x://h?password=${oc.env:PASSWORD}", None, []),
        ("https://github.com/@me/pass?page=2#token", None, []),
        ("password=abc&token=def", None, []),
    ],
)
def test_secrets_of_an_address_are_hidden_and_known(text: str, shown: str | None, secrets: list[str]) -> None:
    assert hide_password(text) == (shown or text)
    assert passwords_in(text) == secrets
    assert hide_password(hide_password(text)) == (shown or text)


@pytest.mark.parametrize("uri", ["postgresql://h/db?user=u&password=CANARY-1", "https://CANARY-1@host"])
def test_secret_of_an_address_reaches_no_record(uri: str) -> None:
    secrets = Secrets({})

    public, hidden = withhold({"tracking": {"uri": uri}}, secrets)

    assert public["tracking"]["uri"] == uri.replace("CANARY-1", "***")
    assert hidden == ((("tracking", "uri"), uri),)
    assert secrets.hide("CANARY-1 was refused") == "*** was refused"
