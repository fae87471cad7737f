"""Tables: grids of simulated runs, each cell resumable, written as CSV, Markdown and a plot.

One file a table, with a function `cells` that says what is run and `write` that says what is made
of it; one line in `TABLES` gives it its name on the command line.
"""

from importlib import import_module
from types import ModuleType

from hica.errors import ConfigurationError

TABLES = {
    "main": "hica_simulations.experiments.tables.main_table",
    "ablation": "hica_simulations.experiments.tables.ablation",
    "unseen": "hica_simulations.experiments.tables.unseen",
    "text-noise": "hica_simulations.experiments.tables.text_noise",
    "efficiency": "hica_simulations.experiments.tables.efficiency",
    "regions": "hica_simulations.experiments.tables.regions_table",
    "sensitivity": "hica_simulations.experiments.tables.sensitivity",
    "descriptors": "hica_simulations.experiments.tables.descriptors",
    "sites": "hica_simulations.experiments.tables.sites_table",
    "prevalence": "hica_simulations.experiments.tables.prevalence_table",
    "training": "hica_simulations.experiments.tables.training_table",
    "gain": "hica_simulations.experiments.tables.gain_table",
    "joined": "hica_simulations.experiments.tables.joined_table",
    "coverage": "hica_simulations.experiments.tables.coverage_table",
    "suggest": "hica_simulations.experiments.tables.suggest_table",
    "privacy": "hica_simulations.experiments.tables.privacy",
}


def table_named(name: str) -> ModuleType:
    """The module of a table.

    Raises:
        ConfigurationError: There is no such table; names those there are.
    """
    if name not in TABLES:
        raise ConfigurationError(f"table {name!r}: the tables are {', '.join(TABLES)}")
    return import_module(TABLES[name])
