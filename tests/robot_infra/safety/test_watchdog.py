from robot_infra.safety import is_silent


def test_silence_is_a_tick_and_the_patience():
    assert not is_silent(last_command_s=10.0, now_s=10.15, period_s=0.1)
    assert is_silent(last_command_s=10.0, now_s=10.21, period_s=0.1)
    assert is_silent(last_command_s=10.0, now_s=10.13, period_s=0.1, patience_s=0.02)
