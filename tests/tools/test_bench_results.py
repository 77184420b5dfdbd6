import json
from pathlib import Path

from tools.bench_results import Result, ratio, table_of, write_results


def test_a_figure_is_met_when_it_keeps_its_bounds() -> None:
    assert Result("a", 2.0, "s").is_met is None
    assert Result("a", 2.0, "s", at_most=2.0).is_met
    assert not Result("a", 2.1, "s", at_most=2.0).is_met
    assert not Result("a", 0.9, "x", at_least=1.0).is_met


def test_a_missed_figure_stands_out() -> None:
    table = table_of([Result("fast", 1.0, "s", at_most=2.0), Result("slow", 3.0, "s", at_most=2.0)])
    assert "| fast | 1 s | <= 2 | yes |" in table
    assert "| slow | 3 s | <= 2 | **no** |" in table


def test_a_ratio_says_how_many_times_as_much(tmp_path: Path) -> None:
    times = ratio("both", Result("ours", 600.0, "1/s"), Result("theirs", 100.0, "1/s"), at_least=5.0)
    assert (times.value, times.is_met) == (6.0, True)
    write_results(tmp_path / "new" / "figures.json", [times], num_cpus=2)
    found = json.loads((tmp_path / "new" / "figures.json").read_text())
    assert found["num_cpus"] == 2
    assert found["results"][0]["is_met"]
