"""Ranks on two machines that share no disk learn online, each from its own copy of the replay."""

import pytest

from serl_launcher.run_directory import RunDirectory
from serl_launcher.types import Outcome
from tests.learner.replica.processes import Replica
from tests.learner.trainer.test_ranks import LAUNCHER, assert_close, newest, nodes, train_in_ranks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_two_machines_with_a_replica_equal_one(run, tokenizer_path, tmp_path):
    run.record(*[Outcome.SUCCESS] * 3, root=run.demonstrations)
    outcomes = [Outcome.SUCCESS, Outcome.FAILURE, Outcome.SUCCESS, Outcome.SUCCESS]
    for name in ("one", "two"):
        run.config.unique_identifier = name
        run.record(*outcomes, root=RunDirectory.of(run.config).replay)
    settings = ["algo.training_starts=1", "dataset.offline_fraction=0.5"]
    alone = train_in_ranks(run, tokenizer_path, "one", *settings, start=LAUNCHER[-1:], algo="reject_sampling_pi0")
    replica = Replica(here=tmp_path, there=tmp_path / "other", name="two")
    replica.start("server")
    replica.start("replica")
    try:
        replica.wait_for(lambda copied: copied.num_episodes == len(outcomes))
        directories = [(run.demonstrations, tmp_path), (run.demonstrations, replica.there)]
        started = nodes(run, tokenizer_path, "two", directories, settings, algo="reject_sampling_pi0")
        for process in started:
            _, errors = process.communicate(timeout=1500)
            assert process.returncode == 0, errors
        assert_close(newest(run, "two"), alone)
        assert replica.running.pop("replica").wait(60) == 0  # The run is over.
    finally:
        replica.stop()
