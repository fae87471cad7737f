import pytest

from hica_server.superlink.grid import PromptGrid

from .fake_link import Link


@pytest.fixture
def grid_of(make_grid):
    """A prompt grid over a link that finds these answers."""
    make_grid({})  # gives this process the identity of a server

    def grid_of(*looks, refused=()):
        link = Link(*looks, refused=refused)
        return PromptGrid(link, poll_seconds=0.0), link

    return grid_of
