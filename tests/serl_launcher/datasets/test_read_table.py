"""Readers of a dataset that another process writes."""

import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from serl_launcher.datasets.layout import read_table


def test_a_file_that_is_replaced_while_it_is_read_is_read_as_it_was_or_is(tmp_path: Path) -> None:
    path, new = tmp_path / "episodes.parquet", tmp_path / "new"
    tables = [pa.table({"outcome": ["success"] * 3}), pa.table({"outcome": [f"failure {n}" for n in range(400)]})]
    pq.write_table(tables[0], path)
    is_over = threading.Event()

    def replace() -> None:
        while not is_over.is_set():
            for table in tables[::-1]:
                pq.write_table(table, new)
                new.replace(path)

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        lengths = {len(read_table(path, ["outcome"])) for _ in range(400)}
    finally:
        is_over.set()
        thread.join()
    assert lengths == {3, 400}
