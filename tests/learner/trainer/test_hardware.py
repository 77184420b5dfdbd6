"""What a configuration asks of the processors; that ranks compute alike is shown in test_ranks."""

import pytest

from learner.trainer.hardware import build_hardware
from serl_launcher.config import RunConfig
from serl_launcher.config.training import TrainingConfig
from serl_launcher.errors import ConfigError


def test_half_precision_with_a_scaled_loss_is_refused_under_deepspeed():
    training = TrainingConfig(deepspeed_config="config/zero2.json", mixed_precision="fp16")
    with pytest.raises(ConfigError, match="mixed_precision=bf16 or no, got 'fp16'"):
        build_hardware(RunConfig(training=training))


def test_a_missing_deepspeed_file_is_named():
    with pytest.raises(ConfigError, match=r"expected a JSON file at .*none\.json"):
        build_hardware(RunConfig(training=TrainingConfig(deepspeed_config="none.json")))
