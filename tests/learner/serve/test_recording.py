import logging
import threading

import numpy as np

from learner.serve import recording
from learner.serve.recording import Recording, read_record
from tests.learner.serve.serving import OBSERVATION, serving
from tests.learner.serve.test_endpoint import ask


def test_what_is_recorded_can_be_read_without_pickle(tmp_path):
    kept = Recording(tmp_path)
    with serving(recording=kept) as port:
        ask(port)
        ask(port)
    kept.close()
    record = read_record(tmp_path / "step_0.npz")
    np.testing.assert_array_equal(record["inputs/state"], OBSERVATION["state"])
    assert record["inputs/prompt"].item() == "reach"
    assert record["outputs/actions"].shape == (4, 2)
    again = Recording(tmp_path)
    again.keep({}, {"actions": np.zeros(2)})
    again.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_0.npz", "step_1.npz", "step_2.npz"]


def test_a_disk_that_refuses_costs_records_and_no_answers_and_is_told_once(tmp_path, caplog, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recording.np, "savez", refuse)
    kept = Recording(tmp_path)
    with caplog.at_level(logging.WARNING), serving(recording=kept) as port:
        for _ in range(3):
            assert ask(port)["actions"].shape == (4, 2)
        kept.close()
    assert kept.num_lost == 3
    [told] = [record.getMessage() for record in caplog.records if record.name == "learner.serve.recording"]
    assert str(tmp_path) in told
    assert "No space left on device" in told


def test_a_slow_disk_holds_up_nobody_and_fills_no_memory(tmp_path, monkeypatch):
    may_write = threading.Event()
    monkeypatch.setattr(recording.np, "savez", lambda *_args, **_kwargs: may_write.wait(10))
    monkeypatch.setattr(recording, "MAX_WAITING", 2)
    kept = Recording(tmp_path)
    with serving(recording=kept) as port:
        for _ in range(5):
            ask(port)
        assert kept.num_lost == 3
    may_write.set()
    kept.close()
