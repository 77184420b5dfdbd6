"""How much faster MuJoCo draws without shadows and multisampling: `MUJOCO_GL=osmesa python -m tools.bench_render`.

Draws each camera task both ways, in turns in one process, and prints milliseconds of CPU per step (all threads,
pictures included) and the ratio.
"""

import argparse
import sys
import time
from contextlib import closing
from dataclasses import replace

import numpy as np

from robot_infra.envs import build
from robot_infra.interfaces import RobotEnv
from serl_launcher.config.loader import load, run_main

TASKS = ("aloha_transfer_cube", "panda_pick_cube")


def step_s(env: RobotEnv, num_steps: int) -> float:
    """Returns CPU seconds per step, pictures included."""
    low, high = env.spec.action_bounds()
    middle = ((low + high) / 2).astype(np.float32)
    began_s = time.process_time()
    for _ in range(num_steps):
        env.step(middle)
    return (time.process_time() - began_s) / num_steps


def compare(task: str, *, num_steps: int, num_rounds: int) -> tuple[float, float]:
    """Returns the median CPU seconds per step as MuJoCo draws by itself, and without shadows and multisampling."""
    config = load([f"task={task}"]).environment
    slow = replace(config, options={**config.options, "fast_rendering": False})
    found: dict[bool, list[float]] = {False: [], True: []}
    with closing(build(slow)) as usual, closing(build(config)) as fast:
        for env in (usual, fast):
            env.reset(seed=0)
            step_s(env, 1)
        for _ in range(num_rounds):
            found[False].append(step_s(usual, num_steps))
            found[True].append(step_s(fast, num_steps))
    return float(np.median(found[False])), float(np.median(found[True]))


def main() -> None:
    """Prints one line per task."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench_render", description=__doc__)
    parser.add_argument("tasks", nargs="*", default=list(TASKS))
    parser.add_argument("--steps", type=int, default=5, help="per round")
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args(sys.argv[1:])
    for task in chosen.tasks:
        usual_s, fast_s = compare(task, num_steps=chosen.steps, num_rounds=chosen.rounds)
        sys.stdout.write(
            f"{task}: {1e3 * usual_s:.0f} ms of CPU a step as MuJoCo draws, {1e3 * fast_s:.0f} ms without shadows and "
            f"multisampling: {usual_s / fast_s:.1f} times\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    run_main(main)
