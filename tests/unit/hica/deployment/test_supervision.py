"""The supervisor, with real processes: restarts, pauses, giving up, and nothing left behind."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hica.deployment import supervision
from hica.deployment.supervision import Service, Supervisor, describe_exit, free_port, until_stopped
from hica.errors import FederationError, HicaError, StorageError

SLEEPS = "import signal; print('ready', flush=True); signal.pause()"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPS}"
WITH_A_CHILD = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {SLEEPS!r}], stdout=subprocess.PIPE)
child.stdout.readline()
print("child", child.pid, flush=True)
child.wait()
"""


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A folder for services, a clock for their supervisor, and what they printed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes = folder / "processes.json"
        self.clock = Clock()
        self.lines: list[tuple[str, str]] = []

    def service(self, name: str, code: str, **options) -> Service:
        log = self.folder / "logs" / f"{name}.log"
        return Service(name, [sys.executable, "-c", code], options.pop("env", {}), log, **options)

    def supervisor(self, *services: Service, grace: float = 60.0) -> Supervisor:
        return Supervisor(services, self.processes, self.heard, self.clock, grace)

    def heard(self, name: str, line: str) -> None:
        self.lines.append((name, line))

    def table(self) -> dict:
        return json.loads(self.processes.read_text())

    def await_line(self, name: str, line: str, times: int = 1) -> None:
        wait_until(lambda: self.lines.count((name, line)) >= times)

    def child_of(self, name: str) -> int:
        wait_until(lambda: any(n == name and "child" in line for n, line in self.lines))
        return next(int(line.split()[1]) for n, line in self.lines if "child" in line)


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)


