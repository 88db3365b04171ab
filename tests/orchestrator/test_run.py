"""Connecting while the rest is imported: what a run does around its sweep."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from cluster import Connection
from orchestrator.run import _meanwhile

CONNECTION = Connection("a cluster", True, 1, 2.0, 0.0)


def connecting(seen: list[bool], before: Callable[[], object] = lambda: None) -> Callable[
        [], AbstractContextManager[Connection]]:
    """Notes on leaving whether the thread is alive that connected; what it started is killed with it by the kernel."""
    @contextmanager
    def connect() -> Iterator[Connection]:
        before()
        thread = threading.current_thread()
        assert thread is not threading.main_thread()
        try:
            yield CONNECTION
        finally:
            seen.append(thread.is_alive())
    return connect


def test_what_was_connected_is_left_before_the_thread_that_connected_ends() -> None:
    seen: list[bool] = []
    with _meanwhile(connecting(seen)()) as connected:
        assert connected.result() is CONNECTION and seen == []
    assert seen == [True]


def test_an_interrupt_while_connecting_leaves_what_comes_up() -> None:
    seen: list[bool] = []
    goes_on = threading.Event()
    with pytest.raises(KeyboardInterrupt), _meanwhile(connecting(seen, goes_on.wait)()):
        threading.Timer(0.2, goes_on.set).start()
        raise KeyboardInterrupt
    assert seen == [True]


def test_an_error_in_connecting_is_that_of_its_result() -> None:
    def fails() -> None:
        raise ValueError("no")
    with pytest.raises(ValueError, match="no"), _meanwhile(connecting([], fails)()) as connected:
        connected.result()
