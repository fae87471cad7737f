"""run_on_ray: the same ServerApp and ClientApp on Flower's Ray simulation.

For several GPUs or machines; on one machine `grid.run_in_process` starts 13 s sooner. Sites run in
Ray's worker processes, so the ClientApp must be picklable (made by an importable module).

    run_on_ray(server_app, client_app, [{"site": "a"}, {"site": "b"}], num_gpus=0.5)
"""

import importlib
import importlib.util
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore import telemetry

from hica.errors import ConfigurationError, FederationError, HicaError

REGISTRATION_SECONDS = 60.0


def run_on_ray(
    server_app: ServerApp,
    client_app: ClientApp,
    node_configs: Sequence[Mapping[str, Any]],
    run_config: Mapping[str, Any] | None = None,
    *,
    num_cpus: float = 1.0,
    num_gpus: float = 0.0,
) -> None:
    """Run a ServerApp over sites in Ray's worker processes to its end.

    Flower's `run_simulation` passes neither a run configuration nor site configurations on: both
    apps are wrapped so that they find them in their Context, as they do elsewhere. Flower calls it
    deprecated in favour of `flwr run`, which needs a bundle and leaves daemons behind.

    Args:
        server_app: The coordinator's app; runs in this process.
        client_app: The sites' app; pickled for every message, so it should hold no tensors.
        node_configs: `context.node_config` of each site; Flower adds `partition-id`, the site's
            place in this list, and `num-partitions`.
        run_config: `context.run_config` of the coordinator and of every site.
        num_cpus: CPU cores a site takes; decides how many run at once.
        num_gpus: GPUs a site takes; 0.5 lets two sites share one.

    Raises:
        ConfigurationError: Ray is not installed, or no machine of the cluster can hold a site.
        FederationError: The ServerApp or the simulation failed; a HicaError passes unchanged.
    """
    if importlib.util.find_spec("ray") is None:  # Flower would end the whole process
        raise ConfigurationError(
            "the Ray engine needs Ray, which is not installed: pip install 'hica[ray]', "
            "or use the in-process engine"
        )
    _stay_quiet()
    _start_ray(num_cpus, num_gpus)
    from flwr.simulation import run_simulation

    settings = dict(run_config or {})
    coordinator = _Coordinator(server_app, settings, node_count=len(node_configs))
    failure: BaseException | None = None
    try:
        run_simulation(
            server_app=coordinator.app,
            client_app=_ConfiguredClientApp(client_app, node_configs, settings),
            num_supernodes=len(node_configs),
            backend_config={"client_resources": {"num_cpus": num_cpus, "num_gpus": num_gpus}},
        )
    except Exception as error:
        failure = error
    failure = coordinator.failure or failure
    if isinstance(failure, HicaError):
        raise failure
    if failure is not None or not coordinator.finished:
        raise FederationError(
            f"the simulation on Ray stopped before the ServerApp was done: {failure!r}; "
            "the log above names the cause, and the same run without Ray is easier to trace"
        ) from failure


class _Coordinator:
    """The ServerApp with its run configuration, and how it ended.

    Flower starts it in a thread before the sites are there, and loses what it raises unless that
    is an `Exception` (a SystemExit, for example).
    """

    def __init__(self, server_app: ServerApp, run_config: dict[str, Any], node_count: int) -> None:
        self.finished = False
        self.failure: BaseException | None = None
        self.app = ServerApp()

        @self.app.main()
        def main(grid: Grid, context: Context) -> None:
            context.run_config = dict(run_config)
            try:
                _wait_for_sites(grid, node_count)
                server_app(grid=grid, context=context)
                self.finished = True
            except BaseException as error:
                self.failure = error
                raise


def _wait_for_sites(grid: Grid, count: int) -> None:
    """Wait until Flower has registered the sites, which takes it a moment."""
    give_up = time.monotonic() + REGISTRATION_SECONDS
    while len(list(grid.get_node_ids())) < count:
        if time.monotonic() > give_up:
            raise FederationError(f"Flower did not register {count} sites; see the log above")
        time.sleep(0.05)


class _ConfiguredClientApp(ClientApp):
    """A ClientApp whose Context holds the site's and the run's configuration."""

    def __init__(
        self, client_app: ClientApp, nodes: Sequence[Mapping[str, Any]], run_config: dict[str, Any]
    ) -> None:
        super().__init__()
        self._client_app = client_app
        self._node_configs = [dict(config) for config in nodes]
        self._run_config = run_config

    def __call__(self, message: Message, context: Context) -> Message:
        # A new Context around the same state: Flower refuses one whose run_config has changed.
        partition = int(context.node_config["partition-id"])
        configured = Context(
            run_id=context.run_id,
            node_id=context.node_id,
            node_config={**self._node_configs[partition], **context.node_config},
            state=context.state,
            run_config=dict(self._run_config),
        )
        return self._client_app(message, configured)


def _stay_quiet() -> None:
    """No telemetry, of Flower or of Ray, from this process or the workers."""
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    telemetry.FLWR_TELEMETRY_ENABLED = "0"  # was read from the environment when first imported


def _start_ray(num_cpus: float, num_gpus: float) -> None:
    """Start Ray, or join the cluster of `RAY_ADDRESS`, and see that a site fits on one machine.

    Flower would find out only after the ServerApp has started, and leave it waiting for replies.
    """
    ray: Any = importlib.import_module("ray")
    if not ray.is_initialized():
        ray.init(
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(path for path in sys.path)}},
        )
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    asked = {"CPU": num_cpus, "GPU": num_gpus}
    fits = [all(has.get(kind, 0) >= n for kind, n in asked.items()) for has in machines]
    if num_cpus <= 0 or not any(fits):
        offered = [{kind: has.get(kind, 0) for kind in asked} for has in machines]
        ray.shutdown()
        raise ConfigurationError(
            f"no machine can hold a site with num_cpus = {num_cpus} and num_gpus = {num_gpus}; "
            f"Ray's machines offer {offered}; ask for less (but for more than 0 CPUs)"
        )
