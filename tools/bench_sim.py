"""Steps per second of the embedded simulator on one core, all cameras drawn.

    python -m tools.bench_sim

Counts CPU time, so that other work on the machine matters little.
"""

import logging
import time

from robot_infra.envs import build
from serl_launcher import config as configuration

logger = logging.getLogger(__name__)

NUM_STEPS = 2000


def main() -> None:
    """Plays random actions and reports the rate."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    environment = configuration.load(["task=sim_pnp"]).environment
    env = build(environment)
    low, high = env.spec.action_bounds()
    env.reset(seed=0)
    started = time.process_time()
    for step in range(NUM_STEPS):
        transition = env.step(low + (high - low) * ((step % 7) / 7))
        if transition.terminated or transition.truncated:
            env.reset(seed=step)
    seconds = time.process_time() - started
    size = "x".join(str(side) for side in environment.image_size)
    logger.info("sim_pnp, %d cameras of %s: %.0f steps/s.", len(env.spec.cameras), size, NUM_STEPS / seconds)


if __name__ == "__main__":
    main()
