"""Prompts with and without a state."""

import numpy as np
import pytest

from serl_launcher.errors import CheckpointError
from serl_launcher.policies.tokenizer import PromptTokenizer, discretize, state_prompt


@pytest.mark.parametrize(
    ("state", "bin_number"),
    [(-1.2, -1), (-1, 0), (-0.5, 64), (-1e-9, 127), (0, 128), (0.5, 192), (0.999, 255), (1, 255), (1.3, 255)],
)
def test_state_bins_are_the_published_ones(state, bin_number):
    assert discretize(np.array([[state]])).item() == bin_number


def test_the_prompt_of_pi05_holds_the_state_as_text():
    bins = discretize(np.array([[-1, -0.5, 0, 0.5, 1]], np.float32))[0]
    assert state_prompt(" Fold_the\ntowel ", bins) == "Task: Fold the towel, State: 0 64 128 192 255;\nAction: "


def test_tokens_of_a_state_prompt_decode_to_it(digit_tokenizer):
    ids, valid = digit_tokenizer(["fold the towel"], np.array([[-1.2, 0.5]], np.float32))
    assert ids[0, 0] == 2
    assert not ids[0, ~valid[0]].any()
    said = digit_tokenizer._processor.decode(ids[0, valid[0]].tolist())
    assert said == "Task: fold the towel, State: -1 192;\nAction: "


def test_without_a_state_the_layout_is_that_of_pi0(digit_tokenizer):
    ids, valid = digit_tokenizer(["fold the towel"])
    assert digit_tokenizer._processor.decode(ids[0, valid[0]].tolist()) == "fold the towel\n"


def test_a_missing_model_says_how_to_go_on_offline(tmp_path):
    with pytest.raises(CheckpointError, match=r"policy\.tokenizer_path to a local copy .* \(gated"):
        PromptTokenizer.from_file(tmp_path / "paligemma_tokenizer.model", 48)


def test_a_prompt_that_is_too_long_is_cut_with_a_warning(digit_tokenizer, caplog):
    ids, valid = digit_tokenizer(["fold the towel"], np.zeros((1, 80), np.float32))
    assert valid.all()
    assert ids.shape == (1, digit_tokenizer.max_token_len)
    assert len(caplog.records) == 1


def test_lerobots_pi0_takes_prompts_as_they_are(digit_tokenizer):
    lerobots = PromptTokenizer(digit_tokenizer.model, 64, cleaning="lerobot")
    for prompt in ("fold the towel", "fold the towel\n"):
        np.testing.assert_array_equal(lerobots([prompt])[0], digit_tokenizer(["fold the towel"])[0])
    ids, valid = lerobots([" fold_the towel "])
    assert lerobots._processor.decode(ids[0, valid[0]].tolist()) == " fold_the towel \n"
