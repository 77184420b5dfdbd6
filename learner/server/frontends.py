"""What the learner server offers besides the gateway: openpi's websocket protocol, metrics for Prometheus."""

from collections.abc import Callable
from pathlib import Path

from learner.serve.endpoint import Endpoint, EndpointConfig, EndpointThread
from learner.serve.robots import ServedRobot, served_robot
from learner.server.inference import InferenceService
from learner.server.prometheus import MetricsServer, Snapshot, serve_metrics
from serl_launcher.config.training import ServerConfig
from serl_launcher.errors import ConfigError, PolicyError


class Frontends:
    """Opens the ports that the configuration asks for; none by default."""

    def __init__(
        self, config: ServerConfig, inference: InferenceService | None, actors: Callable[[], Snapshot]
    ) -> None:
        """Prepares; `inference` is None where nothing acts, `actors` gives figures by actor."""
        self._config = config
        self._inference = inference
        self._actors = actors
        self._metrics: MetricsServer | None = None
        self._endpoint: Endpoint | None = None
        self._thread: EndpointThread | None = None

    def start(self) -> None:
        """Opens the ports.

        Raises:
            ConfigError: One is in use, or others could reach it without a key.
        """
        config = self._config
        if config.openpi_port and self._inference is not None:
            self._endpoint = _endpoint(config, self._inference)
        if config.prometheus_port:
            self._metrics = serve_metrics(
                config.prometheus_port, inference=self._inference, actors=self._actors, host=config.prometheus_host,
                clients=None if self._endpoint is None else self._endpoint.figures,
            )  # fmt: skip
        if self._endpoint is not None:
            self._thread = EndpointThread(self._endpoint)
            try:
                self._thread.start()
            except OSError as exc:
                raise ConfigError(f"server.openpi_port={config.openpi_port} cannot be opened: {exc}.") from exc

    def stop(self) -> None:
        """Closes them."""
        if self._thread is not None:
            self._thread.stop()
        if self._metrics is not None:
            self._metrics.stop()


def _endpoint(config: ServerConfig, inference: InferenceService) -> Endpoint:
    key = None
    if config.openpi_key_file is not None:
        key = (Path(config.openpi_key_file).read_text(encoding="utf-8").splitlines() or [""])[0].strip()
        if not key:
            raise ConfigError(f"Expected an API key in the first line of {config.openpi_key_file}, found none.")
    address = EndpointConfig(host=config.openpi_host, port=config.openpi_port, api_key=key)

    def robot() -> ServedRobot:
        if inference.spec is None:
            raise PolicyError("No policy is published yet. The trainer publishes one when it starts.")
        return served_robot(inference.spec, config.openpi_robot)

    return Endpoint(address, inference, robot)
