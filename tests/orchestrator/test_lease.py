"""Never two drivers, and never none for good."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import driving
import pytest
from support import in_memory

from orchestrator import lease
from orchestrator.folder import Folder
from orchestrator.lease import Lease, holder
from trials.errors import UserError

REFUSED = r"another driver \(host .*, pid \d+, since 20.*\) runs this study; wait for it, or stop it"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW", 0.05)
    monkeypatch.setattr(lease, "WATCH", 0.6)
    monkeypatch.setattr(lease, "PAUSE", 0.05)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder.open(tmp_path)


def write(folder: Folder, **changes: Any) -> None:
    """A lease of another machine, current unless changed."""
    now = time.time()
    content = {"owner": "x", "host": "far", "machine": "another", "pid": 1, "process_start": 1, "started": now,
               "expires": now + lease.EXPIRY, **changes}
    folder.write(".lease", json.dumps(content).encode())


def renew_elsewhere(folder: Folder, ended: threading.Event, **changes: Any) -> threading.Thread:
    """Another machine's driver, alive."""
    def renews() -> None:
        for count in range(10**6):
            write(folder, **{**changes, "expires": changes["expires"] + count / 1000})
            if ended.wait(0.05):
                return

    thread = threading.Thread(target=renews)
    write(folder, **changes)
    thread.start()
    return thread


def test_the_second_driver_is_refused_and_the_first_goes_on(folder: Folder) -> None:
    assert holder(folder) is None
    with Lease(folder) as first:
        assert f"pid {os.getpid()}" in str(holder(folder))
        with pytest.raises(UserError, match=REFUSED) as caught, Lease(folder):
            pass
        assert f"pid {os.getpid()}" in str(caught.value) and "\n" not in str(caught.value)
        first.check()
    assert folder.list() == [] and holder(folder) is None
    with Lease(folder):
        pass


def test_a_process_killed_a_moment_ago_is_succeeded_at_once(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "WATCH", 1e9)
    program = ("import sys, time; from orchestrator.folder import Folder; from orchestrator.lease import Lease\n"
               "with Lease(Folder.open(sys.argv[1])): print('in', flush=True); time.sleep(100)")
    with subprocess.Popen([sys.executable, "-c", program, folder.root], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"in\n"
        with pytest.raises(UserError, match=f"pid {process.pid}"), Lease(folder):
            pass
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        # It has ended, but nobody has taken its status yet: it is a zombie, whose number is still taken.
        assert holder(folder) is None
        with Lease(folder) as successor:
            successor.check()
            process.wait()
            successor.check()


def test_a_process_number_used_again_is_not_the_owner(folder: Folder) -> None:
    with Lease(folder):
        content = json.loads(folder.read(".lease"))
    content["process_start"] -= 1
    folder.write(".lease", json.dumps({**content, "owner": "x"}).encode())
    with Lease(folder) as successor:
        successor.check()


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"pid": 3}'])
def test_garbage_is_taken_over(folder: Folder, garbage: bytes) -> None:
    folder.write(".lease", garbage)
    with Lease(folder) as held:
        held.check()


@pytest.mark.parametrize("wrong", [{"pid": -1}, {"pid": 0}, {"pid": 2**70}, {"pid": "1"}, {"started": 1e300},
                                   {"expires": None}, {"started": "now"}])
def test_nonsense_is_taken_over(folder: Folder, wrong: dict[str, Any]) -> None:
    write(folder, **wrong)
    with Lease(folder) as held:
        held.check()


def test_another_machine_is_refused_while_its_lease_is_good(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "WATCH", 1e9)  # at once
    write(folder)
    assert "host far" in str(holder(folder))
    with pytest.raises(UserError, match=REFUSED), Lease(folder):
        pass


# By this machine's clock the owner's last renewal is long past, or yet to come by more than a lease can last.
@pytest.mark.parametrize("skew", [-1.0, -1e6, 1e3, 1e8])
def test_clocks_that_disagree_neither_let_in_nor_lock_out(folder: Folder, skew: float) -> None:
    ended = threading.Event()
    thread = renew_elsewhere(folder, ended, expires=time.time() + skew)
    try:
        with pytest.raises(UserError, match=REFUSED), Lease(folder):
            pass
    finally:
        ended.set()
        thread.join()
    with Lease(folder) as successor:
        successor.check()


