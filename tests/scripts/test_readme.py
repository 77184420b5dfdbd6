import re
import subprocess
from pathlib import Path

import pytest

from serl_launcher.config import load

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def commands() -> list[str]:
    """Returns the commands of the README's bash blocks, without comments, continuation lines joined."""
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)).replace("\\\n", " ")
    return [line.split("#")[0].strip() for line in blocks.splitlines() if line.split("#")[0].strip()]


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("make ")])
def test_every_make_target_exists(command: str) -> None:
    result = subprocess.run(["make", "-n", *command.split()[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("bash ")])
def test_every_script_exists_and_its_overrides_compose(command: str) -> None:
    _, script, *arguments = command.split()
    assert (ROOT / script).is_file()
    load([argument for argument in arguments if argument != "--help"])


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([^)]+)\)", README))
def test_every_link_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


@pytest.mark.parametrize("script", re.findall(r"`(run_\w+\.sh)`", README))
def test_every_script_in_the_table_exists(script: str) -> None:
    assert (ROOT / "experiments" / "sim_pnp" / script).is_file()


def test_the_two_commands_are_there() -> None:
    assert "make demo" in README
    assert "make test" in README


def test_ci_runs_the_same_test_command() -> None:
    assert re.search(r"^make test\b", (ROOT / ".ci" / "run").read_text(), flags=re.MULTILINE)
