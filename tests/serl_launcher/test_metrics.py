import logging

from serl_launcher.config.training import LoggingConfig
from serl_launcher.metrics import MetricSink, read_rows


def test_rows_are_written_as_json_lines(tmp_path):
    sink = MetricSink(tmp_path / "metrics" / "trainer.jsonl", LoggingConfig(), run_name="run")
    sink.write({"train/loss": 0.5}, step=10)
    sink.write({"train/loss": 0.25}, step=20)
    sink.close()
    rows = read_rows(tmp_path / "metrics" / "trainer.jsonl")
    assert [(row["step"], row["train/loss"]) for row in rows] == [(10, 0.5), (20, 0.25)]


def test_a_second_start_appends(tmp_path):
    for step in (1, 2):
        sink = MetricSink(tmp_path / "trainer.jsonl", LoggingConfig(), run_name="run")
        sink.write({"loss": 1.0}, step=step)
        sink.close()
    assert [row["step"] for row in read_rows(tmp_path / "trainer.jsonl")] == [1, 2]


def test_a_row_that_a_crash_cut_off_is_left_out(tmp_path):
    (tmp_path / "trainer.jsonl").write_text('{"step": 1}\n{"step": 2, "lo')
    assert read_rows(tmp_path / "trainer.jsonl") == [{"step": 1}]


def test_debug_also_writes_to_the_terminal(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    sink = MetricSink(tmp_path / "trainer.jsonl", LoggingConfig(logger="debug"), run_name="run")
    sink.write({"loss": 0.5}, step=3)
    sink.close()
    assert "Update 3: loss 0.5" in caplog.text


def test_tensorboard_files_are_written(tmp_path):
    sink = MetricSink(tmp_path / "trainer.jsonl", LoggingConfig(logger="tensorboard"), run_name="run")
    sink.write({"loss": 0.5}, step=3)
    sink.close()
    assert list((tmp_path / "tensorboard").glob("events.*"))
