"""Opens what the person beside the robot uses: keys, the device in the hand, the judges."""

import contextlib
import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from actor.rewards import JudgedEnv, RewardBus
from actor.rewards.classifier import ClassifierWatcher
from actor.rewards.goal import GoalRewards
from actor.rewards.judged_env import Rewarder, Watcher
from actor.rewards.keys import VerdictKeys
from actor.rewards.stages import Seen, StageRewards
from robot_infra.devices.gamepad import Gamepad
from robot_infra.devices.keyboard import Keyboard
from robot_infra.devices.leader_arm import LeaderArm
from robot_infra.devices.options import LeaderConfig
from robot_infra.devices.spacemouse import SpaceMouse
from robot_infra.devices.teleoperation import Follower, Mover, Teleoperator
from robot_infra.interfaces import Operator, RobotEnv
from robot_infra.robots.dobot.options import read_options
from robot_infra.robots.lerobot_robot import LeRobotLeader
from serl_launcher.config.root import RunConfig
from serl_launcher.errors import ConfigError
from serl_launcher.specs import RobotSpec

logger = logging.getLogger(__name__)


class LeaderPair:
    """Two leader arms as one device."""

    def __init__(self, arms: list[LeaderArm]) -> None:
        self._arms = arms

    def positions(self) -> np.ndarray:
        """Returns both arms' positions, float64 [14]."""
        return np.concatenate([arm.positions() for arm in self._arms])


@dataclass(slots=True)
class Beside:
    """Everything beside the robot; `close` frees it."""

    config: RunConfig
    bus: RewardBus = field(default_factory=RewardBus)
    keyboard: Keyboard | None = None
    _opened: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @classmethod
    def open(cls, config: RunConfig) -> "Beside":
        """Opens the keyboard where one is configured; raises RobotError where it is missing."""
        beside = cls(config)
        if config.actor.devices.keyboard:
            beside.keyboard = Keyboard(config.actor.devices.keyboard)
            beside._opened.callback(beside.keyboard.close)
            beside.keyboard.listen(VerdictKeys(beside.bus).on_key)
        elif "keyboard" in config.actor.rewards.sources:
            raise ConfigError("actor.rewards.sources names 'keyboard', but actor.devices.keyboard is empty.")
        if "console" in config.actor.rewards.sources and not config.actor.console.enabled:
            raise ConfigError("actor.rewards.sources names 'console', but actor.console.enabled is false.")
        return beside

    def judged(self, env: RobotEnv) -> RobotEnv:
        """Returns the robot with the configured judges, and a person with keys or a console, who may always judge."""
        rewards = self.config.actor.rewards
        if rewards.sources == ["environment"] and self.keyboard is None and not self.config.actor.console.enabled:
            return env
        return JudgedEnv(
            env, self.bus, environment_judges="environment" in rewards.sources, watchers=self._watchers(),
            rewarder=self._rewarder(env.spec),
        )  # fmt: skip

    def operator(self, spec: RobotSpec, *, always_drive: bool) -> Operator | None:
        """Returns the person with the device in the hand; None where there is no device."""
        devices = self.config.actor.devices
        if not devices.hand:
            return None
        person = Teleoperator(
            self._hand(spec), spec, always_drive=always_drive, takes_over_by_touch=devices.takes_over_by_touch
        )
        if self.keyboard is not None:
            self.keyboard.listen(person.on_key)
        elif not (devices.takes_over_by_touch or always_drive):
            raise ConfigError(
                f"Nobody could take over with the {devices.hand}: set actor.devices.keyboard=/dev/tty or "
                "actor.devices.takes_over_by_touch=true."
            )
        return person

    def close(self) -> None:
        """Gives all devices back."""
        self._opened.close()

    def _hand(self, spec: RobotSpec) -> Follower | Mover:
        devices = self.config.actor.devices
        if devices.hand == "leader" and self.config.environment.name == "lerobot":
            leader = LeRobotLeader(self.config.environment, spec)
            self._opened.callback(leader.close)
            return Follower(leader, spec)
        if devices.hand == "leader":
            return Follower(self._leaders(), spec)
        if devices.hand == "keyboard":
            if self.keyboard is None:
                raise ConfigError("actor.devices.hand=keyboard needs actor.devices.keyboard=/dev/tty.")
            return Mover(self.keyboard, spec, devices.axes)
        device = Gamepad(devices.path) if devices.hand == "gamepad" else SpaceMouse(devices.path)
        self._opened.callback(device.close)
        return Mover(device, spec, devices.axes)

    def _leaders(self) -> LeaderPair:
        leaders: dict[str, LeaderConfig] = read_options(self.config.environment.options).leaders
        if set(leaders) != {"left", "right"}:
            raise ConfigError(
                f"environment.options.leaders must describe 'left' and 'right', it has {sorted(leaders)}."
            )
        arms = []
        for side in ("left", "right"):
            arms.append(LeaderArm(side, leaders[side]))
            self._opened.callback(arms[-1].close)
        return LeaderPair(arms)

    def _watchers(self) -> list[Watcher]:
        rewards = self.config.actor.rewards
        if "classifier" not in rewards.sources:
            return []
        if rewards.classifier_path is None:
            raise ConfigError(
                "actor.rewards.sources names 'classifier', but actor.rewards.classifier_path is empty. Train one with "
                "`python -m learner algo=reward_classifier`."
            )
        probability, threshold = self._seen(rewards.classifier_path)
        return [
            ClassifierWatcher(
                probability, self.bus, threshold=threshold, num_positive=rewards.num_positive, window=rewards.window
            )
        ]

    def _rewarder(self, spec: RobotSpec) -> Rewarder | None:
        rewards = self.config.actor.rewards
        if "naive" in rewards.sources:
            return GoalRewards(rewards.goal, spec, scale=rewards.goal_scale, radius=rewards.goal_radius)
        if "process" not in rewards.sources:
            return None
        if not rewards.stage_paths:
            raise ConfigError(
                "actor.rewards.sources names 'process', but actor.rewards.stage_paths is empty. Train a classifier per "
                "stage with `python -m learner algo=reward_classifier`."
            )
        stages = [self._seen(path) for path in rewards.stage_paths]
        return StageRewards(stages, self.bus, num_positive=rewards.num_positive, window=rewards.window)

    def _seen(self, path: str) -> Seen:
        """Returns what a reward classifier sees, and from which probability on it counts."""
        from serl_launcher.policies.reward_classifier import load_reward_classifier  # Imports torch.

        classifier = load_reward_classifier(Path(path))
        stated = self.config.actor.rewards.threshold
        return classifier.probability, classifier.spec.threshold if stated is None else stated
