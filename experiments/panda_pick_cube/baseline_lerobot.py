"""LeRobot's `lerobot.rl` (HIL-SERL's SAC, a learner and an actor) on the task of run.sh, for a given wall time.

Needs beside hiors: lerobot==0.4.4, grpcio>=1.73.1, protobuf>=6.31.1, gym-hil==0.1.14, mujoco==3.3.0, and OpenGL.

LeRobot's code runs as released: the learner is `python -m lerobot.rl.learner`; in the actor two names are replaced,
`make_robot_env` (our task, and the scripted expert in the place of a gamepad) and `update_policy_parameters` (the same,
then the newest weights go to a file, for the evaluation). `_settings` says what differs from LeRobot's defaults.
What LeRobot 0.4.4 does by itself, and stays so here:

- States are not normalised: nothing in `lerobot.rl` applies `dataset_stats`.
- Takeovers count as the robot's own steps only: the learner is not told which they are (huggingface/lerobot#3273).
- A step that the time limit ends is followed, in the replay buffer, by the first state of the next episode.
- It never acts greedily: `select_action` draws. The evaluation takes the most likely actions, then draws as well.
- A checkpoint writes the whole replay buffer, which halts the learner for minutes; none is made.
"""

import argparse
import itertools
import json
import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from robot_infra.envs.build import build
from robot_infra.interfaces import RobotEnv
from serl_launcher.config import load, run_main
from tools.train_single.demonstrations import FIRST_SEED
from tools.train_single.experts import Expert, expert_of
from tools.train_single.takeovers import Takeovers
from tools.train_single.trial import EVALUATION_SEED, PlayedEpisode, evaluate

logger = logging.getLogger(__name__)

REPO_ID, UTD_RATIO = "local/panda_pick_cube", 2
TAKEOVERS_UNTIL = 0.5  # Share of the time when the expert has stopped taking over; the default of `tools.train_single`.
LONGEST_START_S, LONGEST_END_S = 900, 60


