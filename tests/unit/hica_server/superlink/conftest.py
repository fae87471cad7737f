import pytest
from tests.coordinator import KEY

from hica_server.superlink.grid import PromptGrid

from .fake_link import Link


@pytest.fixture
def grid_of(make_grid, monkeypatch):
    """A prompt grid over a link that finds these answers."""
    monkeypatch.setattr("hica_server.superlink.grid.POLL_SECONDS", 0.0)
    make_grid({})  # gives this process the identity of a server

    def grid_of(*looks, refused=()):
        link = Link(*looks, refused=refused)
        return PromptGrid(link, KEY), link

    return grid_of
