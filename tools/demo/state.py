"""Which phases of a demo are finished. A run that is started again goes on at the first one that is not."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from serl_launcher.errors import ConfigError
from serl_launcher.files import write_atomic

STATE_FILE = "demo_state.json"
GROWING = "online_seconds"
CHANGEABLE = (GROWING, "overrides")
ONLINE = "online"
FOLLOWING = (ONLINE, "eval_online", "eval_wrong_prompt", "sft_longer", "eval_sft_longer")
"""Phases whose result depends on how long the online phase lasts."""


@dataclass(kw_only=True, slots=True)
class FinishedPhase:
    """Marker of one finished phase."""

    seconds: float
    """Wall time, over all starts of the demo."""
    values: dict[str, str]
    """What later phases need, e.g. the path of a checkpoint."""


@dataclass(kw_only=True, slots=True)
class DemoState:
    """The file `demo_state.json` of a run."""

    path: Path
    settings: dict[str, object]
    phases: dict[str, FinishedPhase] = field(default_factory=dict)
    seconds_so_far: dict[str, float] = field(default_factory=dict)
    """Time spent in phases that were interrupted."""

    @classmethod
    def open(cls, directory: Path, settings: dict[str, object]) -> "DemoState":
        """Returns the state of a run, new or continued.

        A longer online phase may be asked for, with other overrides for what is left of it: the phase is reopened
        where it ended, and what came of it is made anew.

        Raises:
            ConfigError: The directory holds a run with other settings.
        """
        path = directory / STATE_FILE
        if not path.exists():
            return cls(path=path, settings=settings)
        state = cls.read(directory)
        state._extend(settings)
        differing = sorted(name for name in settings if state.settings.get(name) != settings[name])
        if differing:
            was = {name: state.settings.get(name) for name in differing}
            now = {name: settings[name] for name in differing}
            raise ConfigError(
                f"{directory} holds a run with other settings: {was}, now {now}. Choose another --output, or "
                "start with the same settings to continue it."
            )
        return state

    @classmethod
    def read(cls, directory: Path) -> "DemoState":
        """Returns the state of an existing run; raises ConfigError where there is none."""
        path = directory / STATE_FILE
        try:
            content = json.loads(path.read_text())
        except FileNotFoundError as exc:
            raise ConfigError(f"Expected a demo run in {directory}, but {path.name} is missing there.") from exc
        phases = {name: FinishedPhase(**phase) for name, phase in content["phases"].items()}
        return cls(path=path, settings=content["settings"], phases=phases, seconds_so_far=content["seconds_so_far"])

    @classmethod
    def is_beyond(cls, directory: Path, settings: dict[str, object]) -> bool:
        """Whether the run in `directory` was already asked for a longer online phase than `settings` do."""
        return (directory / STATE_FILE).exists() and cls.read(directory)._extra_seconds(settings) < 0

    def _extra_seconds(self, settings: dict[str, object]) -> float:
        """Returns how much longer `settings` want the online phase; 0 also where another setting differs."""
        was, now = self.settings.get(GROWING), settings.get(GROWING)
        is_same = all(self.settings.get(name) == value for name, value in settings.items() if name not in CHANGEABLE)
        return now - was if is_same and isinstance(was, float) and isinstance(now, float) else 0.0

    def _extend(self, settings: dict[str, object]) -> None:
        if self._extra_seconds(settings) <= 0:
            return
        self.settings.update({name: settings[name] for name in CHANGEABLE if name in settings})
        for name in FOLLOWING:
            finished = self.phases.pop(name, None)
            if finished is not None and name == ONLINE:
                self.seconds_so_far[name] = finished.seconds

    def spend(self, phase: str, seconds: float) -> None:
        """Notes time spent in a phase that is not finished."""
        self.seconds_so_far[phase] = self.seconds_so_far.get(phase, 0.0) + seconds
        self._save()

    def finish(self, phase: str, values: dict[str, str]) -> None:
        """Marks a phase as finished."""
        self.phases[phase] = FinishedPhase(seconds=self.seconds_so_far.pop(phase, 0.0), values=values)
        self._save()

    def _save(self) -> None:
        content = {
            "settings": self.settings,
            "phases": {name: asdict(phase) for name, phase in self.phases.items()},
            "seconds_so_far": self.seconds_so_far,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path, json.dumps(content, indent=2).encode())
