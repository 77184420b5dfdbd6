import gc
import sys

import pytest

from actor.steadiness import SWITCH_INTERVAL_S, steady


def test_inside_the_interpreter_changes_threads_soon_and_what_was_made_before_is_not_collected_again():
    before = sys.getswitchinterval()
    kept = [[number] for number in range(1000)]
    with steady():
        assert sys.getswitchinterval() == pytest.approx(SWITCH_INTERVAL_S)
        assert gc.get_freeze_count() > len(kept)
        assert gc.isenabled()
    assert sys.getswitchinterval() == pytest.approx(before)
    assert gc.get_freeze_count() == 0


def test_what_was_before_comes_back_after_an_error():
    before = sys.getswitchinterval()
    with pytest.raises(ValueError, match="robot"), steady():
        raise ValueError("robot")
    assert sys.getswitchinterval() == pytest.approx(before)
