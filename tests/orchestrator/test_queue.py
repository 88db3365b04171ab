"""The queue: what is handed out, in which packs, and what happens to trials that do not come back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from orchestrator.queue import PACK_SECONDS, Pack, Queue
from trials.spec import TrialSpec

BASE = TrialSpec({"name": "digits", "split_seed": 0}, {"name": "mlp"}, {"name": "sgd"},
                 {"steps": 1, "epochs": 0.0, "stop_train_loss": 0.0})


def specs(works: list[int]) -> list[TrialSpec]:
    """Trials whose work is their batch size."""
    return [replace(BASE, seed=seed, batch_size=work) for seed, work in enumerate(works)]


def queue(stream: list[TrialSpec | None], committed: set[str] | None = None, workers: int = 2,
          lanes: int = 1) -> Queue:
    return Queue(iter(stream), committed or set(), lambda spec: float(spec.batch_size), workers,
                 lambda spec: spec.precision, lanes)


def drain(work: Queue, seconds_per_unit: float) -> list[Pack]:
    packs = []
    while (pack := work.next_pack()) is not None:
        packs.append(pack)
        for trial_id, spec in list(pack.specs.items()):
            work.came_back(pack.number, [trial_id], seconds_per_unit * spec.batch_size)
        assert work.ended(pack.number) == {}
    return packs


def test_every_trial_once_longest_first() -> None:
    trials = specs([5, 1, 100, 7, 50])
    packs = drain(queue([*trials]), seconds_per_unit=1.0)
    order = [spec.batch_size for pack in packs for spec in pack.specs.values()]
    assert order[0] == 100
    assert sorted(order) == [1, 5, 7, 50, 100]


def test_committed_and_repeated_trials_are_left_out() -> None:
    trials = specs([1, 2, 3])
    work = queue([*trials, *trials], committed={trials[1].trial_id})
    handed = [trial_id for pack in drain(work, 1.0) for trial_id in pack.specs]
    assert sorted(handed) == sorted([trials[0].trial_id, trials[2].trial_id])
    assert work.finished


def test_short_trials_share_a_pack_and_long_ones_do_not() -> None:
    short = drain(queue(list(specs([10] * 4000))), seconds_per_unit=1e-4)
    assert len(short) < 60
    assert max(len(pack.specs) for pack in short) <= PACK_SECONDS / 1e-2
    long = drain(queue(list(specs([10] * 50))), seconds_per_unit=1.0)
    assert all(len(pack.specs) == 1 for pack in long[2:])


def test_packs_shrink_towards_the_end_so_that_workers_finish_together() -> None:
    packs = drain(queue(list(specs([1] * 64)), workers=2), seconds_per_unit=1e-6)
    sizes = [len(pack.specs) for pack in packs]
    assert sizes[0] == 16 and sizes[-1] == 1


def test_trials_that_did_not_come_back_are_told_and_run_alone() -> None:
    trials = specs([3, 3, 3])
    work = queue([*trials], workers=1)
    pack = work.next_pack()
    assert pack is not None and len(pack.specs) == 2
    first, second = pack.specs
    work.came_back(pack.number, [first], 0.1)
    missing = work.ended(pack.number)
    assert list(missing) == [second]
    work.again(missing[second], 1)
    assert not work.finished
    again = work.next_pack()
    assert again is not None and list(again.specs) == [second] and again.attempts == {second: 1}


def test_a_design_that_waits_is_asked_again() -> None:
    trials = specs([1, 2])
    results: list[str] = []

    def stream() -> Iterator[TrialSpec | None]:
        yield trials[0]
        while not results:
            yield None
        yield trials[1]

    work = Queue(stream(), set(), lambda spec: 1.0, 4, lambda spec: "", 1)
    pack = work.next_pack()
    assert pack is not None and list(pack.specs) == [trials[0].trial_id]
    assert work.next_pack() is None and not work.finished
    work.came_back(pack.number, [trials[0].trial_id], 0.1)
    work.ended(pack.number)
    results.append("done")
    second = work.next_pack()
    assert second is not None and list(second.specs) == [trials[1].trial_id]
    work.came_back(second.number, list(second.specs), 0.1)
    work.ended(second.number)
    assert work.next_pack() is None and work.finished


def test_time_left_follows_what_was_timed() -> None:
    work = queue(list(specs([10, 10, 10, 10])), workers=2)
    pack = work.next_pack()
    assert pack is not None
    work.came_back(pack.number, list(pack.specs), seconds=len(pack.specs) * 10 * 0.5)
    assert work.seconds(20.0) == pytest.approx(20 * 0.5 / 2)
