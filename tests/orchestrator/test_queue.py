"""The queue: what is handed out, in which packs, and what happens to trials that do not come back."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest

from orchestrator.queue import LANES, LEAST_LANES, LEAST_SECONDS, PACK_SECONDS, PER_TRIAL, WINDOW, Pack, Queue
from trials.spec import TrialSpec

BASE = TrialSpec({"name": "digits", "split_seed": 0}, {"name": "mlp"}, {"name": "sgd"},
                 {"steps": 1, "epochs": 0.0, "stop_train_loss": 0.0})


def specs(works: list[int]) -> list[TrialSpec]:
    """Trials whose work is their batch size."""
    return [replace(BASE, seed=seed, batch_size=work) for seed, work in enumerate(works)]


def queue(stream: list[TrialSpec | None], committed: set[str] | None = None, workers: int = 2,
          lanes: int = 1) -> Queue:
    return Queue(iter(stream), committed or set(), lambda spec: float(spec.batch_size), {"cpu": workers},
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
    short = drain(queue(list(specs([10] * 4000))), seconds_per_unit=1e-3)
    fitting = PACK_SECONDS / (1e-2 + PER_TRIAL)  # what a pack holds, once it is known how long one takes
    assert fitting <= max(len(pack.specs) for pack in short[1:]) < fitting + 1.0
    assert len(short) < 60
    tiny = drain(queue(list(specs([1] * 4000))), seconds_per_unit=1e-9)
    assert len(tiny) < 40
    long = drain(queue(list(specs([10] * 50))), seconds_per_unit=1.0)
    assert all(len(pack.specs) == 1 for pack in long[2:])


def test_packs_shrink_towards_the_end_so_that_workers_finish_together() -> None:
    packs = drain(queue(list(specs([1] * 64)), workers=2), seconds_per_unit=1.0)
    sizes = [len(pack.specs) for pack in packs]
    assert sizes[0] == 16 and sizes[-1] == 1


def test_brief_trials_are_not_shared_out_at_the_end() -> None:
    """A pack of less than half a second costs more to hand out than it gains."""
    packs = drain(queue(list(specs([1] * 64)), workers=2), seconds_per_unit=1e-6)
    assert [len(pack.specs) for pack in packs] == [16, 48]
    packs = drain(queue(list(specs([1] * 64)), workers=2), seconds_per_unit=0.1)
    assert all(len(pack.specs) * 0.101 > LEAST_SECONDS for pack in packs[:-1])


def runs(pack: Pack) -> list[tuple[str, int]]:
    """Structures (here: precisions) of a pack in the order in which they come, and how many of each in a row."""
    kinds = [spec.precision for spec in pack.specs.values()]
    return [(kind, len(list(group))) for kind, group in itertools.groupby(kinds)]


def of_three_kinds(count: int) -> list[TrialSpec]:
    return [replace(spec, precision="abc"[place % 3]) for place, spec in enumerate(specs([10] * count))]


def test_a_pack_takes_all_of_a_kind_before_it_begins_another() -> None:
    left = dict.fromkeys("abc", 500)
    packs = drain(queue([*of_three_kinds(1500)], lanes=64), seconds_per_unit=1e-6)
    assert max(len(runs(pack)) for pack in packs) > 1
    for pack in packs:
        for number, (kind, count) in enumerate(runs(pack), 1):
            left[kind] -= count
            assert left[kind] == 0 or number == len(runs(pack))
    assert not any(left.values())


def test_long_trials_go_together_by_64_of_a_kind_while_there_are_so_many() -> None:
    left = dict.fromkeys("abc", 500)
    packs = drain(queue([*of_three_kinds(1500)], lanes=64), seconds_per_unit=1.0)
    for number, pack in enumerate(packs):
        waiting, [(kind, count)] = sum(left.values()), runs(pack)  # of one kind, for another would make it too long
        if number and waiting >= 4 * 64:  # the first is handed out before any has been timed
            assert count == min(64, left[kind])
        left[kind] -= count
    assert not any(left.values())


def test_packs_stay_worth_their_lanes_towards_the_end() -> None:
    left, sizes = 1000, []
    for pack in drain(queue(list(specs([10] * 1000)), workers=2, lanes=64), seconds_per_unit=1.0):
        size = len(pack.specs)
        if left >= 2 * LEAST_LANES:
            assert size >= LEAST_LANES
        if left >= 4 * 64 and sizes:  # the first is handed out before any has been timed
            assert size == 64
        assert size <= max(-(-left // 2), 1)  # the other worker gets as many
        left -= size
        sizes.append(size)
    assert sizes[1:] == sorted(sizes[1:], reverse=True) and sizes[-1] == 1


@pytest.mark.parametrize("lanes", [2, 5])
def test_fewer_lanes_than_are_worth_it_where_the_study_says_so(lanes: int) -> None:
    packs = drain(queue(list(specs([10] * 100)), workers=2, lanes=lanes), seconds_per_unit=10.0)
    sizes = [len(pack.specs) for pack in packs]
    assert set(sizes[1:-3]) == {lanes} and sum(sizes) == 100


def test_replicates_are_adjacent() -> None:
    """Lanes with one seed share their batches, but replicates of one setting are compared: they end together."""
    settings = [{"name": "sgd", "lr": lr} for lr in (0.1, 0.2, 0.3, 0.4, 0.5)]
    trials = [replace(BASE, optimizer=setting, seed=seed, batch_size=size)
              for size in (1, 2) for setting in settings for seed in range(3)]
    handed = [spec for pack in drain(queue([*trials], lanes=64), 1e-6) for spec in pack.specs.values()]
    assert [spec.batch_size for spec in handed] == [2] * 15 + [1] * 15  # longest first
    for start in range(0, 30, 3):
        three = handed[start : start + 3]
        assert len({spec.optimizer["lr"] for spec in three}) == 1 and [spec.seed for spec in three] == [0, 1, 2]


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

    work = Queue(stream(), set(), lambda spec: 1.0, {"cpu": 4}, lambda spec: "", 1)
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


SLOTS = {"cuda": 2, "cpu": 6}
PACE = {"cuda": 1.0, "cpu": 8.0}  # seconds a unit of work


def of_both(count: int, slots: dict[str, int], lanes: int = 1) -> Queue:
    return Queue(iter(specs([10] * count)), set(), lambda spec: float(spec.batch_size), slots, lambda spec: "", lanes)


def train_all(work: Queue, pack: Pack) -> None:
    trials = list(pack.specs.values())
    work.came_back(pack.number, list(pack.specs), PACE[pack.device] * sum(spec.batch_size for spec in trials))
    assert work.ended(pack.number) == {}


def test_each_device_has_packs_for_all_its_workers() -> None:
    work, running = of_both(1000, SLOTS), []
    for _ in range(8):
        pack = work.next_pack()
        assert pack is not None
        running.append(pack)
    assert Counter(pack.device for pack in running) == SLOTS
    for ended in (running[0], running[-1], running[3]):  # whoever ends gets the next
        train_all(work, ended)
        pack = work.next_pack()
        assert pack is not None and pack.device == ended.device


def test_a_device_gets_as_many_trials_as_it_is_fast() -> None:
    """At the end all finish together, where two devices of one worker each differ eightfold in pace."""
    work, now, left = of_both(450, {"cuda": 1, "cpu": 1}), 0.0, 450
    running: list[tuple[float, int, Pack]] = []
    ends: dict[str, float] = {}
    while running or not work.finished:
        while len(running) < 2 and (pack := work.next_pack()) is not None:
            took = PACE[pack.device] * 10 * len(pack.specs)
            running.append((now + took, pack.number, pack))
        now, _, pack = running.pop(running.index(min(running)))
        left -= len(pack.specs)
        train_all(work, pack)
        ends[pack.device] = now
    assert left == 0
    assert now < 1.2 * 450 * 10 / (1 / PACE["cuda"] + 1 / PACE["cpu"])
    assert abs(ends["cuda"] - ends["cpu"]) <= PACE["cpu"] * 10


@pytest.mark.parametrize(("lanes", "sizes"), [(0, LANES), (32, {"cuda": 32, "cpu": 32})])
def test_a_pack_holds_the_lanes_that_its_device_wants(lanes: int, sizes: dict[str, int]) -> None:
    work = of_both(12_000, {"cuda": 1, "cpu": 1}, lanes)
    first, second = work.next_pack(), work.next_pack()
    assert first is not None and second is not None
    train_all(work, first)  # so that each is timed
    train_all(work, second)
    found = [work.next_pack(), work.next_pack()]
    assert {pack.device: len(pack.specs) for pack in found if pack is not None} == sizes


def test_workers_that_come_and_go_are_followed() -> None:
    slots = {"cuda": 0, "cpu": 1}
    work = of_both(1000, slots)
    first = work.next_pack()
    assert first is not None and first.device == "cpu" and len(first.specs) == 500
    train_all(work, first)
    assert work.seconds(8.0) == pytest.approx(64.0)
    slots["cpu"] = 8
    assert work.seconds(8.0) == pytest.approx(8.0)
    slots.update(cuda=1, cpu=0)
    second = work.next_pack()
    assert second is not None and second.device == "cuda"
    slots["cuda"] = 0  # nobody is there: what is handed out waits, for a CPU
    third = work.next_pack()
    assert third is not None and third.device == "cpu"


def test_what_is_committed_need_not_be_remembered() -> None:
    trials, committed = specs([1] * 20_000), set[str]()
    work = Queue(iter([*trials, *trials]), committed, lambda spec: 1.0, {"cpu": 2}, lambda spec: "", 1)
    handed = 0
    while (pack := work.next_pack()) is not None:
        handed += len(pack.specs)
        work.came_back(pack.number, list(pack.specs), 1e-6 * len(pack.specs))
        committed.update(pack.specs)
        work.ended(pack.number)
        assert len(work._seen) <= 3 * WINDOW + len(pack.specs)
    assert handed == 20_000 and work.finished


def test_every_trial_of_a_kind_that_cannot_be_packed_counts_as_trained_alone() -> None:
    """Also one that had its pack to itself, in a process that has not found out why."""
    trials = [replace(BASE, seed=seed, precision=kind) for kind in ("float32", "float64") for seed in range(3)]
    work = queue([*trials], lanes=8)
    packs = [*iter(work.next_pack, None)]
    for pack in packs:
        alone = {trial_id: "it counts" if spec.seed == 1 and spec.precision == "float64" else ""
                 for trial_id, spec in pack.specs.items()}
        work.came_back(pack.number, [*pack.specs], 0.1, alone)
    assert work.alone == {"it counts": 3}
