"""Metrics of the learner for Prometheus: read at each scrape from what the parts count anyway.

They tell figures, never observations or actions; whoever reaches the address may read them.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from learner.server.inference import InferenceService
from learner.server.inference_metrics import BATCH_BOUNDS
from serl_launcher.errors import ConfigError
from serl_launcher.status import JSON

logger = logging.getLogger(__name__)

_COUNTERS = frozenset(
    {
        "num_answered",
        "num_expired",
        "num_calls",
        "num_failed_calls",
        "num_refused",
        "num_deadline_misses",
        "num_requests",
        "num_failed",
    }
)

Snapshot = Mapping[str, Mapping[str, JSON]]
"""Figures by actor, as the gateway knows them."""


class LearnerCollector(Collector):
    """Turns figures into metrics `hiors_inference_...`, `hiors_websocket_...` and `hiors_actor_...{actor="..."}`."""

    def __init__(
        self,
        inference: InferenceService | None,
        actors: Callable[[], Snapshot] | None = None,
        clients: Callable[[], Mapping[str, int]] | None = None,
    ) -> None:
        """Reads from these at each scrape; each may be absent. `clients` gives figures of the websocket endpoint."""
        self._inference = inference
        self._actors = actors
        self._clients = clients

    def collect(self) -> Iterator[Metric]:
        """Yields every metric with its newest value."""
        if self._inference is not None:
            yield GaugeMetricFamily(
                "hiors_policy_version", "Version of the weights in force.", self._inference.policy_version
            )
            yield from self._of_inference(self._inference)
        if self._actors is not None:
            yield from _of_actors(self._actors())
        if self._clients is not None:
            for name, value in self._clients().items():
                yield _counter_or_gauge("hiors_websocket_", name, value)

    def _of_inference(self, inference: InferenceService) -> Iterator[Metric]:
        for name, value in inference.figures().items():
            yield _counter_or_gauge("hiors_inference_", name, value)
        sizes = dict(inference.metrics.batch_sizes)
        buckets = [(str(bound), sum(n for size, n in sizes.items() if size <= bound)) for bound in BATCH_BOUNDS]
        buckets.append(("+Inf", sum(sizes.values())))
        total = sum(size * n for size, n in sizes.items())
        yield HistogramMetricFamily("hiors_inference_batch_size", "Observations per policy call.", buckets, total)
        misses = CounterMetricFamily(
            "hiors_actor_deadline_misses", "Observations answered too late or not at all.", labels=["actor"]
        )
        for actor, count in dict(inference.metrics.deadline_misses).items():
            misses.add_metric([actor], count)
        yield misses


def _counter_or_gauge(prefix: str, name: str, value: float) -> Metric:
    if name in _COUNTERS:
        return CounterMetricFamily(prefix + name.removeprefix("num_"), name, value)
    return GaugeMetricFamily(prefix + name, name, value)


def _of_actors(snapshot: Snapshot) -> Iterator[Metric]:
    names = sorted({name for figures in snapshot.values() for name, value in figures.items() if _is_number(value)})
    for name in names:
        family = GaugeMetricFamily(f"hiors_actor_{name}", f"{name} as the actor reports it.", labels=["actor"])
        for actor, figures in snapshot.items():
            value = figures.get(name)
            if isinstance(value, int | float):
                family.add_metric([actor], float(value))
        yield family


def _is_number(value: JSON) -> bool:
    return isinstance(value, int | float)


class MetricsServer:
    """An HTTP server of metrics in a thread of its own."""

    def __init__(self, server: WSGIServer, thread: threading.Thread) -> None:
        """Takes over what `start_http_server` began."""
        self._server = server
        self._thread = thread

    @property
    def port(self) -> int:
        """Port it listens on."""
        return self._server.server_port

    def stop(self) -> None:
        """Frees the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


def serve_metrics(
    port: int,
    *,
    inference: InferenceService | None,
    actors: Callable[[], Snapshot] | None = None,
    clients: Callable[[], Mapping[str, int]] | None = None,
    host: str = "127.0.0.1",
) -> MetricsServer:
    """Serves `/metrics`; port 0 takes a free one. Raises ConfigError where the port is in use."""
    registry = CollectorRegistry()
    registry.register(LearnerCollector(inference, actors, clients))
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as exc:
        raise ConfigError(f"The metrics cannot be served on {host}:{port}: {exc}. Choose another port.") from exc
    logger.info("Metrics on http://%s:%d/metrics.", host, server.server_port)
    return MetricsServer(server, thread)
