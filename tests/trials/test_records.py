"""The tables' schemas, and rows on their way from a worker to the writer."""

from __future__ import annotations

import pyarrow as pa
import pytest

from trials.records import COLUMNS, SCHEMA_VERSION, TABLES, VERSION_KEY, Rows, schemas

CONFIG = {"batch_size": pa.int64(), "lr": pa.float64(), "optimizer": pa.string()}


def rows_of(trial_id: str, layers: int = 2) -> Rows:
    common = {"trial_id": trial_id, "batch_size": 8}
    return Rows.build(schemas(CONFIG, ["batch_size"]), {
        "trials": [{**common, "lr": 0.1, "optimizer": "sgd", "status": "completed", "test_loss": 0.5}],
        "steps": [{**common, "step": step} for step in (0, 10)],
        "layers": [{**common, "step": 10, "layer": f"fc{n}", "alpha": None} for n in range(layers)],
        "spectra": [{**common, "step": 10, "layer": "fc0", "eigenvalues": [2.0, 1.0]}],
    })


def test_every_table_has_the_axes_and_trials_the_whole_config() -> None:
    found = schemas(CONFIG, ["batch_size"])
    assert list(found) == list(TABLES)
    assert set(CONFIG) <= set(found["trials"].names)
    for table in ("steps", "layers", "spectra"):
        assert set(CONFIG) & set(found[table].names) == {"batch_size"}


def test_every_column_has_unit_and_meaning_and_every_table_its_version() -> None:
    for table, schema in schemas(CONFIG, []).items():
        assert schema.metadata[VERSION_KEY] == str(SCHEMA_VERSION).encode()
        for field in schema:
            assert field.metadata[b"description"], f"{table}.{field.name}"
            assert b"unit" in field.metadata
            if field.name not in CONFIG and pa.types.is_floating(field.type):
                assert field.metadata[b"unit"], f"{table}.{field.name} has no unit"


def test_no_name_twice_in_a_table() -> None:
    for table, columns in COLUMNS.items():
        names = [column.name for column in columns]
        assert len(names) == len(set(names)), table


def test_rows_travel_as_bytes_and_come_back_the_same() -> None:
    rows = rows_of("a")
    back = Rows.from_bytes(rows.to_bytes())
    for table in TABLES:
        assert back.tables[table].equals(rows.tables[table], check_metadata=True)


def test_rows_of_several_trials_concatenate_in_order() -> None:
    both = Rows.concat([rows_of("b", 1), rows_of("a", 3)])
    assert both.ids == ["b", "a"]
    assert both.tables["layers"]["trial_id"].to_pylist() == ["b", "a", "a", "a"]


def test_a_value_of_the_wrong_type_is_an_error_not_a_null() -> None:
    with pytest.raises(pa.ArrowInvalid):
        Rows.build(schemas(CONFIG, []), {"trials": [{"trial_id": "a", "lr": "fast"}]})
