"""Puts the console together and tells the person where it is."""

import logging
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from actor.console.desk import Desk
from actor.console.messages import JogAxis, Welcome
from actor.console.person import ConsolePerson, jogging
from actor.console.pictures import Pictures
from actor.console.server import ConsoleServer, Page, Shown
from actor.console.shown_env import ShownEnv
from actor.recovery import Recovery
from actor.rewards.bus import RewardBus
from robot_infra.interfaces import Operator
from robot_infra.safety import FaultKind, Gate
from serl_launcher.config.root import RunConfig
from serl_launcher.run_directory import RunDirectory
from serl_launcher.specs import RobotSpec

logger = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(kw_only=True, slots=True)
class Console:
    """The console of one actor: `operator` puts its person in control, `serve` opens the page."""

    config: RunConfig
    desk: Desk
    recovery: Recovery
    _server: ConsoleServer | None = None

    @classmethod
    def of(cls, config: RunConfig, bus: RewardBus) -> "Console":
        """Returns a console whose page is not open yet."""
        desk = Desk(bus, deadman_s=config.actor.console.deadman_s, always_drive=config.actor.mode == "collect")
        return cls(config=config, desk=desk, recovery=Recovery(person=desk))

    def operator(self, spec: RobotSpec, beside: Operator | None) -> Operator:
        """Returns the person at the console, in front of whoever stands beside the robot."""
        hand = jogging(self.desk, spec, jog_speed=self.config.actor.console.jog_speed)
        return ConsolePerson(desk=self.desk, hand=hand, spec=spec, beside=beside)

    def serve(self, gate: Gate, env: ShownEnv, state: Shown) -> None:
        """Opens the page of a robot and its gate; raises ConfigError where its port is taken."""
        config, spec = self.config.actor.console, env.spec

        def stop(reason: str) -> None:
            gate.trip(FaultKind.EMERGENCY_STOP, reason)

        self.desk.on_stop(stop)
        welcome = Welcome(
            viewer=0, robot=spec.name, actor_id=self.config.actor.id, run=self.config.unique_identifier,
            hz=spec.control_hz, cameras=spec.camera_names, is_collecting=self.config.actor.mode == "collect",
            axes=tuple(
                JogAxis(*entry) for entry in zip(spec.action_names, spec.action_low, spec.action_high, strict=True)
            ),
        )  # fmt: skip
        token = token_in(RunDirectory.of(self.config).root / f"console-{self.config.actor.id}.token")
        page = Page(welcome=welcome, state=state, pictures=Pictures(env, quality=config.jpeg_quality))
        self._server = ConsoleServer(config, page, self.desk, token=token)
        self._server.start()
        host = "localhost" if config.bind in LOOPBACK else config.bind
        logger.info("Operator console: http://%s:%d/?token=%s", host, self._server.port, token)
        if config.bind not in LOOPBACK:
            logger.warning(
                "The console listens at %s and is not encrypted: whoever reads along can drive this robot. Safer: "
                "actor.console.bind=127.0.0.1 and `ssh -L %d:localhost:%d` from the operator's machine.",
                config.bind, self._server.port, self._server.port,
            )  # fmt: skip

    @property
    def port(self) -> int:
        """Where the page is; 0 before it is open."""
        return 0 if self._server is None else self._server.port

    def close(self) -> None:
        """Closes the page; may be called twice."""
        if self._server is not None:
            self._server.close()


def token_in(path: Path) -> str:
    """Returns the token in that file, which only its owner can read; makes one where there is none.

    It stays across restarts of the actor, so that an open page finds it again.
    """
    if path.exists() and len(token := path.read_text().strip()) >= 16:
        return token
    path.parent.mkdir(parents=True, exist_ok=True)
    token = secrets.token_urlsafe(16)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(token + "\n")
    return token
