"""Arguments are checked against what they are given to."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest

from sweeps.config.instantiate import check_arguments
from sweeps.core.errors import ConfigError


class Net:
    """Takes arguments of every plain kind."""

    def __init__(
        self,
        depth: int,
        *,
        rate: float = 0.1,
        name: str | None = None,
        kind: Literal["relu", "tanh"] = "relu",
        widths: int | Sequence[int] = 3,
        names: list[str] | None = None,
        is_on: bool = False,
        options: dict[str, int] | None = None,
        make: Callable[[], int] | None = None,
    ) -> None: ...


def check(target: Callable[..., Any] = Net, is_partial: bool = False, **arguments: Any) -> None:
    check_arguments(target, arguments, key="model", is_partial=is_partial)


@pytest.mark.parametrize(
    "arguments",
    [
        {"rate": 1},
        {"name": None},
        {"kind": "tanh"},
        {"widths": [1, 2]},
        {"widths": 4},
        {"names": ["a"]},
        {"is_on": True},
        {"options": {"a": 1}},
        {"make": print},
    ],
    ids=str,
)
def test_value_that_fits_is_taken(arguments: dict[str, Any]) -> None:
    check(depth=1, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": "two"}, "model.depth must be an integer, but got 'two'"),
        ({"depth": True}, "model.depth must be an integer, but got True"),
        ({"depth": 1.0}, "model.depth must be an integer, but got 1.0"),
        ({"rate": "fast"}, "model.rate must be a number, but got 'fast'"),
        ({"name": 3}, "model.name must be a string or null, but got 3"),
        ({"name": 1000.0}, """quoted twice: model.name="'TEXT'"."""),
        ({"kind": "gelu"}, "model.kind must be one of 'relu', 'tanh', but got 'gelu'"),
        ({"widths": ["a"]}, "model.widths must be an integer or a list of an integer, but got"),
        ({"is_on": 1}, "model.is_on must be true or false, but got 1"),
        ({"dept": 1}, "model.dept: Net takes no such argument. Did you mean 'depth'"),
    ],
    ids=str,
)
def test_value_that_does_not_fit_names_the_key(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(**{"depth": 1, **arguments})

    assert message in str(caught.value)


def test_missing_argument_is_named_unless_it_may_come_later() -> None:
    with pytest.raises(ConfigError, match=r"model: Net needs model\.depth"):
        check()
    check(is_partial=True)


def test_function_with_open_arguments_takes_any() -> None:
    def build(*args: int, **more: int) -> None: ...

    check(build, anything="x")


def test_function_without_annotations_takes_any_value() -> None:
    def build(depth, rate=1):  # type: ignore[no-untyped-def]
        return depth

    check(build, depth="x", rate=[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_sizes": 8}, "data.batch_sizes: MNIST takes no such argument. Did you mean 'batch_size'"),
        ({"test_fraction": 0.1}, "data.test_fraction: MNIST takes no such argument"),
        ({"val_fraction": "half"}, "data.val_fraction must be a number, but got 'half'"),
        ({"timeout_s": "long"}, "data.timeout_s must be a number, but got 'long'"),
        ({"num_classes": None}, "data.num_classes must be an integer, but got None"),
    ],
    ids=str,
)
def test_arguments_that_a_data_module_inherits_are_checked(arguments: dict[str, Any], message: str) -> None:
    from lightning_modules.data.mnist import MNIST

    given = {"num_classes": 10, "input_shape": [1, 28, 28], "cache_dir": "data"}
    check_arguments(MNIST, given, key="data", is_partial=False)
    with pytest.raises(ConfigError) as caught:
        check_arguments(MNIST, given | arguments, key="data", is_partial=False)

    assert message in str(caught.value)
