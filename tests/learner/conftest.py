"""A run in miniature: recorded episodes, a tiny π0, a configuration that fits them."""

import io
from dataclasses import dataclass
from pathlib import Path

import pytest
import sentencepiece

from serl_launcher.config import RunConfig
from serl_launcher.config.policy import GemmaConfig, PolicyConfig, VisionConfig
from serl_launcher.config.training import AlgoConfig, OptimizerConfig, TrainingConfig
from serl_launcher.datasets.writer import DatasetWriter
from serl_launcher.run_directory import RunDirectory
from tests.recorded_episodes import make_episode, robot

SPEC = robot(size=16)
PROMPT = "put the cube on the plate"


@pytest.fixture(name="tokenizer_path", scope="session")
def fixture_tokenizer_path(tmp_path_factory):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([PROMPT] * 5), model_writer=model, vocab_size=60, model_type="bpe", pad_id=0, eos_id=1,
        bos_id=2, unk_id=3, user_defined_symbols=["\n"], minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    path.write_bytes(model.getvalue())
    return path


@dataclass(kw_only=True)
class Run:
    """One run and where its files lie."""

    config: RunConfig
    directory: RunDirectory
    demonstrations: Path

    def record(self, *outcomes, first=0, length=8, root=None):
        """Appends episodes with these outcomes to the replay (or another dataset)."""
        writer = DatasetWriter(root or self.directory.replay, SPEC)
        for number, outcome in enumerate(outcomes, start=first):
            writer.append(make_episode(SPEC, number, length, outcome=outcome, prompt=PROMPT))


@pytest.fixture(name="run")
def fixture_run(tmp_path, tokenizer_path, monkeypatch):
    monkeypatch.delenv("HF_LEROBOT_HOME", raising=False)
    gemma = GemmaConfig(width=16, depth=1, mlp_dim=16, num_heads=2, num_kv_heads=1, head_dim=8)
    policy = PolicyConfig(
        vision=VisionConfig(image_size=16, patch_size=8, width=16, depth=1, mlp_dim=16, num_heads=2),
        language=gemma, expert=gemma, vocab_size=64, max_token_len=16, horizon=4, max_state_dim=3, max_action_dim=3,
        num_steps=2, tokenizer_path=str(tokenizer_path),
    )  # fmt: skip
    optimizer = OptimizerConfig(lr=1e-3, num_warmup_steps=2, num_decay_steps=50)
    config = RunConfig(
        unique_identifier="test", output_dir=str(tmp_path), policy=policy,
        algo=AlgoConfig(name="sft_pi0", batch_size=4, max_updates=6, publish_every=2, optimizer=optimizer),
        training=TrainingConfig(checkpoint_period=3),
    )  # fmt: skip
    config.dataset.repo_id = [str(tmp_path / "demonstrations")]
    config.logging.log_period = 1
    return Run(config=config, directory=RunDirectory.of(config), demonstrations=tmp_path / "demonstrations")
