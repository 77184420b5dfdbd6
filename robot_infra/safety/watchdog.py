"""Says when whoever commands the robot has fallen silent."""

from robot_infra.safety.limits import WATCHDOG_S


def is_silent(*, last_command_s: float, now_s: float, period_s: float, patience_s: float = WATCHDOG_S) -> bool:
    """Whether the next command is overdue by more than the patience: the robot must hold.

    Args:
        last_command_s: When the last command came, monotonic.
        now_s: Now, monotonic.
        period_s: Time between two commands while all is well.
        patience_s: How late a command may be.
    """
    return now_s - last_command_s > period_s + patience_s
