"""SQL: right answers, nothing but the four tables in reach, nothing written, errors in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import analysis
from analysis import sql as asked
from trials.errors import UserError


@pytest.fixture
def results(study):
    for batch in (2, 4, 8):
        for seed in range(2):
            study.add(f"b{batch}s{seed}", {"batch_size": batch, "seed": seed}, final={"test_loss": batch + seed},
                      spectra={"fc1": [2.0, 1.0]})
    study.write(study.rows("torn"), ["layers", "steps"])
    return study.root


def snapshot(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_answers(results):
    frame = analysis.query(results, "SELECT batch_size, avg(test_loss) AS loss FROM trials GROUP BY ALL ORDER BY ALL")
    assert frame.values.tolist() == [[2, 2.5], [4, 4.5], [8, 8.5]]
    joined = analysis.query(results, "SELECT count(*) AS n FROM layers JOIN trials USING (trial_id) WHERE step = 100")
    assert joined.n.tolist() == [6]
    unnested = analysis.query(analysis.load(results), "SELECT sum(x) AS s FROM (SELECT unnest(eigenvalues) AS x "
                                                      "FROM spectra)")
    assert unnested.s.tolist() == [18.0]


def test_rows_of_a_torn_commit_are_left_out(results):
    assert analysis.query(results, "SELECT DISTINCT trial_id FROM layers WHERE trial_id = 'torn'").empty


@pytest.mark.parametrize("sql", [
    "WITH a AS (SELECT 1 AS x) SELECT * FROM a", "FROM trials", "VALUES (1)", "DESCRIBE layers", "SHOW TABLES",
    "SUMMARIZE trials", "EXPLAIN SELECT * FROM steps", "explain analyze select 1", "SELECT 1;",
    "SELECT 1 -- ; DROP VIEW trials"])
def test_reading_statements_are_allowed(results, sql):
    assert len(analysis.query(results, sql)) > 0


def test_show_tables_shows_the_four(results):
    assert analysis.query(results, "SHOW TABLES").name.tolist() == ["layers", "spectra", "steps", "trials"]


@pytest.mark.parametrize("sql", [
    "COPY trials TO '{out}/x.csv'", "COPY (SELECT 1) TO '{out}/x.parquet'", "EXPORT DATABASE '{out}/x'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{out}/x.csv'", "EXPLAIN (FORMAT json) COPY (SELECT 1) TO '{out}/x.csv'",
    "/* a */ EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1",
    "ATTACH '{out}/x.db'", "INSTALL httpfs", "LOAD httpfs", "CREATE TABLE t (i INT)", "CREATE VIEW v AS SELECT 1",
    "INSERT INTO trials SELECT * FROM trials", "DELETE FROM trials", "UPDATE trials SET lr = 0", "DROP VIEW trials",
    "PRAGMA version", "SET threads = 1", "SET enable_external_access = true", "RESET lock_configuration", "CHECKPOINT",
    "CALL pragma_version()", "BEGIN", "USE memory", "VACUUM", "PREPARE p AS SELECT 1",
    "SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/etc/passwd')", "SELECT * FROM sniff_csv('/etc/passwd')", "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM '{out}/trials/part-00001.parquet'", "SELECT * FROM read_parquet('{out}/trials/*.parquet')",
    "SELECT * FROM parquet_metadata('{out}/trials/part-00001.parquet')", "SELECT * FROM glob('/*')",
    "SELECT getenv('HOME')", "SELECT * FROM 'https://example.org/x.csv'", "SELECT * FROM 's3://bucket/x.parquet'",
    "SELECT * FROM read_csv('https://example.org/x.csv')", "SELECT * FROM sqlite_scan('x', 'y')",
    "SELECT * FROM query('COPY (SELECT 1) TO ''{out}/x.csv''')", "SELECT * FROM hidden", "SELECT * FROM sql",
    "SELECT 1; SELECT 2", "SELECT 1; COPY (SELECT 1) TO '{out}/x.csv'", "", "   ", "-- nothing", "SELECT", "nonsense",
    "SELECT error('two\nlines')", "SELECT CAST('a' AS INT)", "SELECT lr + trial_id FROM trials"])
def test_everything_else_is_refused_in_one_line_and_nothing_is_written(results, tmp_path, monkeypatch, sql):
    hidden = pa.table({"secret": [1]})  # a local variable that DuckDB could see were it allowed to look
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    before = snapshot(tmp_path)
    with pytest.raises(UserError) as caught:
        analysis.query(results, sql.replace("{out}", str(results)))
    assert "\n" not in str(caught.value) and str(caught.value).startswith("query: ")
    assert snapshot(tmp_path) == before
    assert hidden.num_rows == 1


def test_the_environment_is_not_changed(results):
    before = dict(os.environ)
    analysis.query(results, "SELECT 1")
    assert dict(os.environ) == before and threading.active_count() < 50


@pytest.mark.parametrize("sql, message", [
    ("SELECT * FROM layer", "query: no table called 'layer'; did you mean 'layers'?"),
    ("SELECT * FROM nothing_like_it", "query: no table called 'nothing_like_it'; there is: layers, spectra, steps, "
                                      "trials"),
    ("SELECT batchsize FROM trials", "query: no column called 'batchsize'; the nearest are batch_size (in "),
    ("SELECT t.stable_rnk FROM layers t", "query: no column called 'stable_rnk'; the nearest are stable_rank "
                                          "(in layers), "),
    ("DELETE FROM trials", "query: only reads: expected a SELECT, got a statement of the kind DELETE"),
    ("SELECT 1; SELECT 2", "query: expected one SELECT statement, got 2 statements")])
def test_mistakes_name_the_nearest(results, sql, message):
    with pytest.raises(UserError) as caught:
        analysis.query(results, sql)
    said = str(caught.value)
    assert said.startswith(message) and (len(said) < 200 or "column" not in message)


def test_what_no_answer_can_hold_is_the_statements_fault(results, monkeypatch):
    """A string buffer of more than 2 GiB, of which DuckDB complains to the reader of the stream as an OSError."""
    real = asked._stoppable

    def too_long(connection, work):
        if work.__name__ == "lock":
            return real(connection, work)
        raise OSError("Invalid Input Error: Arrow Appender: The maximum total string size is 2147483647")
    monkeypatch.setattr(asked, "_stoppable", too_long)
    with pytest.raises(UserError, match=r"^query: Arrow Appender: The maximum total string size"):
        asked.query(results, "SELECT repeat('a', 1000000) FROM range(20000)")


def test_a_damaged_part_is_named(study):
    study.add("a")
    part = study.part("layers", study.add("b"))
    data = part.read_bytes()
    part.write_bytes(data[:4] + b"\xff" * 400 + data[404:])
    with pytest.raises(UserError, match="damaged part") as caught:
        analysis.query(study.root, "SELECT * FROM layers")
    assert str(part) in str(caught.value)


def test_large_tables_are_streamed(study):
    """Of forty parts of 2e5 rows whose columns take 192 MB, Arrow never holds more than a few at a time."""
    rows, parts = 200_000, 40
    study.add("a")
    schema = study.schema["steps"]
    generator = np.random.default_rng(0)
    columns = {name: pa.nulls(rows, schema.field(name).type) for name in schema.names}
    columns["trial_id"] = pa.array(["a"] * rows)
    measured = {name: generator.standard_normal(rows) for name in ("batch_loss", "gradient_norm", "weight_norm")}
    table = pa.table({**columns, **{name: pa.array(values) for name, values in measured.items()}}, schema=schema)
    pq.write_table(table, study.part("steps", 100), row_group_size=50_000)
    for number in range(100, 100 + parts):
        pq.write_table(study.schema["trials"].empty_table(), study.part("trials", number))
        if number > 100:
            os.link(study.part("steps", 100), study.part("steps", number))
    code = ("import sys, analysis, pyarrow as pa; frame = analysis.query(sys.argv[1], sys.argv[2]); "
            "print(*frame.iloc[0], pa.default_memory_pool().max_memory())")
    sql = "SELECT count(*) AS n, avg(batch_loss + gradient_norm * weight_norm) AS m FROM steps"
    run = subprocess.run([sys.executable, "-c", code, study.root, sql], capture_output=True, text=True, check=True)
    count, mean, peak = map(float, run.stdout.split())
    expected = np.mean(measured["batch_loss"] + measured["gradient_norm"] * measured["weight_norm"])
    assert count == rows * parts + 2 and mean == pytest.approx(expected, rel=1e-6)
    assert peak < rows * parts * 3 * 8 / 2


ENDLESS = {
    "range": "SELECT sum(range) FROM range(1000000000000)",
    "recursion": "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 1e12) SELECT max(n) FROM t",
    "cross join": "SELECT count(*) FROM range(1000000) a, range(1000000) b, layers c WHERE (a.range * b.range) % 7 = 8",
    "sort": "SELECT * FROM range(1000000000000) ORDER BY hash(range)",
    "no end of rows": "SELECT * FROM range(1000000000000)",
    "analyze": "EXPLAIN ANALYZE SELECT sum(range) FROM range(1000000000000)"}


@pytest.fixture
def interrupting():
    """SIGINT raises KeyboardInterrupt, also where whoever started the tests ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("name", ENDLESS)
