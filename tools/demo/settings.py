"""What the demo does: how many episodes, how long, where to."""

import argparse
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from serl_launcher.config import load
from serl_launcher.errors import ConfigError

DEFAULT_OUTPUT = Path("outputs/demo")
BASE_CHECKPOINT = Path(__file__).resolve().parents[2] / "robot_infra" / "assets" / "sim_pnp_base"


@dataclass(kw_only=True, slots=True)
class DemoConfig:
    """Numbers of one demo run.

    The defaults are meant to end within 15 minutes on two cores: all but `online_seconds` took 3 minutes, and
    installation 1.

    Example:
        DemoConfig(output=Path("outputs/demo"), episodes=40, online_seconds=600.0)
    """

    output: Path = DEFAULT_OUTPUT
    """Everything of the run lies here; an existing run is continued."""
    base: Path = BASE_CHECKPOINT
    """Policy that fine-tuning starts from; it has never seen the task."""
    episodes: int = 40
    """Scripted demonstrations."""
    sft_seconds: float = 60.0
    """Fine-tuning on the demonstrations."""
    online_seconds: float = 600.0
    """Online rejection sampling; with a larger number a finished run goes on where it ended."""
    eval_episodes: int = 100
    """Start states per evaluation."""
    control_episodes: int = 50
    """Start states of the wrong-prompt control."""
    eval_videos: int = 4
    """Filmed episodes per evaluation."""
    seed: int = 0
    """Of training, demonstrations and online start states; evaluation states are always the same."""
    fresh_sft_control: bool = False
    """Whether the SFT policy is also trained further on the demonstrations alone, as long as online, and evaluated."""
    overrides: list[str] = field(default_factory=list)
    """Configuration overrides for every process."""

    def __post_init__(self) -> None:
        if min(self.episodes, self.eval_episodes, self.control_episodes) < 1:
            raise ConfigError("The demo needs at least one demonstration and one evaluation episode.")
        if min(self.sft_seconds, self.online_seconds) <= 0:
            raise ConfigError("--sft-seconds and --online-seconds must be positive.")

    def identity(self) -> dict[str, object]:
        """Returns what must not change when a run is continued; the optional control may be added later."""
        changeable = ("output", "fresh_sft_control")
        settings: dict[str, object] = {name: value for name, value in asdict(self).items() if name not in changeable}
        settings["base"] = str(self.base)
        return settings


QUICK = {
    "episodes": 4,
    "sft_seconds": 5.0,
    "online_seconds": 15.0,
    "eval_episodes": 4,
    "control_episodes": 4,
    "eval_videos": 1,
}


def parse(argv: list[str]) -> DemoConfig:
    """Returns the settings on a command line; an unknown override is a ConfigError, an unknown flag SystemExit."""
    defaults = DemoConfig()
    parser = argparse.ArgumentParser(prog="python -m tools.demo", description=__doc__)
    parser.add_argument("overrides", nargs="*", help="key=value overrides for every process (python -m learner --help)")
    parser.add_argument(
        "--output", type=Path, default=None, help=f"default {DEFAULT_OUTPUT}, with --quick {DEFAULT_OUTPUT}-quick"
    )
    parser.add_argument("--base", type=Path, default=None, help=f"default {BASE_CHECKPOINT.name}")
    parser.add_argument("--quick", action="store_true", help="every phase cut to seconds; learns nothing")
    parser.add_argument(
        "--fresh-sft-control", action="store_true", help="also train on the demonstrations alone, as long"
    )
    for name in (
        "episodes",
        "sft_seconds",
        "online_seconds",
        "eval_episodes",
        "control_episodes",
        "eval_videos",
        "seed",
    ):
        default = getattr(defaults, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=None, help=f"default {default}")
    given = {name: value for name, value in vars(parser.parse_intermixed_args(argv)).items() if value is not None}
    is_quick = given.pop("quick")
    load(given["overrides"])
    chosen = (QUICK | {"output": DEFAULT_OUTPUT.with_name(f"{DEFAULT_OUTPUT.name}-quick")} if is_quick else {}) | given
    config = replace(defaults, **chosen)
    config.output, config.base = config.output.absolute(), config.base.absolute()
    if not config.base.is_dir():
        raise ConfigError(f"Expected a policy to start from in {config.base}; make one with tools.make_sim_base.")
    return config
