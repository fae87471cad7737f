"""Prometheus metrics of a running coordinator, on loopback.

Nothing is counted here: at every question the files are read that the run keeps up to date, so the
numbers outlive whatever was restarted.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hica.errors import ConfigurationError
from hica_server.enrolment import let_in
from hica_server.progress import read_progress, read_table
from hica_server.settings import Folder
from hica_server.superlink.processes import LOOPBACK

GAUGES = {
    "hica_step": ("done", "Steps of the plan that are completed."),
    "hica_steps": ("of", "Steps of the plan."),
    "hica_round": ("round", "Round of the last exchange, from 1."),
}
COUNTERS = {
    "hica_bytes_up": ("bytes_up", "Bytes received from sites."),
    "hica_bytes_down": ("bytes_down", "Bytes sent to sites."),
    "hica_failures": ("failures", "Answers that were missing or refused."),
}
"""Name → field of `progress.json`, meaning. Prometheus adds `_total` to the names of counters."""


class RunCollector(Collector):
    """Reads a coordinator's files whenever Prometheus asks."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        """All metrics as they are now."""
        folder = self._folder
        progress = read_progress(folder)
        for name, (field, meaning) in GAUGES.items():
            yield GaugeMetricFamily(name, meaning, progress.get(field, 0))
        for name, (field, meaning) in COUNTERS.items():
            yield CounterMetricFamily(name, meaning, progress.get(field, 0))
        participants = len(progress.get("participants", []))
        yield GaugeMetricFamily("hica_participants", "Sites in the last exchange.", participants)
        yield GaugeMetricFamily("hica_sites_enrolled", "Sites let in.", len(let_in(folder)))
        online = [site for site in read_table(folder.connected).values() if site["online"]]
        yield GaugeMetricFamily("hica_sites_connected", "Sites connected.", len(online))
        restarts = CounterMetricFamily(
            "hica_service_restarts", "Restarts since the server's start.", labels=["service"]
        )
        for service, process in read_table(folder.processes).items():
            restarts.add_metric([service], process["restarts"])
        yield restarts


@contextmanager
def serving_metrics(folder: Folder, port: int) -> Iterator[None]:
    """Serve metrics on a port of loopback for as long as the context is open; on port 0 none.

    Raises:
        ConfigurationError: Another program has the port.
    """
    if port == 0:
        yield
        return
    registry = CollectorRegistry()
    registry.register(RunCollector(folder))
    try:
        server, thread = start_http_server(port, addr=LOOPBACK, registry=registry)
    except OSError as error:
        raise ConfigurationError(
            f"{folder.settings}: ports.metrics: port {port} cannot be opened: {error.strerror}; "
            "choose another, or 0 for no metrics"
        ) from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
