"""Prompts to token ids, as PaliGemma's SentencePiece tokenizer does it."""

import logging
from pathlib import Path

import numpy as np
import sentencepiece
from jaxtyping import Float, Int
from numpy import ndarray

from serl_launcher.errors import CheckpointError

logger = logging.getLogger(__name__)

NUM_STATE_BINS = 256
_LEFT_EDGES = np.linspace(-1.0, 1.0, NUM_STATE_BINS + 1)[:-1]


class PromptTokenizer:
    """Cleans a prompt, adds BOS and what follows the instruction, pads on the right (openpi's layouts)."""

    def __init__(self, model: bytes, max_token_len: int, *, cleaning: str = "openpi") -> None:
        """Takes a SentencePiece model; `cleaning` is `policy.prompt_cleaning`."""
        self.model = model
        self._cleaning = cleaning
        self.max_token_len = max_token_len
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self._cache: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    @classmethod
    def from_file(cls, path: Path, max_token_len: int, *, cleaning: str = "openpi") -> "PromptTokenizer":
        """Reads a SentencePiece model; arguments as of the class.

        Raises:
            CheckpointError: The file is missing; the message says how to go on offline.
        """
        if not path.is_file():
            raise CheckpointError(
                f"Expected a SentencePiece model at {path}, found none. Set policy.tokenizer_path to a local copy of "
                "paligemma_tokenizer.model (gated: accept its licence once, download it, copy the file)."
            )
        return cls(path.read_bytes(), max_token_len, cleaning=cleaning)

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self._processor.vocab_size()

    def __call__(
        self, prompts: list[str], state: Float[ndarray, "B S"] | None = None
    ) -> tuple[Int[ndarray, "B L"], ndarray]:
        """Returns ids, int64 [B, L], and which of them are not padding, bool [B, L].

        Args:
            prompts: B instructions.
            state: Normalised states to write into the prompt (π0.5); None leaves them out (π0).
        """
        if state is None:
            rows = [self._encode(prompt) for prompt in prompts]
        else:
            rows = [self._encode_with_state(*pair) for pair in zip(prompts, discretize(state), strict=True)]
        return np.stack([ids for ids, _ in rows]), np.stack([valid for _, valid in rows])

    def _encode(self, prompt: str) -> tuple[np.ndarray, np.ndarray]:
        if prompt not in self._cache:
            # LeRobot adds a line break where there is none.
            text = _cleaned(prompt) if self._cleaning == "openpi" else prompt.removesuffix("\n")
            ids = [*self._processor.encode(text), *self._processor.encode("\n")]
            self._cache[prompt] = self._padded(prompt, ids)
        return self._cache[prompt]

    def _encode_with_state(self, prompt: str, bins: Int[ndarray, " S"]) -> tuple[np.ndarray, np.ndarray]:
        return self._padded(prompt, self._processor.encode(state_prompt(prompt, bins)))

    def _padded(self, prompt: str, ids: list[int]) -> tuple[np.ndarray, np.ndarray]:
        ids = [self._processor.bos_id(), *ids]
        if len(ids) > self.max_token_len:
            logger.warning("Prompt %r has %d tokens; cut to %d.", prompt, len(ids), self.max_token_len)
            ids = ids[: self.max_token_len]
        padded = np.zeros(self.max_token_len, np.int64)
        padded[: len(ids)] = ids
        return padded, np.arange(self.max_token_len) < len(ids)


def discretize(state: Float[ndarray, "B S"]) -> Int[ndarray, "B S"]:
    """Returns the bin, 0 to 255, of each normalised state in [-1, 1]; below -1 it is -1, above 1 it is 255."""
    return np.digitize(state, _LEFT_EDGES) - 1


def state_prompt(prompt: str, bins: Int[ndarray, " S"]) -> str:
    """Returns π0.5's prompt: the instruction and the discretised state."""
    return f"Task: {_cleaned(prompt)}, State: {' '.join(map(str, bins))};\nAction: "


def _cleaned(prompt: str) -> str:
    return prompt.strip().replace("_", " ").replace("\n", " ")
