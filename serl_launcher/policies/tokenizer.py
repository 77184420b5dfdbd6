"""Prompts to token ids, as PaliGemma's SentencePiece tokenizer does it."""

import logging
from pathlib import Path

import numpy as np
import sentencepiece

from serl_launcher.errors import CheckpointError

logger = logging.getLogger(__name__)


class PromptTokenizer:
    """Cleans a prompt, adds BOS and a newline, pads on the right (openpi's π0 layout)."""

    def __init__(self, model: bytes, max_token_len: int) -> None:
        self.model = model
        self.max_token_len = max_token_len
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self._cache: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    @classmethod
    def from_file(cls, path: Path, max_token_len: int) -> "PromptTokenizer":
        """Reads a SentencePiece model.

        Raises:
            CheckpointError: The file is missing; the message says how to go on offline.
        """
        if not path.is_file():
            raise CheckpointError(
                f"Expected a SentencePiece model at {path}, found none. Set policy.tokenizer_path to a local copy of "
                "paligemma_tokenizer.model (gated: accept its licence once, download it, copy the file)."
            )
        return cls(path.read_bytes(), max_token_len)

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self._processor.vocab_size()

    def __call__(self, prompts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Returns ids, int64 [B, L], and which of them are not padding, bool [B, L]."""
        rows = [self._encode(prompt) for prompt in prompts]
        return np.stack([ids for ids, _ in rows]), np.stack([valid for _, valid in rows])

    def _encode(self, prompt: str) -> tuple[np.ndarray, np.ndarray]:
        if prompt not in self._cache:
            cleaned = prompt.strip().replace("_", " ").replace("\n", " ")
            ids = [self._processor.bos_id(), *self._processor.encode(cleaned), *self._processor.encode("\n")]
            if len(ids) > self.max_token_len:
                logger.warning("Prompt %r has %d tokens; cut to %d.", prompt, len(ids), self.max_token_len)
                ids = ids[: self.max_token_len]
            padded = np.zeros(self.max_token_len, np.int64)
            padded[: len(ids)] = ids
            self._cache[prompt] = (padded, np.arange(self.max_token_len) < len(ids))
        return self._cache[prompt]
