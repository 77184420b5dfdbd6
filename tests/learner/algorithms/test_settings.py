import itertools

import pytest

from learner.algorithms.settings import IGNORED, check_settings, warn_of_classifier_settings
from serl_launcher.config import RunConfig, load
from serl_launcher.config.loader import group_choices
from serl_launcher.config.sac import GripperConfig, SacConfig
from serl_launcher.config.training import AlgoConfig, OptimizerConfig
from serl_launcher.errors import ConfigError


@pytest.mark.parametrize(
    ("algo", "key"),
    [
        ({"name": "sac", "rl_steps": 2}, "rl_steps"),
        ({"name": "sac", "sft_steps": 1}, "sft_steps"),
        ({"name": "sac", "sac": SacConfig(distill_weight=1.0)}, "sac.distill_weight"),
        ({"name": "sac", "sac": SacConfig(sampler="sde")}, "sac.sampler"),
        ({"name": "sac", "sac": SacConfig(sampler_noise=0.1)}, "sac.sampler_noise"),
        ({"name": "sac", "sac": SacConfig(target_divergence=0.1)}, "sac.target_divergence"),
        ({"name": "sac", "sac": SacConfig(critic_features="mean")}, "sac.critic_features"),
        ({"name": "sac", "threshold_schedule": [0.5]}, "threshold_schedule"),
        ({"name": "sac_pi0", "sac": SacConfig(gripper=GripperConfig(action="gripper"))}, "sac.gripper.action"),
        ({"name": "sac_pi0", "sac": SacConfig(image_shift=0)}, "sac.image_shift"),
        ({"name": "sac_pi0", "sac": SacConfig(target_entropy=-1.0)}, "sac.target_entropy"),
        ({"name": "sft_pi0", "sac": SacConfig(cta_ratio=2)}, "sac.cta_ratio"),
        ({"name": "reject_sampling_pi0", "sft_steps": 1}, "sft_steps"),
    ],
)
def test_a_setting_without_effect_is_refused_by_name(algo, key):
    with pytest.raises(ConfigError, match=rf"algo={algo['name']} does not use algo\.{key}="):
        check_settings(RunConfig(algo=AlgoConfig(**algo)))


def test_the_refusal_names_algorithms_that_use_it():
    with pytest.raises(ConfigError, match=r"leave it at None, or choose an algorithm that does, sac\."):
        check_settings(RunConfig(algo=AlgoConfig(name="sac_pi0", sac=SacConfig(target_entropy=-1.0))))


def test_paths_alone_have_a_noise_level():
    with pytest.raises(ConfigError, match=r"set algo\.sac\.sampler to sde"):
        check_settings(RunConfig(algo=AlgoConfig(name="sac_pi0", sac=SacConfig(sampler_noise=0.1))))
    check_settings(RunConfig(algo=AlgoConfig(name="sac_pi0", sac=SacConfig(sampler="sde", sampler_noise=0.1))))


@pytest.mark.parametrize("key", ["critic_optimizer", "temperature_optimizer"])
def test_critics_restart_with_the_policy_alone(key):
    restart = OptimizerConfig(schedule="restart")
    with pytest.raises(ConfigError, match=f"algo.{key}.schedule=restart"):
        check_settings(RunConfig(algo=AlgoConfig(name="sac", **{key: restart})))
    check_settings(RunConfig(algo=AlgoConfig(name="sac", optimizer=restart, **{key: restart})))


def test_two_optimizers_cannot_share_the_scale_of_fp16():
    config = RunConfig(algo=AlgoConfig(optimizer=OptimizerConfig(name="muon")))
    config.training.mixed_precision = "fp16"
    with pytest.raises(ConfigError, match="muon is two optimizers"):
        check_settings(config)


def test_an_actor_critic_has_no_held_out_loss_to_rank_policies_by():
    config = RunConfig(algo=AlgoConfig(name="sac"))
    config.training.keep_best, config.dataset.held_out_fraction = "held_out", 0.1
    with pytest.raises(ConfigError, match="keep_best=evaluation"):
        check_settings(config)


def test_without_held_out_episodes_there_is_no_best():
    config = RunConfig()
    config.training.keep_best = "held_out"
    with pytest.raises(ConfigError, match="held_out_fraction"):
        check_settings(config)


def test_a_classifier_says_what_it_leaves_aside(caplog):
    warn_of_classifier_settings(OptimizerConfig())
    assert not caplog.text
    warn_of_classifier_settings(OptimizerConfig(name="muon", ema=0.9))
    assert "algo.optimizer.name, ema are not used" in caplog.text


def test_shipped_algorithms_and_tasks_go_together():
    choices = group_choices()
    pairs = [*itertools.product(choices["algo"], ["sim_pnp"]), *itertools.product(["sac_pi0"], choices["task"])]
    for algo, task in pairs:
        check_settings(load([f"algo={algo}", f"task={task}"]))


def test_ignored_keys_exist():
    for key in itertools.chain.from_iterable(IGNORED.values()):
        value = AlgoConfig()
        for part in key.split("."):
            value = getattr(value, part)


@pytest.mark.parametrize(
    ("overrides", "refusal"),
    [
        (["algo=sac", "task=pendulum", "policy.horizon=4"], "Gaussian policy, which cannot follow policy.horizon"),
        (["algo=sac_pi0", "algo.noise_samples=4"], "does not follow algo.noise_samples"),
        (["algo=sac", "task=pendulum", "algo.image_augmentation=light"], "does not follow algo.image_augmentation"),
    ],
)
def test_what_the_command_line_asks_for_in_vain_is_refused(overrides, refusal):
    with pytest.raises(ConfigError, match=refusal):
        check_settings(load(overrides))


def test_what_a_task_sets_for_other_algorithms_is_left_aside():
    check_settings(load(["algo=sac_pi0", "task=sim_pnp"]))
