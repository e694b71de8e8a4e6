"""Sweep expressions: what each means, and what is said about the ones that mean nothing."""

import subprocess
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from sweeps.core.errors import SpaceError
from sweeps.search.space.declare import parse_space, split_overrides
from sweeps.search.space.space import Space


def distribution(expression):
    return parse_space({"key": expression}).distributions["key"]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("choice(sgd,adamw)", CategoricalDistribution(["sgd", "adamw"])),
        ("32,64,128", CategoricalDistribution([32, 64, 128])),
        ([32, 64], CategoricalDistribution([32, 64])),
        ("'a b',\"c,d\"", CategoricalDistribution(["a b", "c,d"])),
        ("choice(null,0.9)", CategoricalDistribution([None, 0.9])),
        ("choice(1,true)", CategoricalDistribution(["1", "true"])),
        ("choice([64,64],[128])", CategoricalDistribution(["[64,64]", "[128]"])),
        ("choice({a:1},{a:2})", CategoricalDistribution(["{a:1}", "{a:2}"])),
        ("str(choice(1,2))", CategoricalDistribution(["1", "2"])),
        ("sort(3,1,2)", CategoricalDistribution([1, 2, 3])),
        ("shuffle(choice(a,b))", CategoricalDistribution(["a", "b"])),
        (0.1, CategoricalDistribution([0.1])),
        ("sgd", CategoricalDistribution(["sgd"])),
        ("range(1,5)", IntDistribution(1, 4)),
        ("range(5)", IntDistribution(0, 4)),
        ("range(1,8,3)", IntDistribution(1, 7, step=3)),
        ("range(10,1,-3)", IntDistribution(4, 10, step=3)),
        ("shuffle(range(1,5))", IntDistribution(1, 4)),
        ("range(0,1,0.25)", FloatDistribution(0, 0.75, step=0.25)),
        ("float(range(1,5))", FloatDistribution(1.0, 4.0, step=1.0)),
        ("interval(0,1)", FloatDistribution(0.0, 1.0)),
        ("tag(log, interval(1e-4, 1e-1))", FloatDistribution(1e-4, 1e-1, log=True)),
        ("int(interval(1,8))", IntDistribution(1, 8)),
        ("tag(int,interval(1,8))", IntDistribution(1, 8)),
        ("tag(log,int(interval(1,8)))", IntDistribution(1, 8, log=True)),
        ("tag(int,log,interval(1,8))", IntDistribution(1, 8, log=True)),
    ],
)
def test_an_expression_becomes_its_distribution(expression, expected):
    assert distribution(expression) == expected


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("lr=rnage(1,5)", "there is no function 'rnage'. Did you mean 'range'?"),
        ("lr=interval(1)", "interval needs a value for 'end'"),
        ("lr=interval(a,2)", "'start' of interval must be a number, not text"),
        ("lr=interval(1,2,3)", "interval takes fewer values"),
        ("lr=interval(3,1)", "goes from low to high, but 3.0 > 1.0"),
        ("lr=interval(0,inf)", "must be finite"),
        ("lr=choice()", "at least one value"),
        ("lr=choice(a,a)", "a is there twice"),
        ("lr=choice(a", "the bracket ( at position 7 is not closed"),
        ("lr='abc", "the quote ' at position 1 is not closed"),
        ("lr=a b)", "the bracket ) at position 4 has no partner"),
        ("lr=1,,2", "a comma without a value"),
        ("lr=range(5,1)", "the range is empty"),
        ("lr=range(3,3)", "the range is empty"),
        ("lr=range(1,5,0)", "must not be 0"),
        ("lr=range(0,100000000000000000)", "whole numbers go up to 2**53"),
        ("lr=int(interval(0,1e17))", "whole numbers go up to 2**53"),
        ("lr=interval(-1e308,1e308)", "too wide for a float"),
        ("lr=range(0,1,1e-9)", "take an interval instead"),
        ("lr=tag(log,interval(0,1))", "a log scale needs low > 0, but low is 0.0"),
        ("lr=tag(lgo,interval(1,2))", "there is no tag 'lgo'. Did you mean 'log'?"),
        ("lr=tag(log,range(1,5))", "the tag 'log' belongs to an interval, but got a range"),
        ("lr=tag(log,1)", "tag takes words and then an interval"),
        ("lr=tag(int,interval(1.5,3))", "must be whole"),
        ("lr=int(interval(0.5,8))", "int: 0.5 would become 0"),
        ("lr=int(interval(-0.5,3))", "int: -0.5 would become 0"),
        ("lr=tag(log,int(interval(0.5,8)))", "int: 0.5 would become 0"),
        ("lr=int(tag(log,interval(1,8.5)))", "int: 8.5 would become 8"),
        ("lr=int(range(0.5,4))", "int: 0.5 would become 0"),
        ("lr=int(range(0,4,1.5))", "int: 1.5 would become 1"),
        ("lr=int(choice(0.5,1))", "int: 0.5 would become 0"),
        ("lr=int(value=choice([1,2.5],[3,4]))", "int: 2.5 would become 2"),
        ("lr=float(9007199254740993,1)", "float: 9007199254740993 would become 9007199254740992.0"),
        ("lr=bool(choice(0,2))", "bool: 2 would become true"),
        ("lr=sort(a,1)", "cannot compare values of different kinds"),
        ("model=glob(*)", "name them: choice(a,b)"),
        ("~lr=1,2", "nothing to search"),
        ("a..b=1,2", "the key cannot be read"),
        ("lr", "an override is KEY=VALUE"),
    ],
)
def test_a_mistake_is_explained_in_one_line_with_its_key(override, words):
    with pytest.raises(SpaceError) as error:
        parse_space(overrides=[override])
    message = str(error.value)
    assert words in message
    assert override.partition("=")[0] in message
    assert "\n" not in message and "HydraException" not in message


