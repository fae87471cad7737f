"""A supervisor: starts services as child processes, restarts what dies, leaves nothing behind.

However the supervisor ends, its services end: by `stop`, or by the kernel (PR_SET_PDEATHSIG) if
it is killed. The kernel ties that to the *thread* that started a service; a supervisor is
therefore started and ticked from the main thread only.
"""

import contextlib
import ctypes
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Self

from hica.deployment.service_output import ServiceOutput
from hica.errors import ConfigurationError, FederationError, StorageError
from hica.storage import write_atomically

if sys.platform != "linux":
    raise ConfigurationError("coordinator and hospitals run on Linux; use a Linux machine or WSL 2")

logger = logging.getLogger("hica.deployment.supervision")

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
"""Seconds before a restart: doubled after each quick death, from the first to the longest."""
HEALTHY = 60.0
"""A service that lived for as many seconds was well; its next death counts as a first one."""
GRACE = 10.0
"""Seconds a service has to end by itself after SIGTERM."""
KEPT_LINES = 20

_PR_SET_PDEATHSIG = 1
# Loaded here: between fork and exec nothing may be imported or looked up.
_prctl = ctypes.CDLL(None).prctl
_prctl.argtypes = [ctypes.c_int, ctypes.c_ulong]


@dataclass(frozen=True)
class Service:
    """A program that is to run for as long as the supervisor does.

    Attributes:
        name: What it is called in `processes.json` and in messages.
        command: Program and arguments.
        env: Set in addition to the supervisor's own environment.
        log: Where its output is kept; rotated.
        port: Port it listens on, for `processes.json`.
        fatal_after: After as many quick deaths in a row the supervisor gives up; None: never.
        before_restart: Called with the service and its exit code (negative: the signal) as soon
            as it is found dead, all its output read. It may raise a `HicaError` to give up.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    log: Path
    port: int | None = None
    fatal_after: int | None = None
    before_restart: Callable[["Service", int], None] | None = None


@dataclass
class _Child:
    """A service and the process that runs it at present, if one does.

    The process leads a session of its own. `lines` are the last printed over all restarts; `born`
    and `due`, when a dead service is started again, are on the supervisor's clock.
    """

    service: Service
    process: subprocess.Popen[bytes] | None = None
    output: ServiceOutput | None = None
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))
    started: str | None = None
    born: float = 0.0
    due: float = 0.0
    restarts: int = 0
    quick_deaths: int = 0

    @property
    def pid(self) -> int | None:
        """Id of the running process; None while there is none."""
        return self.process.pid if self.process is not None else None


class Supervisor:
    """Runs services from `with` to the end of its block.

    Example:
        with until_stopped() as stop, Supervisor(services, folder / "processes.json") as running:
            while not stop.wait(0.5):
                running.tick()
    """

    def __init__(
        self,
        services: Sequence[Service],
        processes: Path,
        on_line: Callable[[str, str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        grace: float = GRACE,
    ) -> None:
        """Prepare; nothing is started yet.

        Args:
            services: In the order in which they are started; stopped in reverse.
            processes: Kept up to date: `{name: {"pid", "started", "restarts", "port"}}`.
            on_line: Called with a service's name and a line of its output, in a thread of that
                service. Must be quick.
            clock: Seconds, for pauses and ages.
            grace: Seconds a service has to end by itself.
        """
        self._children = {service.name: _Child(service) for service in services}
        self._processes = processes
        self._on_line = on_line
        self._clock = clock
        self._grace = grace

    def __enter__(self) -> Self:
        """Start all services.

        Raises:
            FederationError: A program cannot be started; those before it are stopped again.
        """
        try:
            for child in self._children.values():
                self._start(child)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop all services."""
        self.stop()

    def tick(self) -> None:
        """Find the dead and start again what is due; to be called about twice a second.

        Raises:
            FederationError: A service died too often in a row; with its last lines.
            HicaError: What a `before_restart` raises.
        """
        for child in self._children.values():
            if child.process is not None and _has_ended(child.process):
                self._found_dead(child, self._reap(child))
            elif child.process is None and self._clock() >= child.due:
                child.restarts += 1
                self._start(child)

    def stop(self) -> None:
        """End all services, last started first: SIGTERM, and SIGKILL after the grace.

        An interrupt meanwhile kills what is left at once.
        """
        try:
            for child in reversed(self._children.values()):
                if child.process is not None:
                    os.kill(child.process.pid, signal.SIGTERM)
                    _wait_for_end(child.process, self._grace)
                    self._reap(child)
        finally:
            for child in self._children.values():
                if child.process is not None:
                    self._reap(child)

    def pids(self) -> dict[str, int | None]:
        """Process id by service; None while it waits to be started again."""
        return {name: child.pid for name, child in self._children.items()}

    def _start(self, child: _Child) -> None:
        service, parent = child.service, os.getpid()
        try:
            process = subprocess.Popen(
                service.command,
                env=os.environ | dict(service.env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                start_new_session=True,  # no Ctrl-C from the terminal; a group that can be killed
                preexec_fn=lambda: die_with(parent),
            )
        except OSError as error:
            raise FederationError(
                f"{service.name}: {service.command[0]} cannot be started: {error.strerror}; "
                "see that hica is whole in this environment and the machine has memory left"
            ) from error
        child.process, child.born = process, self._clock()
        child.started = datetime.now(UTC).isoformat(timespec="seconds")
        assert process.stdout is not None
        child.output = ServiceOutput(
            process.stdout, service.log, lambda line: self._heard(child, line)
        )
        self._publish()

    def _heard(self, child: _Child, line: str) -> None:
        child.lines.append(line)
        if self._on_line is not None:
            self._on_line(child.service.name, line)

    def _reap(self, child: _Child) -> int:
        """Take a process and whatever it started off the machine; its exit code."""
        process, output = child.process, child.output
        assert process is not None
        if process.returncode is None:  # until it is waited for, its number is not given away
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        if output is not None:
            output.close()
        child.process, child.output, child.started = None, None, None
        self._publish()
        return code

    def _found_dead(self, child: _Child, code: int) -> None:
        """Tell, and settle when it is started again."""
        service, now = child.service, self._clock()
        child.quick_deaths = child.quick_deaths + 1 if now - child.born < HEALTHY else 0
        if service.before_restart is not None:
            service.before_restart(service, code)
        if service.fatal_after is not None and child.quick_deaths >= service.fatal_after:
            lines = "\n".join(child.lines)
            raise FederationError(
                f"{service.name}: ended {child.quick_deaths} times within {HEALTHY:g} s of its "
                f"start, last with {describe_exit(code)}. Mend what its last lines say and run the "
                f"same command again; the whole log is {service.log}:\n{lines}"
            )
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** max(0, child.quick_deaths - 1))
        child.due = now + pause
        logger.warning(
            "%s ended (%s); started again in %g s", service.name, describe_exit(code), pause
        )

    def _publish(self) -> None:
        """Bring `processes.json` up to date."""
        table = {
            name: {
                "pid": child.pid,
                "started": child.started,
                "restarts": child.restarts,
                "port": child.service.port,
            }
            for name, child in self._children.items()
        }
        try:
            write_atomically(self._processes, json.dumps(table, indent=2).encode())
        except StorageError as error:  # `status` tells less; the services go on
            logger.warning("%s", error)


