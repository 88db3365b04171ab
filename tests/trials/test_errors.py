"""What a user's code raises is one line of valid text, whatever it is."""

from __future__ import annotations

from trials.errors import describe


class Broken(Exception):
    def __str__(self) -> str:
        return str(1 / 0)


def test_an_exception_without_a_message_keeps_its_name() -> None:
    assert describe(Broken()) == "Broken: (its message cannot be had: ZeroDivisionError)"


def test_text_that_no_file_can_hold_is_escaped() -> None:
    line = describe(ValueError("a\udcff\n b"))
    assert line == "ValueError: a\\udcff b" and line.encode()
