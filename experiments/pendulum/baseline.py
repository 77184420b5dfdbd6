"""Stable-baselines3's SAC with the settings of `config/algo/sac.yaml`; runs in an environment of its own.

Started again with the same output, it goes on with the seeds that are not there yet.
"""

import argparse
import json
import time
from pathlib import Path

import gymnasium
import numpy as np
import torch
from stable_baselines3 import SAC

EVALUATION_SEED = 1_000_000


def evaluate(model: SAC, seed: int) -> float:
    """Returns the return of one episode with the most likely actions."""
    env = gymnasium.make("Pendulum-v1")
    observation, _ = env.reset(seed=seed)
    total, is_over = 0.0, False
    while not is_over:
        action, _ = model.predict(observation, deterministic=True)
        observation, reward, terminated, truncated, _ = env.step(action)
        total, is_over = total + float(reward), terminated or truncated
    return total


def main() -> None:
    """Learns and evaluates every seed; writes JSON like `tools.train_single`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--evaluations", type=int, default=50)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = json.loads(arguments.output.read_text())["results"] if arguments.output.exists() else []
    for seed in range(len(results), arguments.seeds):
        started, started_cpu = time.monotonic(), time.process_time()
        model = SAC(
            "MlpPolicy", "Pendulum-v1", seed=seed, learning_rate=3e-4, batch_size=256, learning_starts=100, gamma=0.99,
            tau=0.005, device="cpu", stats_window_size=arguments.steps,
        )  # fmt: skip
        model.learn(arguments.steps)
        seconds = time.monotonic() - started
        training = [(episode["t"], episode["r"], int(episode["l"])) for episode in model.ep_info_buffer or ()]
        returns = [evaluate(model, EVALUATION_SEED + number) for number in range(arguments.evaluations)]
        cpu_seconds = time.process_time() - started_cpu
        results.append({"seed": seed, "returns": returns, "training": training, "seconds": seconds,
                        "cpu_seconds": cpu_seconds})  # fmt: skip
        means = [float(np.mean(result["returns"])) for result in results]
        content = {"steps": arguments.steps, "mean": float(np.mean(means)), "std": float(np.std(means)),
                   "results": results}  # fmt: skip
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
