import json
from dataclasses import replace
from pathlib import Path

import pytest

from actor.evaluate import evaluate
from actor.local_policy import LocalPolicy, check_same_robot
from robot_infra import envs
from serl_launcher.config.actor import ActorConfig, EvaluationConfig, InterventionConfig
from serl_launcher.config.environment import EnvironmentConfig
from serl_launcher.config.root import RunConfig
from serl_launcher.errors import ConfigError, SpecMismatch
from serl_launcher.policies import policy_hash
from serl_launcher.specs import RobotSpec
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
