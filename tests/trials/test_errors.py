"""What a user's code raises is one line of valid text, whatever it is."""

from __future__ import annotations

import pytest

from trials.errors import describe, did_you_mean


class Broken(Exception):
    def __str__(self) -> str:
        return str(1 / 0)


def test_an_exception_without_a_message_keeps_its_name() -> None:
    assert describe(Broken()) == "Broken: (its message cannot be had: ZeroDivisionError)"


def test_text_that_no_file_can_hold_is_escaped() -> None:
    line = describe(ValueError("a\udcff\n b"))
    assert line == "ValueError: a\\udcff b" and line.encode()


@pytest.mark.parametrize(("name", "meant"), [
    ("wd", "weight_decay"), ("bn", "model_bn"), ("lr", "trial.optimizer.lr"), ("widht", "width"),
    ("weigth_decay", "weight_decay")])
def test_the_nearest_name_is_one_that_it_ends_or_abbreviates(name: str, meant: str) -> None:
    known = ["width", "weight_decay", "nc4", "model_bn", "trial.optimizer.lr", "learning"]
    assert did_you_mean(name, known) == f"did you mean '{meant}'?"
