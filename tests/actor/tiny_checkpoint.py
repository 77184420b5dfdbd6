"""The smallest policy that can drive `sim_pnp`, with random weights."""

import io
from pathlib import Path

import sentencepiece
import torch

from serl_launcher.config.policy import GemmaConfig, PolicyConfig, VisionConfig
from serl_launcher.policies import NormStats, Pi0Policy, save_policy
from serl_launcher.policies.tokenizer import PromptTokenizer
from serl_launcher.specs import RobotSpec


def save_tiny_policy(directory: Path, robot_spec: RobotSpec) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["put the red cube on the green plate"] * 5), model_writer=model, vocab_size=40,
        model_type="bpe", pad_id=0, eos_id=1, bos_id=2, unk_id=3, user_defined_symbols=["\n"], minloglevel=2,
        hard_vocab_limit=False,
    )  # fmt: skip
    gemma = GemmaConfig(width=16, depth=1, mlp_dim=16, num_heads=2, num_kv_heads=1, head_dim=8)
    config = PolicyConfig(
        vision=VisionConfig(image_size=16, patch_size=16, width=16, depth=1, mlp_dim=16, num_heads=2),
        language=gemma, expert=gemma, vocab_size=64, max_token_len=8, horizon=4, max_state_dim=14, max_action_dim=14,
        num_steps=2,
    )  # fmt: skip
    torch.manual_seed(0)
    policy = Pi0Policy(config, robot_spec, PromptTokenizer(model.getvalue(), 8))
    policy.network.initialize_()
    width = robot_spec.state_dim
    stats = NormStats(mean=[0.0] * width, std=[0.3] * width, q01=[-1.0] * width, q99=[1.0] * width)
    policy.set_norm_stats({"state": stats, "actions": stats})
    save_policy(policy, directory)
