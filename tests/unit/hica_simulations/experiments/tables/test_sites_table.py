import pytest

from hica.errors import ConfigurationError
from hica_simulations.experiments.tables import sites_table
from hica_simulations.experiments.tables.sites_table import OWN, RULES, TABLE


@pytest.mark.parametrize("name", ["breast_lesions", "pneumonia", "pneumonia_kinds"])
def test_one_manifest_is_shared_out_in_many_ways(loaded, name):
    lines = loaded(sites_table, name)
    own = lines[OWN]
    assert len(own.simulation.sites) == 4 and "4 sites" not in lines
    for line, count in {"1 site": 1, "2 sites": 2, "8 sites": 8}.items():
        sites = lines[line].simulation.sites
        assert [site.part for site in sites] == [f"{k}/{count}" for k in range(1, count + 1)]
        assert {site.manifest for site in sites} == {own.simulation.sites[0].manifest}
        assert sites[-1].test_where == own.simulation.sites[0].test_where
        assert lines[line].study.federation.quorum == min(count, 2)
        assert lines[line].study.alignment.shots == own.study.alignment.shots
    assert lines["label skew: α = 0.1"].simulation.skew == 0.1
    assert lines["sites of unequal size"].simulation.sizes == [8, 4, 2, 1]


def test_one_of_many_sites_is_wrong_and_rules_are_tried_on_it(loaded):
    lines = loaded(sites_table, "breast_lesions")
    for rule in RULES:
        scenario = lines[f"8 sites: one with wrong labels: {rule}"]
        assert [site.label_noise for site in scenario.simulation.sites] == [1.0] + [0.0] * 7
        federation = scenario.study.federation
        assert federation.aggregation == rule.replace(" ", "-")
        assert federation.malicious == (rule == "krum")
    assert set(TABLE.against) <= set(lines) and set(TABLE.against.values()) <= set(lines)


@pytest.mark.parametrize("name", ["breast_ultrasound", "tuberculosis", "chest_xray", "phantoms"])
def test_sites_of_several_sources_are_refused(study, name):
    with pytest.raises(ConfigurationError, match=r"table sites: .* one manifest.*1/n"):
        sites_table.cells([study(name)], [5], [3])
