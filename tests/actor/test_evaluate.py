import csv
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection, connect

from actor.evaluate import evaluate
from actor.local_policy import LocalPolicy, check_same_robot
from robot_infra import envs
from serl_launcher.config.actor import ActorConfig, EvaluationConfig, InterventionConfig
from serl_launcher.config.beside import ConsoleConfig
from serl_launcher.config.environment import EnvironmentConfig
from serl_launcher.config.root import RunConfig
from serl_launcher.errors import ConfigError, SpecMismatch
from serl_launcher.policies import policy_hash
from serl_launcher.specs import RobotSpec
from tests.actor.console.rig import Client
from tests.actor.free_ports import free_ports
from tests.actor.tiny_checkpoint import save_tiny_policy
from tests.actor.tiny_robot import SPEC

ENVIRONMENT = EnvironmentConfig(image_size=[16, 16], max_episode_length=6)


@pytest.fixture(scope="module")
def robot_spec() -> RobotSpec:
    env = envs.build(ENVIRONMENT)
    env.close()
    return env.spec


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, robot_spec: RobotSpec) -> Path:
    directory = tmp_path_factory.mktemp("checkpoint") / "policy"
    save_tiny_policy(directory, robot_spec)
    return directory


def run_config(checkpoint: Path, output: Path, *, seed: int = 1, num_videos: int = 0) -> RunConfig:
    return RunConfig(
        checkpoint_path=str(checkpoint),
        seed=seed,
        environment=ENVIRONMENT,
        actor=ActorConfig(mode="eval", execution_horizon=3),
        evaluation=EvaluationConfig(num_episodes=5, num_lanes=2, output_dir=str(output), num_videos=num_videos),
    )


def test_an_evaluation_writes_report_table_and_videos(checkpoint: Path, tmp_path: Path):
    evaluate(run_config(checkpoint, tmp_path, num_videos=1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["episodes.csv", "report.json", "starts.json", "videos"]
    assert json.loads((tmp_path / "report.json").read_text())["policy_hash"] == policy_hash(checkpoint)


def test_the_same_seed_repeats_the_same_evaluation(checkpoint: Path, robot_spec: RobotSpec):
    env = envs.build(ENVIRONMENT)
    observations = [env.reset(seed=seed) for seed in (1, 2)]
    env.close()

    def actions(seed: int) -> list[list[float]]:
        policy = LocalPolicy(checkpoint, robot_spec, seed=seed)
        return [chunk.actions.ravel().tolist() for _ in range(2) for chunk in policy.act(observations)]

    assert actions(3) == actions(3)
    assert actions(3) != actions(4)


def test_an_evaluation_needs_a_checkpoint():
    with pytest.raises(ConfigError, match="checkpoint_path"):
        evaluate(RunConfig(environment=ENVIRONMENT, actor=ActorConfig(mode="eval")))


def test_a_wrong_checkpoint_ends_the_evaluation_before_anything_moves(tmp_path: Path):
    with pytest.raises(ConfigError, match="there is no directory"):
        evaluate(run_config(tmp_path / "nowhere", tmp_path / "report"))
    assert not (tmp_path / "report").exists()


def test_a_policy_for_another_robot_is_refused_with_the_differences(robot_spec: RobotSpec, tmp_path: Path):
    with pytest.raises(SpecMismatch, match=r"'sim_pnp', this is 'tiny': state_names.*camera 'cam_high'"):
        check_same_robot(robot_spec, SPEC, tmp_path)


def test_a_scripted_person_helps_where_that_is_asked_for(checkpoint: Path, tmp_path: Path):
    config = run_config(checkpoint, tmp_path)
    config.environment = replace(ENVIRONMENT, max_episode_length=20)
    config.actor.intervention = InterventionConfig(reaction_ticks=0, patience_ticks=2)
    config.evaluation.interventions, config.evaluation.num_episodes = True, 2
    report = evaluate(config)
    assert report.interventions
    assert report.overall.num_takeovers > 0
    assert 0 < report.overall.intervention_rate <= 1


def test_without_anybody_who_may_take_over_help_cannot_be_asked_for(checkpoint: Path, tmp_path: Path):
    config = run_config(checkpoint, tmp_path)
    config.evaluation.interventions, config.actor.intervention.enabled = True, False
    with pytest.raises(ConfigError, match=r"actor\.intervention\.enabled=true"):
        evaluate(config)


def test_a_stop_leaves_a_report_of_what_was_done(checkpoint: Path, tmp_path: Path):
    answers = [False] * 30
    config = run_config(checkpoint, tmp_path)
    config.evaluation.num_lanes = 1
    report = evaluate(config, is_stopping=lambda: not answers or answers.pop())
    written = json.loads((tmp_path / "report.json").read_text())
    assert 0 < report.overall.num_episodes < 5
    assert (written["num_planned"], written["overall"]["num_episodes"]) == (5, report.overall.num_episodes)
    with (tmp_path / "episodes.csv").open() as table:
        assert [row["outcome"] for row in csv.DictReader(table)].count("aborted") <= 1


def test_every_finished_episode_is_in_the_files_at_once(checkpoint: Path, tmp_path: Path):
    config = run_config(checkpoint, tmp_path)
    config.evaluation.num_lanes = 1
    seen: list[int] = []

    def count() -> bool:
        if (tmp_path / "episodes.csv").exists():
            seen.append(len((tmp_path / "episodes.csv").read_text().splitlines()) - 1)
        return False

    evaluate(config, is_stopping=count)
    assert sorted(set(seen)) == [1, 2, 3, 4, 5]


def test_the_console_watches_judges_stops_and_clears_an_evaluation(checkpoint: Path, tmp_path: Path):
    config, [port] = run_config(checkpoint, tmp_path / "eval"), free_ports(1)
    config.output_dir = str(tmp_path)
    config.environment = replace(ENVIRONMENT, max_episode_length=100_000)
    config.actor.console = ConsoleConfig(enabled=True, port=port)
    config.evaluation.num_lanes, config.evaluation.num_episodes = 1, 3
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        evaluating = pool.submit(evaluate, config, is_stopping=stop.is_set)
        try:
            token = tmp_path / config.unique_identifier / "console-actor-0.token"
            with connect_when_open(port, token) as socket:
                client = Client(socket)
                client.until(lambda state: state["step"] > 0)
                client.say("judge", outcome="success")
                client.until(lambda state: state["episode"] == 1 and state["step"] > 0)
                client.say("stop")
                client.until(lambda state: "pressed STOP" in state["fault"])
                client.say("clear")
                client.until(lambda state: not state["fault"] and state["step"] > 0)
        finally:
            stop.set()
        report = evaluating.result(timeout=60)
    assert (report.overall.num_episodes, report.overall.num_successes, report.overall.num_aborted) == (1, 1, 2)


def connect_when_open(port: int, token: Path) -> ClientConnection:
    deadline_s = time.monotonic() + 60
    while True:
        try:
            return connect(f"ws://127.0.0.1:{port}/live?token={token.read_text().strip()}")
        except OSError:
            assert time.monotonic() < deadline_s, "The console did not open in time."
            time.sleep(0.1)


def test_people_judge_one_simulator_at_a_time(checkpoint: Path, tmp_path: Path):
    config = run_config(checkpoint, tmp_path)
    config.actor.console.enabled = True
    with pytest.raises(ConfigError, match=r"evaluation\.num_lanes=1"):
        evaluate(config)
