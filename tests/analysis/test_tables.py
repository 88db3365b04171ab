"""Loading: laziness, push-down, writers at work, schema changes, and one clear line for whatever is wrong."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import analysis
from analysis.parts import Parts
from trials import records
from trials.errors import UserError


def fails(path, *words):
    """``load`` and reading all tables raise a UserError of one line with these words."""
    with pytest.raises(UserError) as caught:
        tables = analysis.load(path)
        for name in records.TABLES:
            tables.table(name)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    return message


def test_the_four_tables_come_back_as_written(study):
    study.add("a", {"batch_size": 4}, spectra={"fc1": [3.0, 2.0, 1.0]})
    study.add("b", {"batch_size": 8, "seed": 1})
    tables = analysis.load(study.root)
    assert tables.trials.trial_id.tolist() == ["a", "b"]
    assert tables.trials.batch_size.tolist() == [4, 8]
    assert tables.steps[["trial_id", "step", "batch_size"]].values.tolist() == [
        ["a", 0, 4], ["a", 100, 4], ["b", 0, 8], ["b", 100, 8]]
    assert tables.layers.rows.tolist() == [64] * 4
    assert tables.spectra.eigenvalues[0].tolist() == [3.0, 2.0, 1.0]
    assert tables.trials is tables.trials
    assert analysis.axes(tables) == ["batch_size", "seed"]
    assert tables.name == "demo"


def test_any_filesystem_uri_works(study):
    study.add("a")
    assert analysis.load(study.root.as_uri()).trials.trial_id.tolist() == ["a"]


def test_columns_and_filters_are_pushed_down(study):
    study.add("a", {"batch_size": 4})
    study.add("b", {"batch_size": 8})
    tables = analysis.load(study.root)
    frame = tables.table("steps", ["step"], (pc.field("batch_size") == 8) & (pc.field("step") > 0))
    assert frame.columns.tolist() == ["step"] and frame.step.tolist() == [100]
    # A column chunk that was destroyed is not even looked at when other columns are asked for.
    part = study.part("steps", 1)
    where = pq.read_metadata(part).row_group(0).column(pq.read_schema(part).names.index("elapsed"))
    damaged = bytearray(part.read_bytes())
    start = where.dictionary_page_offset or where.data_page_offset
    damaged[start:start + where.total_compressed_size] = b"\xff" * where.total_compressed_size
    part.write_bytes(damaged)
    assert len(tables.table("steps", ["step"])) == 4
    fails(study.root, str(part), "damaged")


def test_rows_of_a_torn_commit_are_left_out(study):
    study.add("a", spectra={"fc1": [1.0]})
    study.write(study.rows("torn", spectra={"fc1": [1.0]}), ["spectra", "layers", "steps"])
    (study.root / "trials" / ".part-00009.parquet.tmp").write_bytes(b"half a fi")
    tables = analysis.load(study.root)
    for name in records.TABLES:
        assert set(tables.table(name).trial_id) == {"a"}, name


def test_tables_are_a_snapshot_while_a_driver_writes(study):
    study.add("a")
    tables = analysis.load(study.root)
    study.add("b")
    assert set(tables.trials.trial_id) == set(tables.layers.trial_id) == {"a"}
    assert set(analysis.load(study.root).layers.trial_id) == {"a", "b"}


def test_a_part_replaced_between_footer_and_data_is_read_again(study, monkeypatch):
    """A commit replaces the last part: whatever moment that is, a reader sees the old file or the new."""
    number = study.add("a")
    tables = analysis.load(study.root)
    real, times = Parts.find, []

    def commit_after_listing(filesystem, root, table):
        found = real(filesystem, root, table)
        if table == "layers":
            times.append(table)
            more = [study.rows(f"b{k}") for k in range(100 * len(times))]
            pq.write_table(records.Rows.concat([study.rows("a"), *more]).tables["layers"], study.part("layers", number))
        return found

    monkeypatch.setattr(Parts, "find", commit_after_listing)
    assert tables.table("layers").trial_id.tolist() == ["a", "a"]
    assert analysis.query(tables, "SELECT DISTINCT x.trial_id FROM layers x JOIN layers y USING (trial_id)").size == 1
    assert len(times) > 1


def test_a_part_set_aside_after_listing_is_left_out(study, monkeypatch):
    study.add("a")
    gone = study.part("steps", study.add("b"))
    tables = analysis.load(study.root)
    real = Parts.find

    def repair_after_listing(filesystem, root, table):
        found = real(filesystem, root, table)
        if table == "steps":
            gone.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(Parts, "find", repair_after_listing)
    assert set(tables.steps.trial_id) == {"a"}


def test_unreadable_storage_is_told_as_such(study, monkeypatch):
    study.add("a")
    tables = analysis.load(study.root)
    monkeypatch.setattr(Parts, "dataset", lambda self, *also: (_ for _ in ()).throw(OSError("network is down")))
    with pytest.raises(UserError, match="cannot be read: network is down; try again"):
        tables.steps  # noqa: B018


def test_schema_change_unifies_columns_and_fills_new_axes_from_the_trials(make_study):
    before = make_study(["batch_size", "seed"], config={
        "model": pa.string(), "lr": pa.int64(), "batch_size": pa.int64(), "seed": pa.int64()})
    before.add("old", {"lr": 1})
    after = make_study(["lr", "batch_size", "seed"])
    after.parts = before.parts
    after.add("new", {"lr": 0.5})
    tables = analysis.load(after.root)
    assert analysis.axes(tables) == ["lr", "batch_size", "seed"]
    for name in ("trials", "steps", "layers"):
        assert tables.table(name).groupby("trial_id").lr.unique().map(list).to_dict() == {"old": [1.0], "new": [0.5]}
    assert set(tables.table("steps", ["trial_id"], pc.field("lr") == 1).trial_id) == {"old"}


def test_a_table_without_parts_is_empty_with_its_columns(study):
    study.add("a")
    spectra = analysis.load(study.root).spectra
    assert spectra.empty and {"trial_id", "batch_size", "seed", "layer", "eigenvalues"} <= set(spectra.columns)


def test_missing_and_foreign_folders(study, tmp_path):
    study.add("a")
    fails(study.root.with_name("demmo"), "demmo", "no such results folder", "did you mean 'demo'?")
    fails(study.root.parent, "not the results folder of a study", "demo")
    fails(tmp_path, "not the results folder of a study")
    fails("nosuch://bucket/x", "nosuch://bucket/x", "expected a path, or a URI")


def test_a_study_without_a_finished_trial(study):
    study.root.mkdir(parents=True)
    (study.root / "study.yaml").write_text("study: demo\n")
    fails(study.root, "no trial has finished yet")
    for name, schema in study.schema.items():  # what a run begins with
        study.part(name, 0).parent.mkdir()
        pq.write_table(schema.empty_table(), study.part(name, 0))
    fails(study.root, "no trial has finished yet")


def test_another_schema_version_and_foreign_parts(study):
    part = study.part("trials", study.add("a"))
    table = pq.read_table(part)
    pq.write_table(table.replace_schema_metadata({records.VERSION_KEY: b"99"}), part)
    fails(study.root, str(part), "schema version 99", f"reads {records.SCHEMA_VERSION}")
    pq.write_table(table.replace_schema_metadata(None), part)
    fails(study.root, str(part), "not written by phasesweep")


@pytest.mark.parametrize("table", ["trials", "layers"])
@pytest.mark.parametrize("damage", [
    lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"PAR1" + bytes(len(data) - 8) + b"PAR1",
    lambda data: data[:4] + b"\xff" * 400 + data[404:]], ids=["empty", "cut", "zeros", "pages"])
def test_a_damaged_part_is_named_with_the_fix(study, table, damage):
    study.add("a")
    part = study.part(table, study.add("b"))
    part.write_bytes(damage(part.read_bytes()))
    fails(study.root, str(part), "damaged part", "run the study again")


def test_incompatible_types(study, make_study):
    study.add("a")
    other = make_study(["batch_size"], config={**dict.fromkeys(["model", "lr", "batch_size"], pa.string()),
                                               "seed": pa.int64()})
    other.parts = study.parts
    other.add("b", {"lr": "fast", "batch_size": "big"})
    fails(study.root, "do not go together")


def test_unknown_names_in_table(study):
    study.add("a")
    tables = analysis.load(study.root)
    with pytest.raises(UserError, match="no column called 'batchsize' in layers; did you mean 'batch_size'"):
        tables.table("layers", ["batchsize"])
    with pytest.raises(UserError, match="no table called 'layer'; did you mean 'layers'"):
        tables.table("layer")
    for wrong in (pc.field("nope") > 1, pc.field("layer") > 1):
        with pytest.raises(UserError, match="filter on layers: "):
            tables.table("layers", filter=wrong)
