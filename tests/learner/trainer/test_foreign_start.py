"""From a checkpoint of LeRobot's or openpi's, through training with factors, back to a directory that LeRobot opens."""

import dataclasses
import threading
from pathlib import Path

import pytest
import torch

from learner.replay.reader import ReplayDataset
from learner.trainer.build import build_trainer
from learner.trainer.start import starting_policy
from serl_launcher import publication
from serl_launcher.config.tuning import LoraConfig, TuningConfig
from serl_launcher.errors import ConfigError
from serl_launcher.networks.lora import lora_layers
from serl_launcher.policies import NormStats, Pi0Policy, load_policy, save_policy
from serl_launcher.policies.formats import read_stored
from serl_launcher.policies.tokenizer import PromptTokenizer
from serl_launcher.types import Outcome
from tests.learner.conftest import SPEC
from tools.convert_checkpoint import main as convert


@pytest.fixture(name="start")
def fixture_start(run, tmp_path):
    """Starts the run from a saved policy with settings that its command line asks for."""
    run.record(*[Outcome.SUCCESS] * 2, root=run.demonstrations)
    save_policy(starting_policy(run.config, [ReplayDataset(run.demonstrations)]), tmp_path / "saved")
    run.config.checkpoint_path = str(tmp_path / "saved")

    def start(**asked):
        run.config.policy = dataclasses.replace(run.config.policy, **asked)
        run.config.explicit = frozenset(f"policy.{name}" for name in asked)
        return starting_policy(run.config, [ReplayDataset(run.demonstrations)])

    return start


def test_a_run_gets_what_it_asks_for_and_statistics_that_go_with_it(start):
    absolute = start(horizon=2)
    assert absolute.config.horizon == 2
    relative = start(delta_actions=True)
    assert relative.config.delta_actions
    assert relative.norm_stats["actions"] != absolute.norm_stats["actions"]
    assert relative.norm_stats["state"].mean == pytest.approx(absolute.norm_stats["state"].mean)


def test_another_size_or_tokenizer_than_the_checkpoints_is_refused(start, tmp_path):
    with pytest.raises(ConfigError, match="max_action_dim is 3, asked for is 9"):
        start(max_action_dim=9)
    (tmp_path / "other.model").write_bytes(b"other")
    with pytest.raises(ConfigError, match="a tokenizer of its own"):
        start(tokenizer_path=str(tmp_path / "other.model"))


@pytest.mark.parametrize("layout", ["lerobot", "openpi"])
def test_a_published_policy_is_tuned_with_factors_and_goes_back_to_lerobot(run, tmp_path, layout):
    run.record(*[Outcome.SUCCESS] * 3, root=run.demonstrations)
    config = run.config.policy
    base = Pi0Policy(config, SPEC, PromptTokenizer.from_file(Path(config.tokenizer_path), config.max_token_len))
    base.network.initialize_()
    stats = NormStats(mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7], q01=[-1.0] * 3, q99=[1.0] * 3)
    base.set_norm_stats({"state": stats, "actions": stats})
    save_policy(base, tmp_path / "base", layout=layout)
    run.config.checkpoint_path = str(tmp_path / "base")
    run.config.policy = dataclasses.replace(
        config, tuning=TuningConfig(freeze_vision=True, lora=LoraConfig(language_rank=2, expert_rank=2))
    )
    assert build_trainer(run.config).run(threading.Event())

    published = publication.latest(run.directory.policies)
    assert published is not None
    tuned = load_policy(published.path)
    assert any(lora_layers(tuned.network))
    assert tuned.norm_stats["actions"].mean == pytest.approx(stats.mean)
    start = base.network.state_dict()
    for name, tensor in tuned.network.state_dict().items():
        if "language_model" in name and "lora_" not in name:
            assert torch.equal(tensor, start[name]), name
    assert convert(["--from", str(published.path), "--to", str(tmp_path / "out"), "--format", "lerobot"]) == 0
    assert set(read_stored(tmp_path / "out").weights) == set(start)
