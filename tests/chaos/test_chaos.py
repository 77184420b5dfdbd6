"""A short campaign of kills, stalls and full disks; `make chaos` runs the long one."""

import os
from pathlib import Path

import pytest

from tests.chaos.__main__ import summary
from tests.chaos.campaign import Campaign

KINDS = (
    "SIGKILL actor", "SIGKILL server", "SIGSTOP actor", "connections half-open", "full disk of an actor",
    "full disk of the learner", "clock of an actor jumps",
)  # fmt: skip


BUDGET_S = 60.0
"""On a machine with nothing else to do; longer in the measure in which others have it."""


@pytest.mark.timeout(600)
def test_nothing_is_lost_doubled_reordered_or_changed(tmp_path: Path) -> None:
    campaign = Campaign(
        directory=tmp_path, num_steps=400, num_faults=len(KINDS), num_actors=2, recovery_s=1.0, kinds=KINDS, seed=5
    )
    result = campaign.run()
    assert result.verdict.is_clean, summary(result, seed=5)
    assert result.verdict.num_steps >= 400
    assert set(result.faults) == set(KINDS)
    assert result.wall_s < BUDGET_S * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