def wait_until(condition) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether a process lives; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def zombies() -> list[int]:
    """Children of this process that are dead and not waited for."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in children if not is_running(int(pid))]


def await_death(running: Supervisor, name: str) -> None:
    """Wait until a service has ended by itself (it stays a zombie until it is reaped)."""
    pid = running.pids()[name]
    wait_until(lambda: not is_running(pid))


def kill(pid: int) -> None:
    """Kill a process and wait until it is dead (it stays a zombie until it is reaped)."""
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid))


def test_services_run_from_with_to_the_end_of_its_block(bench):
    services = [bench.service("a", SLEEPS), bench.service("b", SLEEPS, port=8443)]
    with bench.supervisor(*services) as running:
        pids = running.pids()
        assert all(is_running(pid) for pid in pids.values())
        table = bench.table()
        assert {name: table[name]["pid"] for name in "ab"} == pids
        assert table["b"] | {"started": ""} == {
            "pid": pids["b"],
            "started": "",
            "restarts": 0,
            "port": 8443,
        }
        assert table["b"]["started"].endswith("+00:00")
    assert not any(is_running(pid) for pid in pids.values())
    assert zombies() == []
    assert {row["pid"] for row in bench.table().values()} == {None}


def test_output_is_heard_and_kept(bench):
    code = f"import sys; print('oh', file=sys.stderr); {SLEEPS}"
    with bench.supervisor(bench.service("a", code)):
        bench.await_line("a", "ready")
        assert bench.lines == [("a", "oh"), ("a", "ready")]
    assert (bench.folder / "logs" / "a.log").read_text().count("\n") == 2


def test_env_is_added_to_the_supervisors_own(bench, monkeypatch):
    monkeypatch.setenv("HICA_OURS", "1")
    code = f"import os; print(os.environ['HICA_OURS'], os.environ['HICA_THEIRS']); {SLEEPS}"
    with bench.supervisor(bench.service("a", code, env={"HICA_THEIRS": "2"})):
        bench.await_line("a", "1 2")


def test_a_service_is_out_of_reach_of_the_terminal(bench):
    """It is in a session of its own, so Ctrl-C does not end it before the supervisor does."""
    code = f"import os; print(os.getsid(0) == os.getpid()); {SLEEPS}"
    with bench.supervisor(bench.service("a", code)):
        bench.await_line("a", "True")


def test_what_is_killed_is_started_again_after_a_second(bench):
    with bench.supervisor(bench.service("a", SLEEPS)) as running:
        bench.await_line("a", "ready")
        first = running.pids()["a"]
        kill(first)
        running.tick()
        assert zombies() == []
        assert running.pids() == {"a": None}
        assert bench.table()["a"]["pid"] is None
        bench.clock.now += 0.9
        running.tick()
        assert running.pids() == {"a": None}
        bench.clock.now += 0.2
        running.tick()
        bench.await_line("a", "ready", times=2)
        assert running.pids()["a"] not in (None, first)
        assert bench.table()["a"]["restarts"] == 1


def test_others_are_left_to_their_work(bench):
    with bench.supervisor(bench.service("a", SLEEPS), bench.service("b", SLEEPS)) as running:
        pids = running.pids()
        kill(pids["a"])
        running.tick()
        assert running.pids()["b"] == pids["b"]
        assert is_running(pids["b"])


def pauses(bench, running: Supervisor, deaths: int, age: float = 0.0) -> list[float]:
    """Kill a service again and again at an age; how long each pause was, in seconds."""
    found = []
    for _ in range(deaths):
        bench.clock.now += age
        kill(running.pids()["a"])
        running.tick()
        died = bench.clock.now
        while running.pids()["a"] is None:
            bench.clock.now += 0.5
            running.tick()
        found.append(bench.clock.now - died)
    return found


def test_pauses_double_up_to_half_a_minute(bench):
    with bench.supervisor(bench.service("a", SLEEPS)) as running:
        assert pauses(bench, running, 7) == [1, 2, 4, 8, 16, 30, 30]


def test_a_minute_in_health_makes_the_next_pause_a_first_one(bench):
    with bench.supervisor(bench.service("a", SLEEPS)) as running:
        assert pauses(bench, running, 3) == [1, 2, 4]
        assert pauses(bench, running, 2, age=60.0) == [1, 1]
        assert pauses(bench, running, 2) == [1, 2]


def test_restarts_leave_no_thread_no_file_and_no_zombie(bench):
    def open_things() -> tuple[int, int]:
        return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    before = open_things()
    with bench.supervisor(bench.service("a", SLEEPS)) as running:
        pauses(bench, running, 1)
        once = open_things()
        pauses(bench, running, 10)
        assert open_things() == once
        assert zombies() == []
    assert open_things() == before


def test_what_a_dead_service_started_is_killed_before_it_is_started_again(bench):
    with bench.supervisor(bench.service("a", WITH_A_CHILD)) as running:
        grandchild = bench.child_of("a")
        kill(running.pids()["a"])
        assert is_running(grandchild)
        running.tick()
        wait_until(lambda: not is_running(grandchild))


def test_what_a_service_started_is_gone_after_stop(bench):
    with bench.supervisor(bench.service("a", WITH_A_CHILD)):
        grandchild = bench.child_of("a")
    wait_until(lambda: not is_running(grandchild))


def test_the_hook_hears_of_a_death_after_all_its_output(bench):
    heard = []

    def hook(service: Service, code: int) -> None:
        heard.append((service.name, code, list(bench.lines)))

    code = "print('why'); print('it died'); raise SystemExit(3)"
    with bench.supervisor(bench.service("a", code, before_restart=hook)) as running:
        await_death(running, "a")
        running.tick()
        assert heard == [("a", 3, [("a", "why"), ("a", "it died")])]


def test_a_hook_may_give_up(bench):
    def hook(service: Service, code: int) -> None:
        raise HicaError("another version")

    services = [bench.service("b", SLEEPS), bench.service("a", "", before_restart=hook)]
    with pytest.raises(HicaError, match="another version"), bench.supervisor(*services) as running:
        other = running.pids()["b"]
        await_death(running, "a")
        running.tick()
    assert not is_running(other)


def test_quick_deaths_in_a_row_are_fatal_with_the_last_lines(bench):
    code = "for number in range(30): print('line', number)\nraise SystemExit(4)"
    log = bench.folder / "logs" / "a.log"
    with bench.supervisor(bench.service("a", code, fatal_after=2)) as running:
        await_death(running, "a")
        running.tick()
        bench.clock.now += 2.0
        running.tick()
        await_death(running, "a")
        with pytest.raises(FederationError) as error:
            running.tick()
    said, *lines = str(error.value).splitlines()
    assert said.startswith("a: ended 2 times within 60 s of its start, last with exit code 4. Mend")
    assert str(log) in said
    assert lines == [f"line {number}" for number in range(10, 30)]
    assert bench.table()["a"]["restarts"] == 1


def test_deaths_in_between_health_are_not_fatal(bench):
    with bench.supervisor(bench.service("a", SLEEPS, fatal_after=2)) as running:
        for _ in range(3):
            pauses(bench, running, 1)
            pauses(bench, running, 1, age=60.0)
        assert running.pids()["a"] is not None


def test_stopped_in_reverse_order_each_by_sigterm(bench):
    goodbye = "lambda *_: exit(print('bye', flush=True))"
    code = f"import signal; signal.signal(signal.SIGTERM, {goodbye}); {SLEEPS}"
    services = [bench.service(name, code) for name in "abc"]
    with bench.supervisor(*services):
        for name in "abc":
            bench.await_line(name, "ready")
    assert [name for name, line in bench.lines if line == "bye"] == ["c", "b", "a"]


def test_what_does_not_end_by_itself_is_killed(bench):
    with bench.supervisor(bench.service("a", STUBBORN), grace=0.1) as running:
        bench.await_line("a", "ready")
        pid = running.pids()["a"]
    assert not is_running(pid)
    assert zombies() == []


def test_stop_after_a_death_that_nobody_has_seen(bench):
    with bench.supervisor(bench.service("a", SLEEPS)) as running:
        kill(running.pids()["a"])
    assert zombies() == []


def test_stop_while_a_service_waits_for_its_restart(bench):
    with bench.supervisor(bench.service("a", SLEEPS)) as running:
        kill(running.pids()["a"])
        running.tick()
    assert bench.table()["a"] == {"pid": None, "started": None, "restarts": 0, "port": None}


def test_an_interrupt_while_stopping_kills_at_once(bench, monkeypatch):
    def interrupt(process, seconds):
        raise KeyboardInterrupt

    services = [bench.service("a", STUBBORN), bench.service("b", STUBBORN)]
    with pytest.raises(KeyboardInterrupt), bench.supervisor(*services) as running:
        pids = running.pids()
        bench.await_line("a", "ready")
        bench.await_line("b", "ready")
        monkeypatch.setattr(supervision, "_wait_for_end", interrupt)
    assert not any(is_running(pid) for pid in pids.values())
    assert zombies() == []


def test_a_program_that_is_not_there_stops_what_was_started(bench):
    missing = Service("b", ["/no/such/program"], {}, bench.folder / "b.log")
    pids = []

    class Noted(Supervisor):
        def _publish(self) -> None:
            pids.append(self.pids()["a"])

    said = r"b: /no/such/program cannot be started: No such file.*hica is whole"
    supervisor = Noted([bench.service("a", SLEEPS), missing], bench.processes)
    with pytest.raises(FederationError, match=said), supervisor:
        pytest.fail("started")
    assert not is_running(pids[0])
    assert zombies() == []


def test_a_log_folder_that_cannot_be_made(bench):
    (bench.folder / "logs").write_text("")
    said = pytest.raises(StorageError, match=r"a\.log: cannot be written")
    with said, bench.supervisor(bench.service("a", SLEEPS)):
        pytest.fail("started")
    assert zombies() == []


def test_a_full_disk_stops_no_service(bench, monkeypatch, caplog):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with bench.supervisor(bench.service("a", SLEEPS)) as running:
        with monkeypatch.context() as patch:
            patch.setattr("pathlib.Path.write_bytes", full)
            pauses(bench, running, 1)
        assert is_running(running.pids()["a"])
    assert "processes.json: cannot be written: No space left" in caplog.text


SUPERVISOR = """
import sys
from pathlib import Path
from hica.deployment.supervision import Service, Supervisor, until_stopped
folder, code = Path(sys.argv[1]), sys.argv[2]
service = Service("a", [sys.executable, "-c", code], {}, folder / "a.log")
hear = lambda name, line: print(line, flush=True)
with until_stopped() as stop, Supervisor([service], folder / "processes.json", hear) as running:
    while not stop.wait(0.1):
        running.tick()
