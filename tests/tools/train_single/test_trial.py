import json
import subprocess
import sys

import numpy as np
import pytest

from learner.replay.reader import ReplayDataset
from serl_launcher.config import load
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.errors import DatasetError
from serl_launcher.types import Outcome
from tests.recorded_episodes import make_episode, robot
from tools.train_single.demonstrations import read_demonstrations
from tools.train_single.task import StateTask
from tools.train_single.trial import Trial

SMALL = ["algo=sac", "task=pendulum", "algo.sac.hidden_dims=[16]", "algo.batch_size=16", "algo.training_starts=20"]


def test_the_same_seed_learns_the_same():
    results = []
    for _ in range(2):
        config = load([*SMALL, "seed=3"])
        trial = Trial(config, StateTask("Pendulum-v1", hz=20.0))
        results.append(trial.run(40, num_evaluations=1, report=lambda step, total: None))
    assert results[0].returns == results[1].returns
    assert results[0].returns[0] < 0


def test_a_time_limit_is_not_the_end_of_the_task():
    trial = Trial(load(SMALL), StateTask("Pendulum-v1", hz=20.0))
    trial.run(205, num_evaluations=0, report=lambda step, total: None)
    batch = trial._memory.sample(np.random.default_rng(0), 500)
    assert not batch.is_terminal.any()
    assert batch.discount.min() == np.float32(0.99)


@pytest.fixture(name="demonstrations")
def fixture_demonstrations(tmp_path):
    spec = robot(size=16)
    writer = DatasetWriter(tmp_path, spec)
    for number, outcome in enumerate((Outcome.SUCCESS, Outcome.FAILURE)):
        writer.append(make_episode(spec, number, 3, outcome=outcome))
    return tmp_path


def test_demonstrations_keep_what_followed_their_last_step(demonstrations):
    dataset, spec = ReplayDataset(demonstrations), robot(cameras=0)
    memory = read_demonstrations(demonstrations, spec, discount=0.9)
    assert len(memory) == 6
    batch = memory.sample(np.random.default_rng(0), 200)
    assert batch.next_state is not None
    ends = batch.is_terminal
    assert ends.any()
    for state, following in zip(batch.state[ends], batch.next_state[ends], strict=True):
        assert following.tolist() == dataset.final_state(int(state[0])).tolist()


def test_demonstrations_of_another_robot_are_refused(demonstrations):
    with pytest.raises(DatasetError, match="widths 3 and 1"):
        read_demonstrations(demonstrations, StateTask("Pendulum-v1", hz=20.0).spec, discount=0.9)


@pytest.mark.timeout(3100)
@pytest.mark.slow
def test_pendulum_is_learned(tmp_path):
    """Published for the same algorithm: -157 +- 89; a random policy earns about -1200."""
    output = tmp_path / "result.json"
    subprocess.run(
        [sys.executable, "-m", "tools.train_single", "--seeds", "1", "--steps", "8000", "--evaluations", "20",
         "--output", str(output), "algo=sac", "task=pendulum", "seed=0"],
        check=True, timeout=3000,
    )  # fmt: skip
    assert json.loads(output.read_text())["mean"] > -350
