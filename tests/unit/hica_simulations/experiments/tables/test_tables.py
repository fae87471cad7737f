import pytest

from hica.errors import ConfigurationError
from hica_simulations.experiments.tables import TABLES, table_named


@pytest.mark.parametrize("name", TABLES)
def test_every_table_says_what_is_run_and_what_is_made_of_it(name):
    module = table_named(name)
    assert callable(module.cells) and callable(module.write)


def test_an_unknown_table_is_refused_and_the_others_are_named():
    with pytest.raises(ConfigurationError, match="table 'mian': the tables are main, ablation"):
        table_named("mian")
