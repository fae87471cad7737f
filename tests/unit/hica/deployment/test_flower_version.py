import importlib.metadata

import pytest

from hica.deployment.flower_version import require_flower
from hica.errors import ConfigurationError


@pytest.mark.parametrize("version", ["1.41.0", "1.41.7"])
def test_any_patch_release_will_do(version, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    require_flower()


@pytest.mark.parametrize("version", ["1.40.2", "1.42.0", "1.4.1", "2.41.0"])
def test_another_version_is_said_in_plain_words(version, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    said = rf'Flower {version} is installed here, HiCA needs 1\.41: .*pip install "flwr==1\.41\.\*"'
    with pytest.raises(ConfigurationError, match=said):
        require_flower()


def test_no_flower_at_all(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(ConfigurationError, match=r"not installed here.*pip install"):
        require_flower()


def test_the_installed_flower_is_the_one():
    require_flower()
