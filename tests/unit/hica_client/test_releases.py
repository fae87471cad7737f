import pytest
from hica_client.releases import MOST_ROWS, rows_at_a_time


@pytest.mark.parametrize(
    ("weights", "rows"), [(0, MOST_ROWS), (33_280, MOST_ROWS), (3_000_000, 44), (86_000_000, 1)]
)
def test_the_gradients_that_are_held_have_a_bound(weights, rows):
    assert rows_at_a_time(weights) == rows
