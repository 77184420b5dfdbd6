"""The actor as a process, a learner server on real sockets."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from robot_infra import envs
from serl_launcher.config.loader import load
from serl_launcher.publication import Publisher
from serl_launcher.types import Outcome, Source
from tests.actor.free_ports import free_ports
from tests.actor.learner_process import Learner, serving
from tests.actor.test_process import HEAVY
from tests.actor.tiny_checkpoint import save_tiny_policy

PROGRAM = "import sys; from actor.__main__ import main; main(); print('\\n'.join(sys.modules))"


def arguments(directory: Path, ports: list[int], *more: str) -> list[str]:
    return [
        f"output_dir={directory}", "unique_identifier=run", "environment.image_size=[16,16]",
        "environment.max_episode_length=12", "transport.heartbeat_s=0.2", "transport.dead_after_s=1.0",
        "transport.request_timeout_s=1.0", f"transport.request_port={ports[0]}", f"transport.broadcast_port={ports[1]}",
        *more,
    ]  # fmt: skip


def start(overrides: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *overrides], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Waits for a good end; returns what the process printed."""
    with process:
        printed, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    return printed


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "It did not come true in time."
        time.sleep(0.02)


def num_closed(learner: Learner) -> int:
    return len(learner.journal.closed_episodes())


def test_the_default_actor_acts_by_the_learner_and_needs_no_machine_learning_stack(tmp_path: Path):
    ports = free_ports(2)
    with serving(tmp_path / "learner", (ports[0], ports[1])) as learner:
        printed = finish(start(arguments(tmp_path, ports, "actor.num_episodes=3", "actor.intervention.enabled=false")))
        episodes = learner.episodes()
    assert [(episode.seed, len(episode.steps), episode.outcome) for episode in episodes] == [
        (seed, 12, Outcome.FAILURE) for seed in range(3)
    ]
    assert {(step.source, step.policy_version) for episode in episodes for step in episode.steps} == {
        (Source.POLICY, 5)
    }
    assert not {module.partition(".")[0] for module in printed.split()} & HEAVY


def test_the_person_takes_over_when_the_policy_makes_no_progress(tmp_path: Path):
    ports = free_ports(2)
    with serving(tmp_path / "learner", (ports[0], ports[1])) as learner:
        overrides = ("actor.num_episodes=1", "actor.intervention.patience_ticks=2", "environment.max_episode_length=60")
        finish(start(arguments(tmp_path, ports, *overrides)))
        [episode] = learner.episodes()
    assert {step.source for step in episode.steps} == {Source.POLICY, Source.HUMAN}


def test_an_actor_started_before_its_learner_begins_when_the_learner_comes(tmp_path: Path):
    ports = free_ports(2)
    process = start(arguments(tmp_path, ports, "actor.num_episodes=1"))
    time.sleep(1.5)
    with serving(tmp_path / "learner", (ports[0], ports[1])) as learner:
        finish(process)
        assert num_closed(learner) == 1


def test_a_learner_that_goes_away_and_comes_back_gets_every_episode_once(tmp_path: Path):
    ports = free_ports(2)
    with serving(tmp_path / "learner", (ports[0], ports[1])) as learner:
        process = start(arguments(tmp_path, ports, "actor.num_episodes=40", "actor.intervention.enabled=false"))
        wait_until(lambda: num_closed(learner) >= 2)
    time.sleep(1.0)
    with serving(tmp_path / "learner", (ports[0], ports[1])) as learner:
        finish(process)
        assert [episode.seed for episode in learner.episodes()] == list(range(40))


def test_a_killed_and_restarted_actor_loses_nothing_that_it_recorded(tmp_path: Path):
    ports = free_ports(2)
    overrides = arguments(tmp_path, ports, "actor.num_episodes=30", "actor.mode=collect")
    with serving(tmp_path / "learner", (ports[0], ports[1])) as learner:
        with start(overrides) as killed:
            wait_until(lambda: num_closed(learner) >= 3)
            os.kill(killed.pid, signal.SIGKILL)
            killed.communicate(timeout=10)
        finish(start(overrides))
        episodes = learner.episodes()
    seeds = [episode.seed for episode in episodes]
    assert seeds == sorted(set(seeds))
    assert sum(episode.outcome is not Outcome.ABORTED for episode in episodes) == 30
    for episode in episodes:
        assert [step.step for step in episode.steps] == list(range(len(episode.steps)))


def test_a_learner_that_says_stop_ends_the_actor(tmp_path: Path):
    ports = free_ports(2)
    with serving(tmp_path / "learner", (ports[0], ports[1])) as learner:
        # Ten seconds an episode: the word comes in the middle of one.
        long = ("environment.max_episode_length=500", "actor.intervention.enabled=false")
        process = start(arguments(tmp_path, ports, *long))
        wait_until(lambda: learner.journal.counts().num_steps >= 5)
        learner.gateway.announce(stop=True)
        finish(process)
        [episode] = learner.episodes()
        assert episode.outcome is Outcome.ABORTED
        assert 5 <= len(episode.steps) < 500


def test_the_learner_knows_how_its_actor_is_doing(tmp_path: Path):
    ports = free_ports(2)
    with serving(tmp_path / "learner", (ports[0], ports[1])) as learner:
        finish(start(arguments(tmp_path, ports, "actor.num_episodes=2")))
        assert learner.gateway.snapshot()["actor-0"]["success_rate_20"] is not None


def test_an_actor_with_weights_of_its_own_follows_what_the_learner_publishes(tmp_path: Path):
    ports = free_ports(2)
    overrides = arguments(tmp_path, ports, "actor.policy=local", "actor.intervention.enabled=false")
    robot = envs.build(load(overrides).environment)
    robot.close()
    with serving(tmp_path / "learner", (ports[0], ports[1])) as learner:
        publisher = Publisher(tmp_path / "learner" / "policies")
        process = start([*overrides, "actor.num_episodes=4"])
        publisher.publish(lambda directory: save_tiny_policy(directory, robot.spec), 3)
        wait_until(lambda: num_closed(learner) >= 1)
        publisher.publish(lambda directory: save_tiny_policy(directory, robot.spec), 8)
        finish(process)
        versions = [step.policy_version for episode in learner.episodes() for step in episode.steps]
    assert versions == sorted(versions)
    assert set(versions) <= {3, 8}
    assert learner.inference.num_requests == 0