def main() -> int:
    """Runs both processes for the wall time, evaluates what was learned, writes JSON like `tools.train_single`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="from the first step of the task on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--demonstrations", type=int, default=5, help="episodes of the expert in the offline dataset")
    parser.add_argument("--takeovers", type=float, default=0.5, help="chance that the expert takes over, at first")
    parser.add_argument("--fps", type=int, default=100, help="most steps per second; the task itself manages fewer")
    parser.add_argument("--evaluations", type=int, default=50)
    parser.add_argument("--output", type=Path, required=True, help="the work of both processes lies beside it")
    parser.add_argument("--is-actor", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.output.resolve().with_suffix("")
    environment = load(["task=panda_pick_cube_state"]).environment
    env = build(environment)
    expert = expert_of(environment, *env.spec.action_bounds())
    if arguments.is_actor:
        _act(arguments, env, expert, folder)
        return 0
    folder.mkdir(parents=True)
    np.random.seed(arguments.seed)  # gym-hil draws the cube's place from NumPy's global generator.
    _record_demonstrations(env, expert, folder / "demonstrations", arguments.demonstrations)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    for part in ("learner", "actor"):
        settings = _settings(env, folder, part, seed=arguments.seed, fps=arguments.fps, port=port)
        (folder / f"{part}.json").write_text(json.dumps(settings, indent=1))
    result = {"seed": arguments.seed, **_train(60 * arguments.minutes, folder)}
    result |= _evaluate(env, folder, arguments.evaluations)
    steps, mean = result["training"][-1]["num_steps"], float(np.mean(result["returns"]))
    content = {"overrides": sys.argv[1:], "steps": steps, "mean": mean, "std": 0.0, "results": [result]}
    arguments.output.write_text(json.dumps(content, indent=1) + "\n")
    return 0


class HelpedTask:
    """Our task as LeRobot's actor plays it: actions within -1 and 1, an expert who takes over as at gym-hil's gamepad.

    `teleop_action` is what the very step executed, so LeRobot records that. (Before a step LeRobot also puts the action
    of the last takeover in the place of its own; here the expert decides anew, and never hands back before the end.)
    """

    def __init__(self, env: RobotEnv, takeovers: Takeovers, *, journal: Path, seconds: float) -> None:
        """Writes a line per episode to `journal`, which exists from the first reset on; it plays for `seconds`."""
        self._env, self._takeovers, self._journal, self._seconds = env, takeovers, journal, seconds
        self._scale = env.spec.action_bounds()[1]
        self._started, self._num_episodes, self._num_steps = 0.0, 0, 0
        self._state, self._episode = np.zeros(0), PlayedEpisode(num_steps=0, total=0.0, success=False)

    def reset(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begins an episode."""
        if not self._num_episodes:
            self._started = time.monotonic()
            self._journal.touch()
        self._takeovers.begin((time.monotonic() - self._started) / self._seconds)
        self._state = self._env.reset(seed=self._num_episodes).state
        self._num_episodes += 1
        self._episode = PlayedEpisode(num_steps=self._num_steps, total=0.0, success=False)
        return {"agent_pos": self._state}, {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Executes the expert's command where the expert is in control, else the action."""
        command = self._takeovers.command(self._state)
        transition = self._env.step(action * self._scale if command is None else command)
        self._state = transition.observation.state
        self._num_steps += 1
        self._episode.num_steps = self._num_steps
        self._episode.total += transition.reward
        self._episode.success |= transition.success
        self._episode.num_expert_steps += command is not None
        if transition.terminated or transition.truncated:
            line = {**asdict(self._episode), "seconds": time.monotonic() - self._started}
            with self._journal.open("a") as file:
                file.write(json.dumps(line) + "\n")
        told = {"is_intervention": command is not None, "teleop_action": transition.executed_action / self._scale}
        reward = float(transition.success)  # As algo.sac.reward_from=label in run.sh.
        return {"agent_pos": self._state}, reward, transition.terminated, transition.truncated, told


class LeRobotPolicy:
    """LeRobot's policy as `tools.train_single.trial.evaluate` asks it: for the most likely actions, or for any."""

    def __init__(self, folder: Path, scale: np.ndarray, *, is_greedy: bool) -> None:
        from lerobot.configs.train import TrainRLServerPipelineConfig
        from lerobot.policies.factory import make_policy

        config = TrainRLServerPipelineConfig.from_pretrained(folder / "learner.json")
        self._actor = make_policy(cfg=config.policy, env_cfg=config.env).actor.eval()
        self._actor.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
        self._scale, self._is_greedy = scale, is_greedy

    @torch.no_grad()
    def act(self, images: np.ndarray, states: np.ndarray, prompts: list[str], **_: Any) -> np.ndarray:
        """Returns commands, float32 [B, 1, A]."""
        drawn, _, means = self._actor({"observation.state": torch.from_numpy(states)})
        actions = torch.tanh(means) if self._is_greedy else drawn
        return actions.numpy()[:, None] * self._scale


def _settings(env: RobotEnv, folder: Path, part: str, *, seed: int, fps: int, port: int) -> dict[str, Any]:
    """Returns LeRobot's configuration of one process; what it does not name is LeRobot's default.

    Equal to ours by LeRobot's defaults: discount 0.99, learning rates 3e-4, target rate 0.005, two critics, target
    entropy -2 (half of the actions), hidden layers 256 and 256, 100 steps before the first update.
    """
    features = {
        "observation.state": {"type": "STATE", "shape": [env.spec.state_dim]},
        "action": {"type": "ACTION", "shape": [env.spec.action_dim]},
    }
    policy = {
        "type": "sac", "device": "cpu", "push_to_hub": False,
        "temperature_init": 0.01,  # Ours, and LeRobot's guide to HIL-SERL; the default is 1.
        "utd_ratio": UTD_RATIO,  # LeRobot's configurations for HIL-SERL; the default is 1.
        "num_discrete_actions": None,  # The gripper is continuous, as in our task; also the default.
        "use_torch_compile": False,  # It needs a compiler, and minutes of so short a run.
        "actor_learner_config": {"learner_port": port, "policy_parameters_push_frequency": 4},  # Seconds; the default.
    }  # fmt: skip
    return {
        "output_dir": str(folder / part),  # Not shared: whichever process comes second refuses a folder that exists.
        "job_name": part, "seed": seed, "save_checkpoint": False, "wandb": {"enable": False}, "policy": policy,
        "batch_size": 256,  # Half of it from the dataset of demonstrations (RLPD).
        "dataset": {"repo_id": REPO_ID, "root": str(folder / "demonstrations")},
        # Higher than the task can be played, so that it never waits; too high, and each inference logs a warning.
        "env": {
            "type": "gym_manipulator", "name": "gym_hil", "task": "PandaPickCubeBase-v0", "fps": fps,
            "features": features, "features_map": {name: name for name in features},
        },
    }  # fmt: skip


def _record_demonstrations(env: RobotEnv, expert: Expert, root: Path, num_episodes: int) -> None:
    """Writes successful episodes of the expert as a dataset that LeRobot's learner reads into its offline buffer."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    widths = {"observation.state": env.spec.state_dim, "action": env.spec.action_dim, "next.reward": 1, "next.done": 1}
    features = {name: {"dtype": "float32", "shape": (width,), "names": None} for name, width in widths.items()}
    features["next.done"]["dtype"] = "bool"
    dataset = LeRobotDataset.create(REPO_ID, round(env.spec.control_hz), features, root=root, use_videos=False)
    seeds = itertools.count(FIRST_SEED)
    while dataset.num_episodes < num_episodes:
        observation, is_over = env.reset(seed=next(seeds)), False
        expert.begin()
        while not is_over:
            transition = env.step(expert.act(observation.state))
            dataset.add_frame({
                "observation.state": observation.state,
                "action": (transition.executed_action / env.spec.action_bounds()[1]).astype(np.float32),
                "next.reward": np.array([transition.success], np.float32),
                "next.done": np.array([transition.terminated]), "task": observation.prompt,
            })  # fmt: skip
            observation, is_over = transition.observation, transition.terminated or transition.truncated
        for name in ("next.reward", "next.done"):  # LeRobot gives arrays of one number to float(), not so NumPy 2.4.
            dataset.episode_buffer[name] = [value.item() for value in dataset.episode_buffer[name]]
        (dataset.save_episode if transition.success else dataset.clear_episode_buffer)()
    dataset.finalize()


def _act(arguments: argparse.Namespace, env: RobotEnv, expert: Expert, folder: Path) -> None:
    """Is LeRobot's actor, until it is told to end."""
    from lerobot.rl import actor

    takeovers = Takeovers(expert, probability=arguments.takeovers, fades_until=TAKEOVERS_UNTIL, seed=arguments.seed)
    task = HelpedTask(env, takeovers, journal=folder / "episodes.jsonl", seconds=60 * arguments.minutes)
    update_policy_parameters = actor.update_policy_parameters

    def update_and_keep(policy: Any, **others: Any) -> None:  # Any: LeRobot's own types.
        update_policy_parameters(policy=policy, **others)
        torch.save(policy.actor.state_dict(), folder / "weights.part")
        (folder / "weights.part").replace(folder / "weights.pt")

    actor.make_robot_env = lambda cfg: (task, None)
    actor.update_policy_parameters = update_and_keep
    sys.argv[1:] = [f"--config_path={folder / 'actor.json'}"]
    actor.actor_cli()


def _train(seconds: float, folder: Path) -> dict[str, Any]:
    """Runs learner and actor until `seconds` after the first step; returns what they did."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    journal, learner_log = folder / "episodes.jsonl", folder / "learner.log"
    processes = [_start(learner_log, "-m", "lerobot.rl.learner", f"--config_path={folder / 'learner.json'}")]
    try:
        # The actor gives up after 30 attempts to reach the learner, sooner than that has imported all it needs.
        _wait(processes, LONGEST_START_S, until=lambda: "gRPC server started" in learner_log.read_text())
        processes.append(_start(folder / "actor.log", __file__, "--is-actor", *sys.argv[1:]))
        _wait(processes, LONGEST_START_S, until=journal.exists)
        started, cpu_before = time.monotonic(), [_cpu_seconds(process) for process in processes]
        _wait(processes, seconds)
        seconds = time.monotonic() - started
        cpu_seconds = [_cpu_seconds(process) - before for process, before in zip(processes, cpu_before, strict=True)]
    finally:
        _end(processes)
    num_rounds = learner_log.read_text().count("Optimization frequency loop")
    return {
        "training": [json.loads(line) for line in journal.read_text().splitlines()],
        "seconds": seconds, "cpu_seconds": sum(cpu_seconds),
        "learner_cpu_seconds": cpu_seconds[0], "actor_cpu_seconds": cpu_seconds[1],
        "num_critic_updates": UTD_RATIO * num_rounds, "num_actor_updates": num_rounds,
    }  # fmt: skip


def _start(log: Path, *command: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen([sys.executable, *command], stdout=output, stderr=subprocess.STDOUT)


def _wait(processes: list[subprocess.Popen[bytes]], seconds: float, until: Callable[[], bool] | None = None) -> None:
    """Waits so long, or until something is true, which must come in that time; raises where a process ends."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if ended := [process.args for process in processes if process.poll() is not None]:
            raise RuntimeError(f"Expected {ended} to run on, but it ended; see its log.")
        if until is not None and until():
            return
        time.sleep(min(0.5, max(0.0, deadline - time.monotonic())))
    if until is not None:
        raise TimeoutError(f"Expected learner and actor to start within {seconds:.0f} s; see their logs.")


def _cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    return sum(psutil.Process(process.pid).cpu_times()[:2])


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(LONGEST_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _evaluate(env: RobotEnv, folder: Path, num_episodes: int) -> dict[str, Any]:
    """Returns the returns and successes of the newest weights: most likely actions, and drawn ones."""
    found: dict[str, Any] = {}
    torch.manual_seed(EVALUATION_SEED)
    for prefix in ("", "drawn_"):
        policy = LeRobotPolicy(folder, env.spec.action_bounds()[1], is_greedy=not prefix)
        np.random.seed(EVALUATION_SEED)
        played = [evaluate(env, policy, EVALUATION_SEED + number) for number in range(num_episodes)]
        found[f"{prefix}returns"] = [total for total, _ in played]
        found[f"{prefix}successes"] = [success for _, success in played]
        logger.info("%ssuccesses: %d of %d.", prefix, sum(found[f"{prefix}successes"]), num_episodes)
    return found


if __name__ == "__main__":
    run_main(main)
