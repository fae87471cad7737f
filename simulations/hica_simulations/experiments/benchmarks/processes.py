"""Processes of a deployment on this machine: which there are, and how much memory each takes.

Everything is read from /proc, as the kernel counts it, without asking the processes.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
PROGRAMS = {
    "hica-server": "hica-server",
    "hica_server.superlink": "superlink",
    "flower-superexec": "superexec",
    "flwr-serverapp": "serverapp",
    "hica_server.gateway": "gateway",
    "hica-client": "hica-client",
    "hica_client.supernode": "supernode",
    "hica_client.flower_runner": "runner",
}
"""Command or module, and the kind of process that runs it."""
KINDS = tuple(PROGRAMS.values())
SERVER = KINDS[:5]
"""The kinds that run at the coordinator; the others run at each hospital."""
CHILD = "'s child"
"""Added to the kind of a process for what it has started, where that is not of `KINDS` itself."""
END_SECONDS = 5.0
"""What a child gets to notice that its parent has ended."""


@dataclass(frozen=True)
class Process:
    """A process and its memory at one moment.

    Attributes:
        pid: Process id.
        born: When it was started, in clock ticks since the machine was: numbers are given again.
        kind: One of `KINDS`, where need be with `CHILD`; `other` where nothing is known of it.
        resident: Bytes in memory (RSS), shared libraries included.
        anonymous: Bytes of `resident` that belong to no file: what a leak adds to.
        peak: Largest `resident` so far.
    """

    pid: int
    born: int
    kind: str
    resident: int
    anonymous: int
    peak: int


def own_processes() -> list[Process]:
    """Every process below this one."""
    return processes_below(os.getpid())


def processes_below(root: int) -> list[Process]:
    """Every process that the one of id `root` or one of its children has started, however deep."""
    parents: dict[int, int] = {}
    for folder in PROC.glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            parents[int(folder.name)] = int(_stat(int(folder.name))[1])
    lines = [line for pid in parents if (line := _ancestors(pid, root, parents))]
    return [process for line in lines if (process := _process(line))]


def is_alive(process: Process) -> bool:
    """Whether that very process still runs; one that waits to be looked at has ended."""
    try:
        fields = _stat(process.pid)
    except OSError:
        return False
    return fields[0] not in "ZX" and int(fields[19]) == process.born


def left_behind(seen: Iterable[Process], seconds: float = END_SECONDS) -> list[str]:
    """Which of the processes still run after they have had some seconds to end by themselves."""
    ends = time.monotonic() + seconds
    left = [process for process in seen if is_alive(process)]
    while left and time.monotonic() < ends:
        time.sleep(0.1)
        left = [process for process in left if is_alive(process)]
    return sorted(f"{process.kind} ({process.pid})" for process in left)


def kind_of(command: Sequence[str]) -> str | None:
    """The kind of process that runs a program with arguments; None where it is none of `KINDS`.

    `python -m MODULE …` and `python /path/SCRIPT …` are known by module and script.
    """
    words = (Path(word).name for word in command[:3])
    return next((PROGRAMS[word] for word in words if word in PROGRAMS), None)


@contextmanager
def repeating(work: Callable[[], None], seconds: float) -> Iterator[None]:
    """Do `work` every few seconds, in a thread, until the block ends.

    What it raises ends the repetition, and is raised at the end of the block.
    """
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(seconds):
            work()

    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(repeat)
        try:
            yield
        finally:
            ended.set()
        future.result()


def megabytes(size: float) -> float:
    """Bytes as MB of 10⁶."""
    return size / 1e6


def _ancestors(pid: int, root: int, parents: Mapping[int, int]) -> list[int]:
    """The process, its parent and so on to the child of `root`; none where it is not below it."""
    line = []
    while pid not in (0, root):
        line.append(pid)
        pid = parents.get(pid, 0)
    return line if pid == root else []


def _process(line: Sequence[int]) -> Process | None:
    """The first process of a line of ancestors; None where it has ended."""
    pid = line[0]
    try:
        status = (PROC / str(pid) / "status").read_text(encoding="utf-8", errors="replace")
        kilobytes = dict(re.findall(r"^(\w+):\s+(\d+) kB$", status, re.MULTILINE))
        memory = [1024 * int(kilobytes[name]) for name in ("VmRSS", "RssAnon", "VmHWM")]
        return Process(pid, int(_stat(pid)[19]), _kind(line), *memory)
    except (OSError, KeyError):  # one whose exit code nobody has looked at yet has no memory
        return None


def _kind(line: Sequence[int]) -> str:
    """Kind of the first process of a line: its own, or that of the next ancestor that has one."""
    for pid in line:
        command = (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace")
        if kind := kind_of(command.split("\0")):
            return kind if pid == line[0] else kind + CHILD
    return "other"


def _stat(pid: int) -> list[str]:
    """The fields of `stat` after the program's name, which may itself hold spaces and brackets."""
    text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    return text.rpartition(")")[2].split()
