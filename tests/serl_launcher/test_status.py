from serl_launcher.status import read_status, write_status


def test_a_status_reads_as_it_was_written(tmp_path):
    path = tmp_path / "status" / "server.json"
    write_status(path, {"pid": 3, "actors": {"actor-0": {"steps": 7}}, "ready": True, "loss": None})
    assert read_status(path) == {"pid": 3, "actors": {"actor-0": {"steps": 7}}, "ready": True, "loss": None}


def test_no_status_and_a_damaged_one_read_as_none(tmp_path):
    assert read_status(tmp_path / "missing.json") is None
    (tmp_path / "damaged.json").write_text("{")
    assert read_status(tmp_path / "damaged.json") is None