class Stop:
    """Whether SIGTERM or SIGINT has arrived; `signal` is which, once one has."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        # Not a threading.Event: its lock may be held by the very code a signal interrupts.
        self._arrived = os.eventfd(0)

    def wait(self, seconds: float) -> bool:
        """Wait until a signal arrives, at most `seconds`; whether one has."""
        return bool(select.select([self._arrived], [], [], seconds)[0])

    def _note(self, number: int, _frame: FrameType | None) -> None:
        """The handler. A second Ctrl-C interrupts, for those who cannot wait."""
        self.signal = signal.Signals(number)
        os.eventfd_write(self._arrived, 1)
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def until_stopped() -> Iterator[Stop]:
    """Turn SIGTERM and SIGINT into an end that the main loop chooses the moment of."""
    stop = Stop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, stop._note) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(stop._arrived)


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port of `host` on which nothing listens at this moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def describe_exit(code: int) -> str:
    """An exit code in words: `exit code 1`, `signal SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-code).name}"
    return f"signal {-code}"


def die_with(parent: int) -> None:
    """Have this process killed when its parent ends, however that comes about.

    For a new process before it becomes its program; also for what a service itself starts. The
    parent's process id was read before there was a chance of its ending.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before that call
        os._exit(1)


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process is dead; it is left to be waited for."""
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, process.pid, options) is not None


def _wait_for_end(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait until a process is dead, at most `seconds`."""
    deadline = time.monotonic() + seconds
    while not _has_ended(process) and time.monotonic() < deadline:
        time.sleep(0.02)
