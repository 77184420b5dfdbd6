import numpy as np
import pytest

from learner.returns import chunk_returns, corrected_rewards, labelled_rewards, returns_to_go
from serl_launcher.types import Outcome


def test_a_whole_chunk_is_discounted_step_by_step():
    returns = chunk_returns(np.array([[1.0, 2.0, 4.0]]), np.zeros((1, 3), bool), np.zeros((1, 3), bool), discount=0.5)
    assert returns.reward.tolist() == [1 + 0.5 * 2 + 0.25 * 4]
    assert returns.discount.tolist() == [0.125]
    assert not returns.is_terminal[0]


def test_termination_stops_bootstrapping():
    is_terminal = np.array([[False, True, False]])
    returns = chunk_returns(np.array([[1.0, 1.0, 1.0]]), is_terminal, np.array([[False, False, True]]), discount=0.5)
    assert returns.reward.tolist() == [1.5]
    assert returns.discount.tolist() == [0.0]
    assert returns.is_terminal[0]


def test_truncation_still_bootstraps_after_the_steps_that_were_made():
    returns = chunk_returns(
        np.array([[1.0, 1.0, 1.0]]), np.zeros((1, 3), bool), np.array([[False, False, True]]), discount=0.5
    )
    assert returns.reward.tolist() == [1.5]
    assert returns.discount.tolist() == [0.25]


def test_a_terminal_flag_on_padding_does_not_count():
    is_pad = np.array([[False, True]])
    returns = chunk_returns(np.array([[1.0, 9.0]]), np.array([[False, True]]), is_pad, discount=0.9)
    assert returns.discount == pytest.approx([0.9])
    assert returns.reward.tolist() == [1.0]


def test_returns_to_go_end_with_their_episode():
    found = returns_to_go(np.array([1.0, 2.0, 4.0, 8.0]), np.array([0, 0, 1, 1]), discount=0.5)
    assert found.tolist() == [2.0, 2.0, 8.0, 8.0]


def test_rewards_follow_from_labels():
    outcome = np.array([Outcome.SUCCESS, Outcome.FAILURE, Outcome.UNLABELLED], "<U16")
    reward, is_terminal = labelled_rewards(outcome, np.array([1, 3, 5]), 6)
    assert reward.tolist() == [0, 1, 0, 0, 0, 0]
    assert is_terminal.tolist() == [False, True, False, True, False, False]


def test_a_correction_keeps_rewards_that_say_more_and_leaves_its_arguments_alone():
    reward = np.array([1.0, 2.5, -0.5, 0.7], np.float32)
    is_terminal = np.array([True, False, False, True])
    outcome = np.array([Outcome.SUCCESS, Outcome.FAILURE, Outcome.UNLABELLED])
    corrected, ends = corrected_rewards(reward, is_terminal, outcome=outcome, last_step=np.array([1, 2, 3]))
    assert corrected.tolist() == pytest.approx([1.0, 2.5, -0.5, 0.0])
    assert ends.tolist() == [True, True, True, False]
    assert reward.tolist() == pytest.approx([1.0, 2.5, -0.5, 0.7])
    assert is_terminal.tolist() == [True, False, False, True]
