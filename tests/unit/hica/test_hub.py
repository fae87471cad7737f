import pytest
from huggingface_hub import constants

from hica import hub
from hica.errors import WeightsError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
KINDS = (("*.json", "*.safetensors"), ("*.json", "*.bin"))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Stands in for the hub: a model with files of the older kind; what was asked of it."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    folder = tmp_path / "models--owner--name" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (folder / "pytorch_model.bin").touch()
    asked = []

    def snapshot(name, *, revision, allow_patterns, ignore_patterns, local_files_only):
        asked.append((name, revision, allow_patterns, local_files_only, constants.HF_HUB_OFFLINE))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    return folder, asked


def test_a_pinned_model_is_fetched_where_that_is_allowed(cache):
    folder, asked = cache
    assert hub.model(f"owner/name@{COMMIT}", KINDS, True, "key") == folder
    assert asked == [("owner/name", COMMIT, list(kind), False, False) for kind in KINDS]
    assert constants.HF_HUB_OFFLINE is True  # no library asks by itself after that


def test_elsewhere_only_the_cache_is_looked_at(cache):
    folder, asked = cache
    assert hub.model(f"owner/name@{COMMIT}", KINDS, False, "key") == folder
    assert [(local, offline) for *_, local, offline in asked] == [(True, True)] * 2


def test_the_environment_keeps_the_way_closed(cache, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.model(f"owner/name@{COMMIT}", KINDS, True, "key")
    assert [offline for *_, offline in cache[1]] == [True, True]


@pytest.mark.parametrize(
    "name",
    [
        "owner/name",
        "owner/name@main",
        f"owner/name@{COMMIT[:12]}",
        f"name@{COMMIT}",
        f"../name@{COMMIT}",
        f"owner/a/b@{COMMIT}",
        "",
    ],
)
def test_a_name_that_is_not_pinned_is_refused(cache, name):
    with pytest.raises(WeightsError, match=r"key = .*: not pinned.*OWNER/NAME@COMMIT with all 40"):
        hub.model(name, KINDS, True, "key")
    assert cache[1] == []


def test_a_model_that_is_fetched_is_looked_through(cache):
    (cache[0] / "config.json").write_text('{"trust_remote_code": true}')
    with pytest.raises(WeightsError, match="would run code"):
        hub.model(f"owner/name@{COMMIT}", KINDS, True, "key")


def test_a_file_is_the_first_there_is(monkeypatch):
    def fetch(name, file, *, local_files_only):
        if file.endswith(".bin"):
            return f"/cache/{file}"
        raise OSError("no such file")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    found = hub.weights_file("owner/name", ["a.safetensors", "a.bin"], "0" * 64, True, "key")
    assert str(found) == "/cache/a.bin"
    with pytest.raises(WeightsError, match=r"key: not pinned.*add model\.sha256"):
        hub.weights_file("owner/name", ["a.bin"], None, True, "key")
    with pytest.raises(WeightsError, match=r"could not be fetched from the hub .no such file"):
        hub.weights_file("owner/name", ["a.safetensors"], "0" * 64, True, "key")
    with pytest.raises(WeightsError, match=r"data\.weights of the site file.*hubs = true"):
        hub.weights_file("owner/name", ["a.safetensors"], "0" * 64, False, "key")