print("stopped by", stop.signal.name, flush=True)
"""


@contextmanager
def supervisor_process(folder: Path, code: str) -> Iterator[subprocess.Popen]:
    """A process that supervises one service; gone at the end, also where a test fails."""
    command = [sys.executable, "-c", SUPERVISOR, str(folder), code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as supervisor:
        try:
            yield supervisor
        finally:
            supervisor.kill()


def pid_of_service(folder: Path) -> int:
    """Its first word may be heard before it is written down."""
    wait_until((folder / "processes.json").exists)
    return json.loads((folder / "processes.json").read_text())["a"]["pid"]


def test_nothing_outlives_a_killed_supervisor(tmp_path):
    with supervisor_process(tmp_path, STUBBORN) as supervisor:
        assert supervisor.stdout.readline() == "ready\n"
        pid = pid_of_service(tmp_path)
        assert is_running(pid)
        supervisor.kill()
        supervisor.wait()
        wait_until(lambda: not is_running(pid))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_clean_end(number, tmp_path):
    with supervisor_process(tmp_path, SLEEPS) as supervisor:
        assert supervisor.stdout.readline() == "ready\n"
        pid = pid_of_service(tmp_path)
        supervisor.send_signal(number)
        assert supervisor.stdout.read() == f"stopped by {number.name}\n"
        assert supervisor.wait() == 0
        assert not is_running(pid)


def test_a_second_ctrl_c_does_not_wait_for_the_grace(tmp_path):
    code = "import signal; signal.signal(signal.SIGTERM, lambda *_: print('no', flush=True))\n"
    loop = "print('ready', flush=True)\nwhile True: signal.pause()"
    with supervisor_process(tmp_path, code + loop) as supervisor:
        assert supervisor.stdout.readline() == "ready\n"
        supervisor.send_signal(signal.SIGINT)
        assert supervisor.stdout.readline() == "no\n"  # it is in its grace now
        supervisor.send_signal(signal.SIGINT)
        assert supervisor.stdout.read() == ""
        assert supervisor.wait() == -signal.SIGINT


def test_a_child_whose_parent_is_gone_already_does_not_begin(tmp_path):
    code = (
        "import os; from hica.deployment.supervision import die_with; "
        "die_with(os.getppid() + 1); print('began')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


def test_until_stopped_without_a_signal():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with until_stopped() as stop:
        assert stop.wait(0.0) is False
        assert stop.signal is None
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_signal_ends_the_wait():
    with until_stopped() as stop:
        threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGTERM]).start()
        assert stop.wait(600.0) is True
        assert stop.signal == signal.SIGTERM
        assert stop.wait(600.0) is True


def test_a_free_port_can_be_taken():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))


@pytest.mark.parametrize(
    ("code", "said"),
    [(0, "exit code 0"), (7, "exit code 7"), (-9, "signal SIGKILL"), (-99, "signal 99")],
)
def test_exits_in_words(code, said):
    assert describe_exit(code) == said
