import json
import socket
import urllib.request

import pytest

from hica.deployment.keys import generate, public_path
from hica.deployment.supervision import free_port
from hica.errors import ConfigurationError
from hica_server.enrolment import enroll, revoke
from hica_server.metrics_endpoint import serving_metrics
from hica_server.progress import Progress
from hica_server.settings import Folder


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "server")


@pytest.fixture
def scrape(folder):
    """What Prometheus reads: metric, with its labels → value."""

    def scrape():
        port = free_port()
        with serving_metrics(folder, port):
            answer = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
        rows = [line.rsplit(" ", 1) for line in answer.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in rows}

    return scrape


def test_before_the_first_run_all_is_zero(scrape):
    told = scrape()
    assert told["hica_round"] == told["hica_steps"] == told["hica_failures_total"] == 0


def test_a_run_is_told_in_numbers(folder, scrape, tmp_path):
    Progress(folder).write(
        done=4, of=9, round=3, participants=["a", "b"], bytes_up=10, bytes_down=20, failures=2
    )
    for name in ("a", "b", "c"):
        generate(tmp_path / name)
        enroll(folder, name, public_path(tmp_path / name))
    revoke(folder, "c")
    folder.service.mkdir(parents=True)
    folder.connected.write_text(json.dumps({"a": {"online": True}, "b": {"online": False}}))
    folder.processes.write_text(json.dumps({"superlink": {"restarts": 5}}))
    assert scrape() == {
        "hica_step": 4,
        "hica_steps": 9,
        "hica_round": 3,
        "hica_participants": 2,
        "hica_bytes_up_total": 10,
        "hica_bytes_down_total": 20,
        "hica_failures_total": 2,
        "hica_sites_enrolled": 2,
        "hica_sites_connected": 1,
        'hica_service_restarts_total{service="superlink"}': 5,
    }


def test_port_0_means_no_metrics(folder):
    with serving_metrics(folder, 0):
        pass


def test_a_port_that_is_taken_is_told_with_the_remedy(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = rf"server\.toml: ports\.metrics: port {port} cannot be opened.*0 for no metrics"
        with pytest.raises(ConfigurationError, match=words), serving_metrics(folder, port):
            pass


def test_the_port_is_free_again_afterwards(folder):
    port = free_port()
    for _ in range(2):
        with serving_metrics(folder, port):
            pass