def test_the_example_in_an_error_is_itself_valid():
    for mistake in ("rnage(1,5)", "interval(1)", "choice(", "tag(lgo,interval(1,2))", "int(a,b)"):
        with pytest.raises(SpaceError) as error:
            parse_space({"key": mistake})
        example = str(error.value).rpartition("Example: ")[2]
        assert len(parse_space(overrides=[example])) == 1


@pytest.mark.parametrize("expression", ["range(1,4)", "range(4)", "range(1,8,3)", "range(5,1,-2)", "range(0,1,0.1)"])
def test_the_end_of_a_range_is_excluded_as_in_hydra(expression):
    hydra = OverridesParser.create().parse_override(f"key={expression}").value()
    assert parse_space({"key": expression}).grid()["key"] == list(hydra.range())


def test_split_keeps_the_order_and_knows_group_choices_as_sweeps():
    plain, sweeps = split_overrides(["seed=1", "optimizer=choice(sgd,adamw)", "x=[1,2]", "~y", "lr=1,2"])
    assert plain == ["seed=1", "x=[1,2]", "~y"]
    assert sweeps == ["optimizer=choice(sgd,adamw)", "lr=1,2"]


def test_the_command_line_wins_over_yaml_and_keeps_the_place():
    space = parse_space({"lr": "interval(0,1)", "width": "1,2"}, ["lr=0.1,0.2", "depth=range(3)"])
    assert space.describe() == {"lr": "choice(0.1,0.2)", "width": "choice(1,2)", "depth": "range(0,3)"}


def test_a_plain_override_fixes_its_key():
    assert parse_space({"lr": "interval(0,1)", "width": "1,2"}, ["lr=0.1"]).keys == ("width",)


def test_a_key_given_twice_is_refused():
    with pytest.raises(SpaceError, match=r"^lr: .*lr=1,2 and lr=3,4"):
        parse_space(overrides=["lr=1,2", "lr=3,4"])
    with pytest.raises(SpaceError, match="there twice"):
        parse_space({"optimizer.lr": "1,2", "optimizer": {"lr": "3,4"}})


def test_nested_yaml_names_dotted_keys():
    assert parse_space({"optimizer": {"lr": "1,2"}}).keys == ("optimizer.lr",)


def test_glob_takes_the_options_of_the_group():
    space = parse_space({}, ["model=glob([c*,m*],exclude=cnn)"], lambda group: ["cnn", "convnext", "mlp", "vit"])
    assert space.grid() == {"model": ["convnext", "mlp"]}
    with pytest.raises(SpaceError, match="patterns for names of options, which are text, but got 1"):
        parse_space({}, ["model=glob([c*,1])"], lambda group: ["cnn"])
    with pytest.raises(SpaceError, match="its options are mlp"):
        parse_space({}, ["model=glob(x*)"], lambda group: ["mlp"])


def test_a_plus_stays_in_the_override_but_not_in_the_name():
    space = parse_space(overrides=["+model.width=1,2"])
    assert space.keys == ("model.width",)
    assert space.overrides({"model.width": 2}) == ["+model.width=2"]


def test_no_expression_is_an_empty_space():
    assert parse_space() == Space() and len(parse_space({})) == 0


def test_importing_the_space_does_not_import_optuna():
    code = (
        "import sys, sweeps.search.space.declare as s; s.parse_space({'a': '1,2'}); sys.exit('optuna' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "written",
    [
        "tag(log,\ninterval(1e-4, 1e-1))\n",
        "tag(log,\r\n  interval(1e-4,1e-1))\r\n",
        " tag(log,interval(1e-4,1e-1))\t",
        "# learning rate\ntag(log,  # equal ratios\n  interval(1e-4,1e-1))  # both included\n",
    ],
)
def test_an_expression_may_take_several_lines(written):
    assert parse_space({"lr": written})["lr"].text == "tag(log,interval(0.0001,0.1))"


def test_conditions_may_take_several_lines_and_quoted_text_keeps_its_marks():
    space = parse_space(
        {
            "opt": "choice('a # b',\n' c ')\n",
            "lr": "interval(0,1)\nwhen opt='a # b'\n",
            "wd": {"values": "interval(0,1)\n", "when": {"lr": "> 0.5\n"}},
        }
    )

    assert space["opt"].values == ("a # b", " c ")
    assert space["lr"].text == "interval(0.0,1.0) when opt='a # b'"
    assert space["wd"].text == "interval(0.0,1.0) when lr>0.5"


def test_casts_that_change_nothing_are_taken():
    texts = {text: parse_space(overrides=[f"x={text}"])["x"].text for text in ("int(interval(1,8))", "int('5',6.0)")}

    assert texts == {"int(interval(1,8))": "int(interval(1,8))", "int('5',6.0)": "choice(5,6)"}
