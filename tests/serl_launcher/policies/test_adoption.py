"""A run that starts from a checkpoint: what it asks for is done or refused, never ignored."""

import dataclasses
from functools import partial

import pytest

from serl_launcher.config.acting import ActingConfig
from serl_launcher.config.policy import PolicyConfig
from serl_launcher.config.tuning import TuningConfig
from serl_launcher.errors import ConfigError
from serl_launcher.policies import NormStats, load_policy, save_policy
from serl_launcher.policies.adoption import adopted

ASKED = {
    "image_keys": ["cam_wrist"], "image_resize": "lerobot", "max_token_len": 12, "state_in_prompt": "none",
    "horizon": 3, "num_steps": 2, "normalization": "quantile", "delta_actions": True,
}  # fmt: skip


def load_asking(directory, config, **changes):
    wanted = dataclasses.replace(config, **changes)
    explicit = {f"policy.{name}" for name in changes}
    return load_policy(directory, settings=partial(adopted, wanted=wanted, explicit=explicit))


@pytest.mark.parametrize("name", ASKED)
def test_what_needs_no_other_weights_is_done(policy, config, tmp_path, name):
    save_policy(policy, tmp_path)
    loaded = load_asking(tmp_path, config, **{name: ASKED[name]})
    assert loaded.config == dataclasses.replace(config, **{name: ASKED[name]})


def test_cameras_prompt_and_chunk_are_those_asked_for(policy, config, batch, tmp_path):
    save_policy(policy, tmp_path)
    loaded = load_asking(tmp_path, config, image_keys=["cam_wrist"], horizon=3, max_token_len=12)
    assert loaded.num_cameras == 1
    assert loaded.prepare(**batch).tokens.shape == (4, 12)
    assert loaded.act(**batch).shape == (4, 3, 3)


def test_the_values_of_files_are_no_requests(policy, config, tmp_path):
    save_policy(policy, tmp_path)
    wanted = dataclasses.replace(config, horizon=3, max_action_dim=9)
    assert load_policy(tmp_path, settings=partial(adopted, wanted=wanted, explicit={"seed"})).config == config


def test_another_size_is_refused_with_both_sides(policy, config, tmp_path):
    save_policy(policy, tmp_path)
    with pytest.raises(ConfigError, match="max_action_dim is 4, asked for is 9"):
        load_asking(tmp_path, config, max_action_dim=9)
    assert load_asking(tmp_path, config, max_action_dim=config.max_action_dim).config == config


def test_statistics_of_other_quantities_are_dropped(policy, config, tmp_path):
    save_policy(policy, tmp_path / "with_quantiles")
    assert load_asking(tmp_path / "with_quantiles", config, normalization="quantile").norm_stats == policy.norm_stats
    assert load_asking(tmp_path / "with_quantiles", config, delta_actions=True).norm_stats == {}
    plain = NormStats(mean=[0.0] * 3, std=[1.0] * 3)
    policy.set_norm_stats({"state": plain, "actions": plain})
    save_policy(policy, tmp_path / "without")
    assert load_asking(tmp_path / "without", config, normalization="quantile").norm_stats == {}


def test_a_delay_of_the_whole_chunk_leaves_nothing_to_learn():
    with pytest.raises(ConfigError, match="max_delay"):
        PolicyConfig(horizon=4, tuning=TuningConfig(max_delay=4))


def test_given_actions_need_a_policy_trained_for_them(config):
    given = ActingConfig(chunking="given")
    with pytest.raises(ConfigError, match="given needs a policy"):
        dataclasses.replace(config, acting=given)
    trained = dataclasses.replace(config, acting=given, tuning=TuningConfig(max_delay=2))
    assert trained.tuning.max_delay == 2
