import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from serl_launcher.config.training import LoggingConfig
from serl_launcher.errors import ConfigError
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


@pytest.fixture
def forgetful_wandb() -> Iterator[None]:
    """wandb reads its environment once per process."""
    wandb = pytest.importorskip("wandb")
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.mark.usefixtures("forgetful_wandb")
def test_wandb_continues_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for step in (1, 2):
        sink = MetricSink(tmp_path / "trainer.jsonl", LoggingConfig(logger="wandb"), run_name="run")
        sink.write({"loss": 0.5}, step=step)
        sink.close()
    run_id = (tmp_path / "wandb_run_id").read_text()
    files = list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert files
    assert {file.name for file in files} == {f"run-{run_id}.wandb"}


@pytest.mark.usefixtures("forgetful_wandb")
def test_wandb_without_a_key_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    with pytest.raises(ConfigError, match="wandb login"):
        MetricSink(tmp_path / "trainer.jsonl", LoggingConfig(logger="wandb"), run_name="run")
