import time

import pytest

from learner.trainer.serving_figures import MAX_AGE_S, serving_figures
from serl_launcher.status import write_status


def status(**changes):
    return {
        "time": time.time(),
        "inference": {"queue_depth": 2, "model_ms_p50": 20.5, "policy_age_s": 3.0},
        "actors": {"left": {"round_trip_ms_p99": 31.0, "num_deadline_misses": 4, "is_connected": True, "steps": 900}},
        **changes,
    }


def test_the_figures_of_server_and_actors_are_named_apart(tmp_path):
    write_status(tmp_path / "server.json", status())
    assert serving_figures(tmp_path / "server.json") == {
        "server/queue_depth": 2.0, "server/model_ms_p50": 20.5, "server/policy_age_s": 3.0,
        "actor/left/round_trip_ms_p99": 31.0, "actor/left/num_deadline_misses": 4.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    "told",
    [status(time=time.time() - 2 * MAX_AGE_S), {"inference": {"queue_depth": 1}}, status(inference=None, actors=[])],
)
def test_a_server_that_is_gone_or_says_nothing_adds_nothing(tmp_path, told):
    write_status(tmp_path / "server.json", told)
    assert serving_figures(tmp_path / "server.json") == {}
    assert serving_figures(tmp_path / "absent.json") == {}
