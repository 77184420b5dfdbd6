"""Plays a recorded episode on the robot: `python -m tools.replay_episode <dataset> --episode N task=dobot_pnp ...`.

The robot goes to the recorded start in time, through the same gate as any command, and then executes the recorded
actions at its rate. Says how far the measured states were from the recorded ones.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from robot_infra import envs, safety
from robot_infra.interfaces import RobotEnv
from serl_launcher.config.loader import load, run_main
from serl_launcher.errors import SpecMismatch
from tools.inspect_episodes import open_dataset, steps_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """How it went."""

    num_steps: int
    max_difference: float
    """Largest difference between measured and recorded state, in the state's units; after each step."""
    success: bool


def replay(env: RobotEnv, actions: np.ndarray, states: np.ndarray, *, seed: int) -> Replayed:
    """Plays actions [T, A] after going to the first of the states [T, S], where actions are positions."""
    gate = safety.Gate(safety.limits_of(env.spec, []))
    observation = env.reset(seed=seed)
    here = safety.standing_still(env.spec, observation.state)
    gate.begin(here)
    if here is not None:
        begin = safety.standing_still(env.spec, states[0])
        assert begin is not None, "Positions are found in any state of this robot."
        for command in safety.reset_trajectory(here, begin, gate.limits):
            observation = env.step(gate.admit(command)).observation
    differences, success = [float(np.abs(observation.state - states[0]).max())], False
    for step, action in enumerate(actions):
        transition = env.step(gate.admit(action))
        gate.note_executed(transition.executed_action)
        success |= transition.success
        if step + 1 < len(states):
            differences.append(float(np.abs(transition.observation.state - states[step + 1]).max()))
        if transition.terminated or transition.truncated:
            break
    return Replayed(num_steps=step + 1, max_difference=max(differences), success=success)


def parsed(words: Sequence[str]) -> argparse.Namespace:
    """Returns what the command line says; overrides may stand before, between and after the options."""
    parser = argparse.ArgumentParser(prog="python -m tools.replay_episode", description=__doc__)
    parser.add_argument("dataset", help="a dataset, or its name below HF_LEROBOT_HOME")
    parser.add_argument("--episode", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0, help="of the reset; for simulators that of the recording")
    parser.add_argument("overrides", nargs="*", help="of the configuration, e.g. task=dobot_pnp")
    return parser.parse_intermixed_args(words)


def main() -> None:
    """Runs the command line."""
    chosen = parsed(sys.argv[1:])
    dataset = open_dataset(chosen.dataset)
    steps = steps_of(dataset, chosen.episode)
    with closing(envs.build(load(chosen.overrides).environment)) as env:
        if dataset.spec is not None and dataset.spec.action_names != env.spec.action_names:
            raise SpecMismatch(f"The episode is of {dataset.spec.name!r}, the robot is {env.spec.name!r}.")
        part = slice(steps.start, steps.stop)
        done = replay(env, dataset.steps.action[part], dataset.steps.state[part], seed=chosen.seed)
    sys.stdout.write(
        f"{done.num_steps} of {len(steps)} steps, states differ by up to {done.max_difference:.3g}, "
        f"{'success' if done.success else 'no success'}.\n"
    )


if __name__ == "__main__":
    run_main(main)
