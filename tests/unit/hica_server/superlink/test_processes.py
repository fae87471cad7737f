from hica_server.settings import Folder
from hica_server.superlink.processes import environment


def test_our_processes_reach_each_other_past_a_proxy_and_others_still_through_theirs(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("NO_PROXY", "intranet.example")
    for name in ("NO_PROXY", "no_proxy"):
        assert environment(Folder(tmp_path))[name] == "intranet.example,127.0.0.1,localhost"


def test_nothing_of_flower_calls_home(tmp_path):
    told = environment(Folder(tmp_path))
    assert (told["FLWR_TELEMETRY_ENABLED"], told["FLWR_DISABLE_UPDATE_CHECK"]) == ("0", "1")
