from pathlib import Path

import pytest

from serl_launcher.errors import ConfigError
from tools.compare_evaluations import compare, describe, mcnemar_p_value


def write(directory: Path, successes: list[bool], *, first_seed: int = 7, takeovers: list[int] | None = None) -> Path:
    directory.mkdir()
    rows = [f"{i},{first_seed + i},do it,do it,{success},5,1" for i, success in enumerate(successes)]
    rows.append(f"0,{first_seed},do it,do it,True,5,2")
    head = "episode,seed,prompt,told_prompt,success,num_steps,attempt"
    if takeovers is not None:
        head += ",num_takeovers"
        rows = [f"{row},{count}" for row, count in zip(rows, [*takeovers, 9], strict=True)]
    (directory / "episodes.csv").write_text("\n".join([head, *rows]) + "\n")
    return directory


def test_the_p_value_is_that_of_fair_coins():
    """10 discordant pairs, 1 against: 2 * (1 + 10) / 1024."""
    assert mcnemar_p_value(9, 1) == pytest.approx(22 / 1024)
    assert mcnemar_p_value(1, 9) == mcnemar_p_value(9, 1)
    assert mcnemar_p_value(3, 3) == 1.0
    assert mcnemar_p_value(0, 0) == 1.0


def test_pairs_are_formed_by_start_state_at_the_first_attempt(tmp_path: Path):
    before = write(tmp_path / "before", [False, False, True, True])
    after = write(tmp_path / "after", [True, True, True, False])
    found = compare(before, after)
    assert (found.num_pairs, found.num_gained, found.num_lost) == (4, 2, 1)
    assert (found.success_before, found.success_after) == (0.5, 0.75)
    assert "p = 1" in describe(found)


def test_takeovers_are_compared_by_start_state(tmp_path: Path):
    before = write(tmp_path / "before", [False] * 5, takeovers=[1, 2, 1, 3, 0])
    after = write(tmp_path / "after", [True] * 5, takeovers=[0, 1, 0, 0, 1])
    found = compare(before, after)
    assert (found.takeovers_before, found.takeovers_after) == pytest.approx((7 / 5, 2 / 5))
    assert (found.num_less_help, found.num_more_help) == (4, 1)
    # Five fair coins, one against: 2 * (1 + 5) / 32.
    assert found.takeovers_p_value == pytest.approx(12 / 32)
    assert "Takeovers per episode: 1.40 before, 0.40 after" in describe(found)


def test_a_table_without_takeovers_is_one_without_help(tmp_path: Path):
    found = compare(write(tmp_path / "a", [True]), write(tmp_path / "b", [True], takeovers=[0]))
    assert (found.takeovers_before, found.takeovers_after, found.takeovers_p_value) == (0.0, 0.0, 1.0)
    assert "Takeovers" not in describe(found)


def test_what_nobody_judged_or_a_fault_cut_off_is_in_no_pair(tmp_path: Path):
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
    head = "episode,seed,prompt,told_prompt,outcome,num_steps,attempt,success"
    (tmp_path / "before" / "episodes.csv").write_text(
        f"{head}\n0,7,a,a,aborted,2,1,False\n0,7,a,a,success,5,1,True\n1,8,a,a,unlabelled,5,1,False\n"
    )
    (tmp_path / "after" / "episodes.csv").write_text(f"{head}\n0,7,a,a,success,5,1,True\n1,8,a,a,success,5,1,True\n")
    found = compare(tmp_path / "before", tmp_path / "after")
    assert (found.num_pairs, found.success_before, found.success_after) == (1, 1.0, 1.0)


def test_evaluations_of_other_start_states_are_not_compared(tmp_path: Path):
    with pytest.raises(ConfigError, match="share no start state"):
        compare(write(tmp_path / "a", [True]), write(tmp_path / "b", [True], first_seed=100))


def test_a_missing_table_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"episodes\.csv"):
        compare(tmp_path, tmp_path)
