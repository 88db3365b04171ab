from __future__ import annotations

import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.yaml_text import dump, parse
from trials.errors import UserError

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\ufeff\ufffe\uffff")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcyn01e-.", max_size=5), inner, max_size=4),
    max_leaves=12)


@settings(max_examples=150, deadline=None)
@given(plain)
def test_dump_and_parse_are_inverse(data: object) -> None:
    assert parse(dump(data)) == data


@given(st.text("0123456789e-+._:xyno~", min_size=1, max_size=6))
def test_text_is_quoted_so_that_a_yaml_1_1_reader_sees_text_too(text: str) -> None:
    assert yaml.safe_load(dump({"key": text})) == {"key": text}


@pytest.mark.parametrize(("text", "value"), [
    ("1e-3", 1e-3), ("1E5", 1e5), (".5", 0.5), ("-2.", -2.0), ("010", 10), ("1:30", "1:30"), ("yes", "yes"),
    ("on", "on"), ("true", True), ("null", None), ("~", None), ("", None), ("2024-01-01", "2024-01-01"),
    ("0x10", "0x10"), ("1_000", "1_000"), ("'3'", "3"), ("net.py:make", "net.py:make"),
])
def test_scalars_mean_what_they_look_like(text: str, value: object) -> None:
    parsed = parse(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_float_and_int_do_not_mix() -> None:
    assert isinstance(parse("1"), int) and isinstance(parse("1.0"), float)
    assert math.isclose(parse("[1.5e2]")[0], 150)


@pytest.mark.parametrize(("text", "message"), [
    ("a: 1\nb: 2\na: 3", "line 3: a: duplicate key"),
    ("a: {b: 1, b: 2}", "line 1: b: duplicate key"),
    ("a: &x [1]\nb: *x", r"line 2: aliases .* are not allowed; write \$\{key\}"),
    ("a: &x [*x]", "line 1: aliases"),
    ("<<: {a: 1}\nb: 1\n? [1]\n: 2", r"line 1: expected a key that is text, got \[1\]"),
    ("1: 2", "line 1: expected a key that is text, got 1; quote it"),
    ("a: !!python/object/apply:os.system [ls]", "line 1: the tag .*python/object.* is not allowed"),
    ("a: !!set {x}", "line 1: the tag .* is not allowed"),
    ("a: !!int x", "line 1: expected int, got 'x'"),
    ("a: " + "9" * 5000, "line 1: expected int"),
    ("a: [1, 2", "line 1: "),
    ("a: b: c", "line 1: a key stands where none can be: .*indented.*quotes"),
    ("a:\n b: 1\n  c: 2", "line 3: a key stands where none can be"),
    ("a:\n b: [1]\n  c: 2", "line 3: indented unlike the lines above it"),
    ("a:\n  b: 1\n c: 2", "line 3: indented unlike"), ("a:\n\tb: 1", "line 2: indented by a tab"),
    ("a: 1\n---\nb: 2", "line 2: "),
    ("a: \x07", "not YAML"),
    ("[" * 100_000, "line 1: nested more than 20 deep"),
])
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(text)