def test_a_query_without_end_is_stopped_by_an_interrupt(results, interrupting, monkeypatch, name):
    monkeypatch.setattr(asked, "memory_limit", lambda: 1 << 31)
    tables = analysis.load(results)
    timer = threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT))
    began = time.monotonic()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        for _ in asked.stream(tables, ENDLESS[name]):
            pass
    assert time.monotonic() - began < 10
    assert not [thread for thread in threading.enumerate() if thread.name == "query"]  # nothing goes on behind it
    assert analysis.query(tables, "SELECT count(*) AS n FROM trials").n.tolist() == [6]


def test_an_interrupt_while_a_statement_is_started_stops_it(results, monkeypatch):
    """It has a thread by then, which would go on behind whoever asked."""
    tables, start = analysis.load(results), threading.Thread.start

    def interrupted(thread):
        start(thread)
        if thread.name == "query" and next(batches) == 1:
            raise KeyboardInterrupt

    batches = iter(range(100))  # 0 locks the database, 1 begins the answer
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(asked.stream(tables, ENDLESS["range"]))
    assert not [thread for thread in threading.enumerate() if thread.name == "query"]


@pytest.mark.parametrize("sql", [
    "SELECT len(list(range)) FROM range(1000000000000)",
    "SELECT max(repeat('a', 1000000) || range) FROM range(10000000)",
    "WITH RECURSIVE t(n, s) AS (SELECT 1, 'a' UNION SELECT n + 1, s || 'b' FROM t) SELECT count(*) FROM t",
    "SELECT list(range) FROM range(100000000) GROUP BY range % 2",
    "SELECT a.trial_id, b.range FROM trials a, range(1000000000) b"])
