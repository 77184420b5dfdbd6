"""Drives sim_pnp with the published openpi-client, for whole episodes, against `python -m learner.serve`.

Run by a Python that has openpi-client 0.1.2 and the simulator's few packages, but neither torch nor our client; see
openpi_client.sh. Writes `episodes.csv` as an evaluation does, so that `tools.compare_evaluations` reads it.
"""

import argparse
import csv
import os
import sys
from pathlib import Path

import numpy as np
from openpi_client import action_chunk_broker, websocket_client_policy
from openpi_client.runtime import environment, runtime, subscriber
from openpi_client.runtime.agents import policy_agent

sys.path.insert(0, str(Path(__file__).parents[2]))

from robot_infra.envs.sim_pnp.env import CAMERA_NAMES, SimPnp

COLUMNS = ("episode", "seed", "prompt", "told_prompt", "success", "num_steps", "attempt")


class SimRobot(environment.Environment):
    """The simulator as openpi-client's runtime wants a robot."""

    def __init__(self, first_seed: int, num_episodes: int, max_episode_length: int) -> None:
        self._env = SimPnp(max_episode_length=max_episode_length)
        self._seeds = iter(range(first_seed, first_seed + num_episodes + 1))
        self._is_over = False

    def reset(self) -> None:
        """Begins the next start state; the runtime also calls this once after the last episode."""
        self.seed = next(self._seeds)
        self._observation, _ = self._env.reset(seed=self.seed)
        self.success, self.num_steps, self._is_over = False, 0, False

    def is_episode_complete(self) -> bool:
        """Whether the task ended, or its time."""
        return self._is_over

    def get_observation(self) -> dict:
        """Returns what the policy is asked with."""
        images = {f"observation/images/{name}": self._observation[name] for name in CAMERA_NAMES}
        return {**images, "observation/state": self._observation["state"], "prompt": self._observation["prompt"]}

    def apply_action(self, action: dict) -> None:
        """Moves for one tick."""
        self._observation, _, terminated, truncated, told = self._env.step(np.asarray(action["actions"], np.float32))
        self.num_steps += 1
        self.success = bool(told["success"])
        self._is_over = terminated or truncated

    @property
    def prompt(self) -> str:
        """The instruction of the scene."""
        return self._observation["prompt"]


class Table(subscriber.Subscriber):
    """Notes every episode."""

    def __init__(self, robot: SimRobot) -> None:
        self._robot = robot
        self.rows: list[dict] = []

    def on_episode_start(self) -> None:
        """Has nothing to do."""

    def on_step(self, observation: dict, action: dict) -> None:
        """Has nothing to do."""

    def on_episode_end(self) -> None:
        """Notes what came of it."""
        robot = self._robot
        values = (len(self.rows), robot.seed, robot.prompt, robot.prompt, robot.success, robot.num_steps, 1)
        self.rows.append(dict(zip(COLUMNS, values, strict=True)))
        sys.stderr.write(f"episode {len(self.rows)}: {'success' if robot.success else 'failure'}\n")


def main() -> None:
    """Plays the episodes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--first-seed", type=int, default=1_000_000)
    parser.add_argument("--execution-horizon", type=int, default=4, help="actions of a chunk that are executed")
    parser.add_argument("--max-episode-length", type=int, default=120)
    parser.add_argument("--output", type=Path, required=True, help="directory of the table")
    chosen = parser.parse_args()
    policy = websocket_client_policy.WebsocketClientPolicy(
        host="localhost", port=chosen.port, api_key=os.environ.get("HIORS_API_KEY")
    )
    robot = SimRobot(chosen.first_seed, chosen.episodes, chosen.max_episode_length)
    table = Table(robot)
    broker = action_chunk_broker.ActionChunkBroker(policy, action_horizon=chosen.execution_horizon)
    runtime.Runtime(robot, policy_agent.PolicyAgent(broker), [table], num_episodes=chosen.episodes).run()
    chosen.output.mkdir(parents=True, exist_ok=True)
    with (chosen.output / "episodes.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table.rows)
    sys.stdout.write(f"{sum(row['success'] for row in table.rows)} of {len(table.rows)} succeeded\n")


if __name__ == "__main__":
    main()
