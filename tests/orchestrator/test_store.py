"""The store holds whole trials, each once, whatever happens between two writes."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import random
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs as pafs
from support import in_memory

from orchestrator import parts
from orchestrator.folder import Folder
from orchestrator.store import Store, committed, read_trials
from trials import records
from trials.errors import UserError
from trials.records import TABLES, Rows

CONFIG = {"batch_size": pa.int64(), "lr": pa.float64(), "task": pa.string()}
SCHEMAS = records.schemas(CONFIG, ["batch_size"])
STEPS, LAYERS = (0, 1, 10), ("fc1", "fc2")


def rows(numbers: Sequence[int], schemas: dict[str, pa.Schema] = SCHEMAS, **config: Any) -> Rows:
    """Rows of trials whose every number follows from the trial's own."""
    listed: dict[str, list[dict[str, Any]]] = {table: [] for table in TABLES}
    for n in numbers:
        own = {"trial_id": f"t{n}", "batch_size": n % 7, "lr": n / 8, "task": "digits", **config}
        listed["trials"].append({**own, "status": "failed" if n % 5 == 4 else "completed", "steps": n})
        for step in STEPS:
            listed["steps"].append({**own, "step": step, "train_loss": n + step / 100})
            for layer in LAYERS:
                listed["layers"].append({**own, "step": step, "layer": layer, "rows": n})
                listed["spectra"].append({**own, "step": step, "layer": layer, "eigenvalues": [float(n), step]})
    return Rows.build(schemas, listed)


def expect(folder: Folder, numbers: Sequence[int], read: Any = None) -> None:
    """Exactly these trials are there, each whole and once, with the numbers they were made from."""
    read = read or (lambda table: pd.read_parquet(folder.path(table)))
    ids = sorted(f"t{n}" for n in numbers)
    frames = {table: read(table) for table in TABLES}
    assert sorted(frames["trials"].trial_id) == ids
    for table, keys in (("steps", 1), ("layers", len(LAYERS)), ("spectra", len(LAYERS))):
        frame = frames[table]
        assert sorted(frame.trial_id) == sorted(ids * len(STEPS) * keys), table
        assert (frame.batch_size == frame.trial_id.str[1:].astype(int) % 7).all()
        assert len(frame.drop_duplicates([c for c in ("trial_id", "step", "layer") if c in frame])) == len(frame)
    numbered = frames["steps"].trial_id.str[1:].astype(int)
    assert (frames["steps"].train_loss == numbered + frames["steps"].step / 100).all()
    assert all(list(e) == [int(i[1:]), s] for i, s, e in
               frames["spectra"][["trial_id", "step", "eigenvalues"]].itertuples(index=False))
    assert sorted(committed(folder)) == ids


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder.open(tmp_path / "study")


def files(folder: Folder) -> dict[str, bytes]:
    """All files by path, hidden ones too."""
    root = Path(folder.root)
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_commits_are_read_by_pandas_duckdb_and_again(folder: Folder) -> None:
    assert committed(folder) == {}
    store = Store.open(folder, SCHEMAS)
    expect(folder, [])
    for numbers in ([0], [1, 2, 3], [4]):
        store.commit(rows(numbers))
        expect(folder, range(numbers[-1] + 1))
    assert store.statuses == committed(folder) == {**{f"t{n}": "completed" for n in range(4)}, "t4": "failed"}
    assert duckdb.sql(f"select count(*), sum(rows) from '{folder.path('layers')}/*.parquet'").fetchall() == [(30, 60)]
    before = files(folder)
    again = Store.open(folder, SCHEMAS)
    assert again.warnings == [] and again.statuses == store.statuses and again.axes == ["batch_size"]
    assert files(folder) == before  # a store in order is not touched
    again.commit(rows([5]))
    expect(folder, range(6))
    assert read_trials(folder, ["lr", "trial_id", "nosuch"]).slice(4).to_pydict() == {
        "lr": [0.5, 0.625], "trial_id": ["t4", "t5"]}
    field = pq.read_schema(folder.path("layers/part-00000.parquet")).field("rows")
    assert field.metadata == SCHEMAS["layers"].field("rows").metadata and b"unit" in field.metadata


