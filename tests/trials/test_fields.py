"""Declared fields: what is accepted, in which type, and the line that says what was expected."""

from dataclasses import dataclass

import pytest

from trials.errors import UserError, did_you_mean
from trials.fields import choice, count, declared, expectation, flag, parse, real, real_names


@dataclass(frozen=True)
class Component:
    lr: float = real(0.1, low=0, help="at least 0")
    rho: float = real(0.5, low=0, open_low=True, help="above 0")
    p: float = real(0.0, low=0, high=1, open_high=True, help="[0, 1)")
    a: float = real(0.0, help="any")
    width: int = count(8, low=1, help="at least 1")
    bits: int = count(8, low=1, high=32, help="in a range")
    bias: bool = flag(True, help="flag")
    activation: str = choice("relu", ("relu", "tanh"), help="choice")


def test_defaults_and_given_values():
    component = parse(Component, {"lr": 1, "width": 16.0, "bias": False, "activation": "tanh"}, "here")
    assert component == Component(lr=1.0, width=16, bias=False, activation="tanh")
    assert type(component.lr) is float and type(component.width) is int


def test_real_fields_are_those_that_may_differ_between_lanes():
    assert real_names(Component) == ("lr", "rho", "p", "a")
    assert list(declared(Component)) == ["lr", "rho", "p", "a", "width", "bits", "bias", "activation"]


@pytest.mark.parametrize(("key", "value", "line"), [
    ("lr", -0.1, "here.lr: expected a number of at least 0, got -0.1"),
    ("lr", "0.1", "here.lr: expected a number of at least 0, got '0.1'"),
    ("lr", True, "here.lr: expected a number of at least 0, got True"),
    ("lr", None, "here.lr: expected a number of at least 0, got None"),
    ("lr", float("nan"), "here.lr: expected a number of at least 0, got nan"),
    ("lr", float("inf"), "here.lr: expected a number of at least 0, got inf"),
    ("lr", [0.1], "here.lr: expected a number of at least 0, got [0.1]"),
    ("rho", 0, "here.rho: expected a number above 0, got 0"),
    ("p", 1, "here.p: expected a number in [0, 1), got 1"),
    ("p", -0.5, "here.p: expected a number in [0, 1), got -0.5"),
    ("a", "x", "here.a: expected a number, got 'x'"),
    ("width", 0, "here.width: expected a whole number of at least 1, got 0"),
    ("width", 1.5, "here.width: expected a whole number of at least 1, got 1.5"),
    ("width", True, "here.width: expected a whole number of at least 1, got True"),
    ("bits", 33, "here.bits: expected a whole number in [1, 32], got 33"),
    ("bias", 1, "here.bias: expected true or false, got 1"),
    ("bias", "true", "here.bias: expected true or false, got 'true'"),
    ("activation", "rellu", "here.activation: expected one of relu, tanh, got 'rellu'; did you mean 'relu'?"),
    ("activation", 3, "here.activation: expected one of relu, tanh, got 3; there is: relu, tanh"),
    ("widht", 3, "here.widht: no such key; did you mean 'width'?"),
    ("zzz", 3, "here.zzz: no such key; there is: a, activation, bias, bits, lr, p, rho, width"),
])
def test_error_lines(key, value, line):
    with pytest.raises(UserError) as error:
        parse(Component, {key: value}, "here")
    assert str(error.value) == line


@pytest.mark.parametrize(("key", "value"), [("lr", 0), ("rho", 1e-300), ("p", 0), ("p", 0.999), ("a", -1e9),
                                            ("width", 1), ("bits", 1), ("bits", 32)])
def test_ends_of_the_range(key, value):
    assert getattr(parse(Component, {key: value}, "here"), key) == value


def test_open_low_with_a_finite_high():
    @dataclass(frozen=True)
    class Fraction:
        f: float = real(0.5, low=0, high=1, open_low=True, help="(0, 1]")

    assert expectation(declared(Fraction)["f"]) == "a number in (0, 1]"
    assert parse(Fraction, {"f": 1}, "here").f == 1
    with pytest.raises(UserError):
        parse(Fraction, {"f": 0}, "here")


def test_did_you_mean():
    assert did_you_mean("dropuot", ["dropout", "sam"]) == "did you mean 'dropout'?"
    assert did_you_mean("x", ["b", "a"]) == "there is: a, b"
    assert did_you_mean("x", []) == "there is none"
