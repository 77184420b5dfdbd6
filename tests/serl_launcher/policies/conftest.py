"""A tiny π0 with a locally trained tokenizer."""

import io

import numpy as np
import pytest
import sentencepiece
import torch

from serl_launcher.config.policy import GemmaConfig, PolicyConfig, VisionConfig
from serl_launcher.policies import NormStats, Pi0Policy
from serl_launcher.policies.tokenizer import PromptTokenizer
from serl_launcher.specs import CameraSpec, RobotSpec

SENTENCES = ["put the red cube on the green plate", "put the blue cube on the white plate"]


@pytest.fixture(name="tokenizer", scope="session")
def fixture_tokenizer():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 5),
        model_writer=model,
        vocab_size=60,
        model_type="bpe",
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        user_defined_symbols=["\n"],
        minloglevel=2,
        hard_vocab_limit=False,
    )
    return PromptTokenizer(model.getvalue(), 24)


@pytest.fixture(name="digit_tokenizer", scope="session")
def fixture_digit_tokenizer():
    """Spells digits and signs one by one, keeps spaces as they are: what PaliGemma's does, at 340 ids."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*SENTENCES, "Task: fold the towel, State: 0 1 2 3 4 5 6 7 8 9 -1; Action: "] * 3),
        model_writer=model,
        vocab_size=340,
        model_type="bpe",
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        user_defined_symbols=["\n"],
        split_digits=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        byte_fallback=True,
        minloglevel=2,
        hard_vocab_limit=False,
    )
    return PromptTokenizer(model.getvalue(), 64)


@pytest.fixture(name="spec", scope="session")
def fixture_spec():
    names = ("j0", "j1", "gripper")
    return RobotSpec(
        name="toy",
        cameras=tuple(CameraSpec(name=name, height=16, width=16) for name in ("cam_high", "cam_wrist")),
        state_names=names,
        action_names=names,
        action_low=(-2.0,) * 3,
        action_high=(2.0,) * 3,
        control_hz=10.0,
    )


@pytest.fixture(name="config")
def fixture_config():
    gemma = GemmaConfig(width=32, depth=2, mlp_dim=48, num_heads=2, num_kv_heads=1, head_dim=16)
    return PolicyConfig(
        vision=VisionConfig(image_size=16, patch_size=8, width=32, depth=1, mlp_dim=48, num_heads=2),
        language=gemma,
        expert=gemma,
        vocab_size=64,
        max_token_len=24,
        horizon=6,
        max_state_dim=5,
        max_action_dim=4,
        num_steps=4,
    )


def make_policy(config, spec, tokenizer, seed=0):
    torch.manual_seed(seed)
    policy = Pi0Policy(config, spec, tokenizer)
    policy.network.initialize_()
    stats = NormStats(mean=[0.1, -0.2, 0.5], std=[0.5, 0.7, 0.3], q01=[-1.0] * 3, q99=[1.5] * 3)
    policy.set_norm_stats({"state": stats, "actions": stats})
    return policy


@pytest.fixture(name="policy")
def fixture_policy(config, spec, tokenizer):
    return make_policy(config, spec, tokenizer)


@pytest.fixture(name="batch")
def fixture_batch():
    rng = np.random.default_rng(0)
    return {
        "images": rng.integers(0, 255, (4, 2, 16, 16, 3), dtype=np.uint8),
        "state": rng.normal(0, 0.5, (4, 3)).astype(np.float32),
        "prompts": SENTENCES * 2,
    }