def test_memory_is_bounded(results, monkeypatch, sql):
    monkeypatch.setattr(asked, "memory_limit", lambda: 100 << 20)
    monkeypatch.setattr(asked, "SPILL", 1 << 20)
    with pytest.raises(UserError, match=r"query: .*takes more than 0.098 GiB of memory; aggregate") as caught:
        analysis.query(results, sql)
    assert "\n" not in str(caught.value)


def test_rows_are_streamed_and_one_batch_is_held(results, monkeypatch):
    monkeypatch.setattr(asked, "memory_limit", lambda: 100 << 20)
    before, rows = pa.total_allocated_bytes(), 0
    for batch in asked.stream(results, "SELECT range, repeat('x', 100) FROM range(2000000)"):  # 200 MB
        rows += batch.num_rows
        assert pa.total_allocated_bytes() - before < 50 << 20
    assert rows == 2_000_000
    [empty] = asked.stream(results, "SELECT seed, eigenvalues FROM spectra WHERE false")
    assert empty.num_rows == 0 and empty.schema.names == ["seed", "eigenvalues"]


def test_what_a_query_may_take_is_half_of_what_there_is(monkeypatch, tmp_path):
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    monkeypatch.setattr(asked, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    monkeypatch.setattr(asked.resource, "getrlimit", lambda kind: (asked.resource.RLIM_INFINITY,) * 2)
    assert asked.memory_limit() == machine // 2
    (tmp_path / "memory.max").write_text(f"{1 << 30}\n")
    assert asked.memory_limit() == 1 << 29
    monkeypatch.setattr(asked.resource, "getrlimit", lambda kind: (1 << 28, 1 << 28))
    assert asked.memory_limit() == 1 << 27
