"""The bundle: the bytes that hospitals pin, and what Flower makes of them."""

import hashlib
import importlib.util
import io
import tomllib
import zipfile

import pytest
from flwr.cli.build import build_fab_from_disk
from flwr.cli.config_utils import get_fab_metadata
from flwr.common.config import get_fab_config

from hica.deployment import bundle


def members(fab: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(fab)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_it_has_the_hash_that_hospitals_pin():
    assert hashlib.sha256(bundle.build()).hexdigest() == bundle.BUNDLE_SHA256


def test_flower_takes_it_under_the_pinned_name():
    assert get_fab_metadata(bundle.build())[0] == bundle.APP_ID


def test_it_holds_what_flower_itself_would_put_into_it():
    assert members(bundle.build()) == members(build_fab_from_disk(bundle.BUNDLE_FOLDER))


def test_it_holds_no_code():
    assert list(members(bundle.build())) == ["pyproject.toml", ".info/CONTENT"]


@pytest.mark.parametrize("component", ["serverapp", "clientapp"])
def test_it_names_installed_apps(component):
    app = get_fab_config(bundle.build())["tool"]["flwr"]["app"]
    module, name = app["components"][component].split(":")
    assert name == "app"
    assert importlib.util.find_spec(module) is not None


def test_its_only_setting_is_the_study():
    text = (bundle.BUNDLE_FOLDER / "pyproject.toml").read_text()
    assert tomllib.loads(text)["tool"]["flwr"]["app"]["config"] == {"study": ""}