def test_a_clock_set_back_does_not_end_or_share_a_lease(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    with Lease(folder) as held:
        now = time.time
        for shift in (-1e6, 1e6):
            with monkeypatch.context() as patch:
                patch.setattr(lease.time, "time", lambda shift=shift: now() + shift)
                time.sleep(0.15)
                held.check()
                with pytest.raises(UserError, match=REFUSED), Lease(folder):
                    pass
        held.check()


def test_an_owner_that_was_succeeded_stops(folder: Folder) -> None:
    with Lease(folder) as held:
        write(folder)
        for _ in range(2):
            with pytest.raises(UserError, match=r"another driver \(host far.* has taken over; this one stops"):
                held.check()
        time.sleep(0.2)
        assert json.loads(folder.read(".lease"))["host"] == "far"  # not renewed over the successor's
    assert json.loads(folder.read(".lease"))["host"] == "far"  # nor removed


def test_a_lease_is_renewed_and_put_back_if_removed(folder: Folder) -> None:
    with Lease(folder) as held:
        before = folder.read(".lease")
        driving.wait(lambda: folder.read(".lease") != before, seconds=60)
        folder.delete(".lease")
        held.check()
        with pytest.raises(UserError, match=REFUSED), Lease(folder):
            pass


def test_a_lease_that_cannot_be_renewed_is_lost(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    with Lease(folder) as held:
        write_as_before = Folder.write

        def fails(self: Folder, name: str, data: bytes) -> None:
            raise UserError("cannot write")

        with monkeypatch.context() as patch:
            patch.setattr(Folder, "write", fails)
            time.sleep(0.2)
            held.check()  # a short outage does no harm
            patch.setattr(lease, "EXPIRY", 0.1)
            driving.wait(lambda: "could not be renewed" in _said(held), seconds=60)
        assert Folder.write is write_as_before
        assert "could not be renewed" in _said(held)  # for good


def _said(held: Lease) -> str:
    """What it says where it is lost."""
    try:
        held.check()
    except UserError as error:
        return str(error)
    return ""


def unhurried(patch: pytest.MonkeyPatch) -> None:
    """A pause that outlasts a busy machine, and no renewals meanwhile: to a file in memory they are not atomic."""
    patch.setattr(lease, "PAUSE", 1.0)
    patch.setattr(lease, "RENEW", 60.0)


def test_of_many_contenders_for_a_dead_lease_one_wins(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    unhurried(monkeypatch)
    write(folder, expires=time.time() - 1)
    _contend(folder)


def test_of_many_contenders_without_exclusive_creation_one_wins(tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    unhurried(monkeypatch)
    _contend(in_memory(tmp_path.name))


def test_of_two_that_got_in_because_one_was_held_up_one_may_write(tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    unhurried(monkeypatch)
    real, first = Folder._put, threading.Lock()

    def held_up(self: Folder, path: str, data: bytes) -> None:
        if first.acquire(blocking=False):
            time.sleep(2.5)  # longer than the others pause
        real(self, path, data)

    monkeypatch.setattr(Folder, "_put", held_up)
    _contend(in_memory(tmp_path.name))


def _contend(folder: Folder) -> None:
    """Six at once. One that was held up for long at the wrong moment gets in after another: what counts is who may
    write once all have been let in or refused."""
    everyone, won, refused = threading.Barrier(6, timeout=120), [], []

    def contends() -> None:
        everyone.wait()
        with ExitStack() as inside:
            try:
                try:
                    held = inside.enter_context(Lease(folder))
                finally:
                    everyone.wait()  # all have been let in or refused
                held.check()
                won.append(held)
            except UserError as error:
                refused.append(str(error))
            everyone.wait()  # nobody leaves before all have looked

    threads = [threading.Thread(target=contends) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(refused)) == (1, 5), refused