def test_ids_make_commits_idempotent(folder: Folder) -> None:
    store = Store.open(folder, SCHEMAS)
    store.commit(rows([0, 1, 0]))
    store.commit(Rows.concat([rows([1, 2]), rows([2, 0])]))
    expect(folder, range(3))
    before = files(folder)
    store.commit(rows([2, 1]))
    Store.open(folder, SCHEMAS).commit(rows([0]))
    assert files(folder) == before


def test_discarded_trials_are_gone_and_can_come_again(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.store.PART_BYTES", 0)
    store = Store.open(folder, SCHEMAS)
    for numbers in ([0, 1], [2, 3], [4, 5]):
        store.commit(rows(numbers))
    store.discard(["t1", "t4", "unknown"])
    expect(folder, [0, 2, 3, 5])
    assert "t4" not in store.statuses and Store.open(folder, SCHEMAS).warnings == []
    store.commit(rows([4]))
    expect(folder, [0, 2, 3, 4, 5])


def test_many_small_commits_make_few_files(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.store.PART_BYTES", 2**18)
    store = Store.open(folder, SCHEMAS)
    for n in range(500):
        store.commit(rows([n]))
    expect(folder, range(500))
    assert 8 <= len(files(folder)) < 50


class Killed(BaseException):
    """The process ends here."""


def cut_short(patch: pytest.MonkeyPatch, after: int) -> None:
    """Let ``after`` writes through, then nothing more."""
    write, count = Folder.write, iter(range(10**6))

    def writes(self: Folder, name: str, data: bytes) -> None:
        if next(count) >= after:
            raise Killed
        write(self, name, data)

    patch.setattr(Folder, "write", writes)


@pytest.mark.parametrize("limit", [0, 2**20])
@pytest.mark.parametrize("after", range(5))
def test_a_commit_cut_short_leaves_what_was_committed(folder: Folder, monkeypatch: pytest.MonkeyPatch, after: int,
                                                      limit: int) -> None:
    monkeypatch.setattr("orchestrator.store.PART_BYTES", limit)
    store = Store.open(folder, SCHEMAS)
    store.commit(rows([0, 1]))
    with monkeypatch.context() as patch:
        cut_short(patch, after)
        if after < 4:
            with pytest.raises(Killed):
                store.commit(rows([2, 3]))
        else:
            store.commit(rows([2, 3]))
    there = [0, 1] if after < 4 else [0, 1, 2, 3]
    assert committed(folder) == {f"t{n}": "completed" for n in there}
    again = Store.open(folder, SCHEMAS)
    expect(folder, there)
    assert len(again.warnings) == (1 if 0 < after < 4 else 0)
    again.commit(rows([2, 3, 4]))
    expect(folder, range(5))
    assert Store.open(folder, SCHEMAS).warnings == []


@pytest.mark.parametrize("after", range(4))
def test_a_discard_cut_short(folder: Folder, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    store = Store.open(folder, SCHEMAS)
    store.commit(rows(range(5)))
    with monkeypatch.context() as patch:
        cut_short(patch, after)
        with pytest.raises(Killed):
            store.discard(["t4", "t1"])
    Store.open(folder, SCHEMAS)
    expect(folder, [0, 2, 3] if after else range(5))


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("harm", ["truncated", "emptied", "flipped", "deleted", "replaced"])
def test_a_damaged_part_is_set_aside_and_its_trials_run_again(
        folder: Folder, monkeypatch: pytest.MonkeyPatch, table: str, harm: str) -> None:
    monkeypatch.setattr("orchestrator.store.PART_BYTES", 0)
    store = Store.open(folder, SCHEMAS)
    for numbers in ([0, 1], [2, 3], [4, 5]):
        store.commit(rows(numbers))
    path = Path(folder.path(f"{table}/part-00001.parquet"))
    data = path.read_bytes()
    if harm == "deleted":
        path.unlink()
    elif harm == "replaced":  # a sound file, but of other trials
        path.write_bytes(Path(folder.path(f"{table}/part-00002.parquet")).read_bytes())
    else:
        middle = len(data) // 2
        path.write_bytes({"truncated": data[:middle], "emptied": b"",
                          "flipped": data[:middle] + bytes([data[middle] ^ 16]) + data[middle + 1:]}[harm])
    if table == "trials" and harm not in ("deleted", "replaced"):
        with pytest.raises(UserError, match=r"trials/part-00001.parquet is .*the next 'phasesweep run'"):
            committed(folder)
        assert set(read_trials(folder, ["trial_id"], skip_damaged=True)["trial_id"].to_pylist()) == {
            "t0", "t1", "t4", "t5"}
    again = Store.open(folder, SCHEMAS)
    expect(folder, [0, 1, 4, 5])
    assert set(again.statuses) == {"t0", "t1", "t4", "t5"}
    [warning] = again.warnings
    assert "\n" not in warning
    if (table, harm) != ("trials", "deleted"):  # then it looks like a commit cut short
        assert f"{table}/part-00001.parquet" in warning or harm == "replaced"
        assert "run again" in warning
        aside = [name for name in files(folder) if name.startswith(".damaged/")]
        assert len(aside) == (3 if harm == "deleted" else 4)
    again.commit(rows([2, 3]))
    expect(folder, range(6))
    assert Store.open(folder, SCHEMAS).warnings == []


def test_the_only_part_damaged_leaves_readable_tables(folder: Folder) -> None:
    Store.open(folder, SCHEMAS).commit(rows([0]))
    Path(folder.path("steps/part-00000.parquet")).write_bytes(b"PAR1")
    again = Store.open(folder, SCHEMAS)
    assert "1 trials run again" in again.warnings[0]
    expect(folder, [])


@pytest.mark.parametrize("table", TABLES)
def test_every_flipped_bit_and_every_cut_is_noticed(folder: Folder, table: str) -> None:
    Store.open(folder, SCHEMAS).commit(rows([0, 1]))
    path = Path(folder.path(f"{table}/part-00000.parquet"))
    data = path.read_bytes()
    parts.load(folder, table, 0)
    draw = random.Random(f"flips of {table}")
    # Parquet's own checksums leave out the footer: half of the flips go there.
    footer = int.from_bytes(data[-8:-4], "little") + 8
    for position in [draw.randrange(len(data)) for _ in range(100)] + [-draw.randint(1, footer) for _ in range(100)]:
        flipped = bytearray(data)
        flipped[position] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(parts.Damaged):
            parts.load(folder, table, 0)
    for end in (draw.randrange(len(data)) for _ in range(50)):
        path.write_bytes(data[:end])
        with pytest.raises(parts.Damaged):
            parts.load(folder, table, 0)


def test_a_lost_row_is_noticed_in_a_sound_file(folder: Folder) -> None:
    """An older copy of one table, put back by a backup, is intact in itself."""
    store = Store.open(folder, SCHEMAS)
    store.commit(rows([0]))
    old = folder.read("layers/part-00000.parquet")
    store.commit(rows([1]))
    folder.write("layers/part-00000.parquet", old)
    assert "has 6 rows of its trials instead of 12" in Store.open(folder, SCHEMAS).warnings[0]
    expect(folder, [])


def test_trials_copied_in_again_count_once(folder: Folder) -> None:
    Store.open(folder, SCHEMAS).commit(rows([0, 1]))
    for table in TABLES:
        folder.write(f"{table}/part-00007.parquet", folder.read(f"{table}/part-00000.parquet"))
    assert "2 trials of earlier parts" in Store.open(folder, SCHEMAS).warnings[0]
    expect(folder, [0, 1])
    assert Store.open(folder, SCHEMAS).warnings == []


@pytest.mark.parametrize("after", range(4))
def test_a_full_disk_leaves_the_old_state_and_a_later_commit_works(
        folder: Folder, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    store = Store.open(folder, SCHEMAS)
    store.commit(rows([0, 1]))
    write, count = Folder._replace, iter(range(100))

    def fills(path: str, data: bytes) -> None:
        if next(count) >= after:
            raise OSError(28, "No space left on device")
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "_replace", staticmethod(fills))
        with pytest.raises(UserError, match="disk is full"):
            store.commit(rows([2, 3]))
    assert sorted(store.statuses) == sorted(committed(folder)) == ["t0", "t1"]
    assert not [name for name in files(folder) if name.endswith(".tmp")]
    store.commit(rows([3]))
    expect(folder, [0, 1, 3])


def test_another_schema_version_or_origin_is_refused_untouched(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.open(folder, SCHEMAS).commit(rows([0]))

    def refused(match: str) -> None:
        before = files(folder)
        for attempt in (lambda: Store.open(folder, SCHEMAS), lambda: committed(folder)):
            with pytest.raises(UserError, match=match) as caught:
                attempt()
            assert "results=PATH" in str(caught.value) and "\n" not in str(caught.value)
        assert files(folder) == before

    with monkeypatch.context() as patch:
        patch.setattr(parts, "SCHEMA_VERSION", 2)
        refused("has schema version 1, this phasesweep writes 2")
    pd.DataFrame({"x": [1]}).to_parquet(folder.path("trials/part-00001.parquet"))
    refused("part-00001.parquet has no schema version")
    folder.delete("trials/part-00001.parquet")
    folder.write("trials/export.csv", b"x")
    refused("export.csv is not a part of this study")
    folder.delete("trials/export.csv")
    folder.write("trials/_SUCCESS", b"")
    Store.open(folder, SCHEMAS)


def test_columns_come_and_none_vanishes(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.store.PART_BYTES", 0)
    store = Store.open(folder, records.schemas({**CONFIG, "width": pa.int64()}, ["batch_size", "width"]))
    for n in range(3):
        store.commit(rows([n], dict(store.schemas), width=64))
    # lr becomes an axis, width is no longer configured and turns real elsewhere, p is new.
    wanted = records.schemas({**CONFIG, "p": pa.float64()}, ["lr", "batch_size"])
    store = Store.open(folder, wanted)
    store.commit(rows([3], wanted, p=0.5))
    expect(folder, range(4))
    assert store.axes == ["batch_size", "width", "lr"]
    for table in TABLES:
        frame = pd.read_parquet(folder.path(table)).set_index("trial_id")
        assert (frame.lr == frame.index.str[1:].astype(int) / 8).all(), table
        assert (frame.width.drop("t3") == 64).all() and frame.width.loc[["t3"]].isna().all()
    frame = pd.read_parquet(folder.path("trials")).set_index("trial_id")
    assert frame.p.loc["t3"] == 0.5 and frame.p.drop("t3").isna().all()
    schema = pq.read_schema(folder.path("trials/part-00000.parquet"))
    assert schema.field("lr").metadata[b"description"] == b"axis of the study"
    assert schema.field("wall_time").metadata[b"unit"] == b"s"
    # Whole numbers become real in all tables, also where only one of them is asked to.
    real = records.schemas({**CONFIG, "width": pa.float64()}, ["lr"])
    store = Store.open(folder, real)
    store.commit(rows([4], real, width=0.5))
    expect(folder, range(5))
    for table in TABLES:
        frame = pd.read_parquet(folder.path(table)).set_index("trial_id")
        assert frame.width.dtype == "float64" and frame.width["t0"] is not None
        assert set(frame.width.loc[["t0"]]) == {64.0} and set(frame.width.loc[["t4"]]) == {0.5}
    # Two studies that take turns do not rewrite each other's columns.
    Store.open(folder, wanted)
    store = Store.open(folder, real)
    assert store.warnings == [] and store.axes == ["batch_size", "width", "lr"]
    with pytest.raises(UserError, match=r"trials: column lr is double there, but string in this study"):
        Store.open(folder, records.schemas({"lr": pa.string()}, []))
    expect(folder, range(5))


def test_a_whole_number_too_large_to_become_real_is_said_so(folder: Folder) -> None:
    store = Store.open(folder, SCHEMAS)
    store.commit(rows([0], batch_size=2**53 + 1))
    with pytest.raises(UserError, match=r"trials: column batch_size holds a number that double does not"):
        Store.open(folder, records.schemas({**CONFIG, "batch_size": pa.float64()}, ["batch_size"]))
    assert pd.read_parquet(folder.path("trials")).batch_size.to_list() == [2**53 + 1]


@pytest.mark.parametrize("after", range(8))
def test_evolution_cut_short_is_finished_by_the_next_start(folder: Folder, monkeypatch: pytest.MonkeyPatch,
                                                           after: int) -> None:
    monkeypatch.setattr("orchestrator.store.PART_BYTES", 0)
    store = Store.open(folder, SCHEMAS)
    store.commit(rows([0, 1]))
    store.commit(rows([2]))
    wanted = records.schemas(CONFIG, ["batch_size", "lr"])
    with monkeypatch.context() as patch:
        cut_short(patch, after)
        with pytest.raises(Killed):
            Store.open(folder, wanted)
    expect(folder, range(3))  # readers are served meanwhile
    assert Store.open(folder, wanted).warnings == []
    for table in TABLES:
        frame = pd.read_parquet(folder.path(table))
        assert (frame.lr == frame.trial_id.str[1:].astype(int) / 8).all()
    expect(folder, range(3))


@pytest.mark.parametrize("kind", ["memory", "subtree"])
def test_other_filesystems_give_the_same_tables(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.store.PART_BYTES", 2**13)
    local = Folder.open(tmp_path / "local")
    other = (in_memory(f"{tmp_path.name}-study") if kind == "memory"
             else Folder.open("/study", pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())))
    for folder in (local, other):
        store = Store.open(folder, SCHEMAS)
        for n in range(12):
            store.commit(rows([n]))
        with monkeypatch.context() as patch:
            cut_short(patch, 2)
            with pytest.raises(Killed):
                store.commit(rows([12]))
        assert len(folder.list("steps")) > 1
        folder.write("steps/part-00000.parquet", folder.read("steps/part-00000.parquet")[:-1])
        store = Store.open(folder, SCHEMAS)
        assert len(store.warnings) == 2
        store.commit(rows(range(13)))

    def read(table: str) -> pd.DataFrame:
        return pq.read_table(other.path(table), filesystem=other.filesystem).to_pandas()

    expect(local, range(13))
    expect(other, range(13), read)
    for table in TABLES:
        pd.testing.assert_frame_equal(read(table), pd.read_parquet(local.path(table)))


def test_a_reader_beside_the_writer_never_sees_a_trial_twice_or_half(folder: Folder,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.store.PART_BYTES", 2**15)
    store = Store.open(folder, SCHEMAS)
    ended = threading.Event()

    def writes() -> None:
        for n in range(150):
            store.commit(rows([n]))
        ended.set()

    writer = threading.Thread(target=writes)
    writer.start()
    reads = 0
    while not ended.is_set():
        ids = pd.read_parquet(folder.path("trials")).trial_id
        layers = pd.read_parquet(folder.path("layers")).trial_id.value_counts()
        assert ids.is_unique
        assert (layers == 6).all() and set(ids) <= set(layers.index)
        reads += 1
    writer.join()
    assert reads > 3
    expect(folder, range(150))


def _commit_on(root: str, first: int, said: Connection) -> None:
    """Commit trial after trial, telling of each when it is done."""
    store = Store.open(Folder.open(root), SCHEMAS)
    for n in itertools.count(first):
        store.commit(rows([n]))
        said.send(n)


def test_killed_at_any_moment(tmp_path: Path) -> None:
    folder, draw, there = Folder.open(tmp_path / "study"), random.Random(5), 0
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["orchestrator.store", "pandas"])
    for _ in range(10):
        heard, said = context.Pipe(duplex=False)
        process = context.Process(target=_commit_on, args=(folder.root, there, said))
        process.start()
        said.close()
        last = heard.recv()
        time.sleep(draw.uniform(0, 0.1))
        process.kill()
        process.join()
        with contextlib.suppress(EOFError):
            while True:
                last = heard.recv()
        heard.close()
        process.close()
        store = Store.open(folder, SCHEMAS)
        there = len(store.statuses)
        expect(folder, range(there))
        assert there in (last + 1, last + 2)  # what it told of, and perhaps one it had no time to tell of
        assert len(store.warnings) <= 1
    assert not [name for name in files(folder) if name.endswith(".tmp") or name.startswith(".damaged")]
