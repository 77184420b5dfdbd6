"""Plays a recorded episode on the robot: `python -m tools.replay_episode <dataset> --episode N task=dobot_pnp ...`.

The robot goes to the recorded start in time, through the same gate as any command, and then executes the recorded
actions at its rate, however many there are; at the end it brakes. Says how far the measured states were from the
recorded ones.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from actor.braking import brake
from actor.rollout import gate_of
from robot_infra import envs, safety
from robot_infra.interfaces import RobotEnv, keeps_time
from serl_launcher.config.loader import load, run_main
from serl_launcher.errors import SpecMismatch
from tools.inspect_episodes import open_dataset, steps_of

NO_TIME_LIMIT = 1_000_000_000
"""Ticks: years."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """How it went."""

    num_steps: int
    max_difference: float
    """Largest difference between measured and recorded state, in the state's units; after each step."""
    success: bool


def replay(env: RobotEnv, actions: np.ndarray, states: np.ndarray, *, seed: int) -> Replayed:
    """Plays actions [T, A] after going to the first of the states [T, S], where actions are positions.

    A time limit counts for nothing: the way to the start takes ticks too.
    """
    gate = gate_of(env, safety.limits_of(env.spec, []))
    try:
        return _replay(env, gate, actions, states, seed=seed)
    finally:
        if keeps_time(env):
            brake(env, gate)


def _replay(env: RobotEnv, gate: safety.Gate, actions: np.ndarray, states: np.ndarray, *, seed: int) -> Replayed:
    observation = env.reset(seed=seed)
    here = safety.standing_still(env.spec, observation.state)
    gate.begin(here)
    if here is not None:
        begin = safety.standing_still(env.spec, states[0])
        assert begin is not None, "Positions are found in any state of this robot."
        for command in safety.reset_trajectory(here, begin, gate.limits):
            observation = env.step(gate.admit(command)).observation
    differences, success, num_steps = [float(np.abs(observation.state - states[0]).max())], False, 0
    for action, state_after in zip(actions, [*states[1:], None], strict=True):
        transition = env.step(gate.admit(action))
        gate.note_executed(transition.executed_action)
        success |= transition.success
        num_steps += 1
        if state_after is not None:
            differences.append(float(np.abs(transition.observation.state - state_after).max()))
        if transition.terminated:
            break
    return Replayed(num_steps=num_steps, max_difference=max(differences), success=success)


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
    environment = replace(load(chosen.overrides).environment, max_episode_length=NO_TIME_LIMIT)
    with closing(envs.build(environment)) as env:
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
