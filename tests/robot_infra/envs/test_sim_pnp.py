"""The embedded simulator: physics, seeds, prompts, the person beside it."""

import warnings

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_infra.envs import build, build_operator
from robot_infra.envs.sim_pnp import kinematics
from robot_infra.envs.sim_pnp.env import SimPnp
from robot_infra.envs.sim_pnp.scenes import PLAY, TASK
from robot_infra.envs.sim_pnp.world import NOBODY
from serl_launcher.config.actor import InterventionConfig
from serl_launcher.config.environment import EnvironmentConfig
from serl_launcher.errors import ConfigError


def drive(env, operator, seed, choose=None):
    """Runs one episode; `choose` is the policy that the person watches."""
    observation = env.reset(seed=seed)
    operator.reset()
    sources = []
    while True:
        proposal = choose(observation) if choose else None
        command = operator.command(observation, proposal)
        sources.append(command is not None)
        transition = env.step(proposal if command is None else command)
        observation = transition.observation
        if transition.terminated or transition.truncated:
            return transition, sources


@pytest.fixture(name="env")
def fixture_env():
    env = build(EnvironmentConfig(max_episode_length=80))
    yield env
    env.close()


def test_gymnasium_accepts_the_environment():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_env(SimPnp())


def test_equal_seeds_and_actions_give_equal_episodes(env):
    def record():
        rng = np.random.default_rng(3)
        frames = [env.reset(seed=11)]
        for _ in range(20):
            action = frames[-1].state + rng.normal(0, 0.2, 14).astype(np.float32)
            frames.append(env.step(action).observation)
        return frames

    for first, second in zip(record(), record(), strict=True):
        np.testing.assert_array_equal(first.state, second.state)
        for name in first.images:
            np.testing.assert_array_equal(first.images[name], second.images[name])


def test_different_seeds_draw_different_scenes_and_all_four_prompts(env):
    prompts = {env.reset(seed=seed).prompt for seed in range(40)}
    assert prompts == {
        f"put the {colour} cube on the {place} plate" for colour in ("red", "blue") for place in ("green", "white")
    }


@given(x=st.floats(-0.15, 0.15), y=st.floats(0.12, 0.34), z=st.floats(0.01, 0.15), arm=st.integers(0, 1))
def test_inverse_kinematics_reaches_the_point_it_was_asked_for(x, y, z, arm):
    base = kinematics.BASES[arm]
    wanted = base + np.array([x, y, z])
    np.testing.assert_allclose(
        kinematics.tip_position(kinematics.joints_for_tip(wanted, base), base), wanted, atol=1e-6
    )


def test_the_person_solves_every_start_state(env):
    operator = build_operator(env, InterventionConfig(), always_drive=True)
    outcomes = [drive(env, operator, seed)[0].success for seed in range(40)]
    assert all(outcomes)


def test_the_person_rescues_a_policy_that_does_nothing(env):
    operator = build_operator(env, InterventionConfig(reaction_ticks=2, patience_ticks=6))
    transition, human = drive(env, operator, 5, choose=lambda observation: observation.state)
    assert transition.success
    assert not any(human[:6])
    assert any(human)


def test_the_person_leaves_a_good_policy_alone(env):
    driver = build_operator(env, InterventionConfig(), always_drive=True)
    watcher = build_operator(env, InterventionConfig())
    for seed in range(10):
        env.reset(seed=seed)
        driver.reset()
        transition, human = drive(env, watcher, seed, choose=lambda observation: driver.command(observation, None))
        assert transition.success
        assert not any(human)


def test_the_person_hands_back_after_the_object_is_lifted(env):
    operator = build_operator(env, InterventionConfig(reaction_ticks=1, patience_ticks=3))
    _, human = drive(env, operator, 8, choose=lambda observation: observation.state)
    changes = np.flatnonzero(np.diff(np.array(human, int)))
    assert len(changes) >= 3, "takes over, hands back while carrying, takes over again"


def test_an_object_on_the_wrong_place_ends_the_episode_without_success():
    env = SimPnp()
    env.reset(seed=2)
    env.world.objects[0, :2] = env.world.scene.place_positions[1]
    _, reward, terminated, truncated, extra = env.step(env.world.state())
    assert (reward, terminated, truncated, extra["success"]) == (0.0, True, False, False)


def test_the_other_object_on_the_named_place_ends_the_episode_without_success():
    env = SimPnp()
    env.reset(seed=2)
    env.world.objects[1, :2] = env.world.scene.place_positions[0]
    _, _, terminated, _, extra = env.step(env.world.state())
    assert terminated
    assert not extra["success"]


def test_fingers_that_close_beside_the_object_miss_and_push_it():
    env = SimPnp()
    env.reset(seed=4)
    world = env.world
    arm = 0 if world.objects[0, 0] < 0 else 1
    before = world.objects[0].copy()
    beside = before + np.array([0.03, 0.0, 0.0])
    world.joints[arm] = kinematics.joints_for_tip(beside, kinematics.BASES[arm])
    action = world.state().reshape(2, 7)
    action[arm, 6] = 0.0
    env.step(action.reshape(-1))
    assert world.held[arm] == NOBODY
    assert world.objects[0, 0] < before[0]


def test_a_loose_grasp_slips_and_a_firm_one_does_not():
    def slips(offset_m):
        count = 0
        for seed in range(30):
            env = SimPnp()
            env.reset(seed=seed)
            world = env.world
            world.held[0] = 0
            world.openings[0] = 0.45
            world.grasp_offsets[0] = (offset_m, 0.0)
            action = world.state().reshape(2, 7)
            action[0, 6] = 0.0
            for tick in range(10):
                action[0, 0] = 0.3 if tick % 2 else -0.3
                env.step(action.reshape(-1))
            count += world.num_slips
        return count

    assert slips(0.0) == 0
    assert slips(0.023) > 15


def test_time_runs_out_as_truncation():
    env = SimPnp(max_episode_length=3)
    env.reset(seed=0)
    ends = [env.step(env.world.state())[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]


def test_replaying_a_demonstration_blindly_rarely_succeeds(env):
    operator = build_operator(env, InterventionConfig(), always_drive=True)
    rng = np.random.default_rng(0)
    successes = 0
    for seed in range(30):
        observation = env.reset(seed=int(rng.integers(1000)))
        operator.reset()
        actions = []
        while True:
            actions.append(operator.command(observation, None))
            transition = env.step(actions[-1])
            observation = transition.observation
            if transition.terminated:
                break
        env.reset(seed=5000 + seed)
        for action in actions:
            transition = env.step(action)
            if transition.terminated or transition.truncated:
                break
        successes += transition.success
    assert successes / 30 < 0.2


def test_play_shares_nothing_with_the_task():
    words = {word for thing in (*TASK.objects, *TASK.places) for word in thing.name.split()}
    play_words = {word for thing in (*PLAY.objects, *PLAY.places) for word in thing.name.split()}
    assert not words & play_words
    assert not set(TASK.sentences) & set(PLAY.sentences)
    assert not {t.colour for t in (*TASK.objects, *TASK.places)} & {t.colour for t in (*PLAY.objects, *PLAY.places)}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.0, 3.0))
def test_measured_joints_stay_within_their_limits_under_any_action(seed, scale):
    env = SimPnp()
    env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    for _ in range(15):
        observation, *_ = env.step(rng.normal(0, scale, 14).astype(np.float32))
        assert env.observation_space["state"].contains(observation["state"])


def test_an_unknown_environment_names_the_nearest_one():
    with pytest.raises(ConfigError, match="sim_pnp"):
        build(EnvironmentConfig(name="sim_pmp"))
