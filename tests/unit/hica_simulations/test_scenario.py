import pytest

from hica.errors import ConfigurationError
from hica_simulations.scenario import load_scenario

STUDY = """
[study]
name = "test"
[[classes]]
name = "normal"
prompts = ["a normal image"]
findings = ["clear"]
[[classes]]
name = "abnormal"
prompts = ["an abnormal image"]
findings = ["opacity"]
"""
SITES = """
[simulation]
labels = { bacterial = "abnormal", normal = "normal" }
[simulation.findings.shape]
patchy = "opacity"
[[simulation.sites]]
name = "a"
manifest = "x/manifest.csv"
part = "2/3"
[[simulation.sites]]
name = "b"
manifest = "y/manifest.csv"
where = { site = "b" }
test_where = { split = "test" }
"""
PHANTOMS = """
[simulation.phantoms]
modality = "xray"
[[simulation.sites]]
name = "a"
shift = { gain = 1.2 }
"""


@pytest.fixture
def load(tmp_path):
    def load(text, *overrides):
        path = tmp_path / "study.toml"
        path.write_text(STUDY + text)
        return load_scenario(path, list(overrides))

    return load


def test_study_and_simulation_are_read_apart(load):
    scenario = load(SITES)
    assert scenario.study.class_names == ["normal", "abnormal"]
    a, b = scenario.simulation.sites
    assert (a.share, b.share) == ((2, 3), (1, 1))
    assert b.test_where == {"split": "test"}
    # The simulation is no part of what a site approves.
    assert load(PHANTOMS).study.sha256 == scenario.study.sha256


def test_overrides_reach_both(load):
    scenario = load(PHANTOMS, "simulation.phantoms.per_class=7", "alignment.shots=3")
    assert scenario.simulation.phantoms.per_class == 7
    assert scenario.study.alignment.shots == 3


@pytest.mark.parametrize("text", [SITES, PHANTOMS])
def test_the_resolved_scenario_reads_back(load, tmp_path, text):
    scenario = load(text)
    path = tmp_path / "resolved.toml"
    path.write_text(scenario.as_toml())
    assert "split_seed = 0" in path.read_text()
    assert load_scenario(path) == scenario


def test_a_study_without_simulation_is_refused(load):
    with pytest.raises(ConfigurationError, match=r"study.toml: no \[simulation\] table; add one"):
        load("")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("simulation.test_share=1", r"simulation\.test_share: unknown key; known keys: test_frac"),
        ("simulation.test_fraction=1.0", r"simulation\.test_fraction: Input should be less than 1"),
        ('simulation.sites=[{name="a", manifest="m", wher={}}]', r"sites\.0\.wher: unknown key"),
        ("simulation.sites=[]", r"simulation\.sites: List should have at least 1"),
        ('simulation.sites=[{name="../a", manifest="m"}]', r"sites\.0\.name: '\.\./a': give"),
        ('simulation.sites=[{name="a", manifest="m", part="one"}]', r"sites\.0\.part: .*give .k/n"),
        ('simulation.sites=[{name="a", manifest="m", part="0/3"}]', r"sites\.0\.part: .*give .k/n"),
        (
            'simulation.sites=[{name="a", manifest="m", part="4/3"}]',
            r"part = '4/3' of site 'a': there are 3 parts; write \"1/3\" to \"3/3\"",
        ),
        (
            'simulation.sites=[{name="a", manifest="m"}, {name="A", manifest="n"}]',
            "sites need different names; given twice: a",
        ),
        ('simulation.sites=[{name="pooled", manifest="m"}]', "no site may be called 'pooled'"),
        ('simulation.sites=[{name="a"}]', "site 'a' has no manifest; name one below --data"),
        (
            'simulation.phantoms.modality="xray"',
            r"site 'a' names a manifest, but \[simulation.phantoms\] draws the images",
        ),
        ('simulation.phantoms.modality="mri"', r"phantoms\.modality: Input should be 'ultrasound'"),
        (
            'simulation.labels.viral="ill"',
            "simulation: labels: viral = 'ill' is not a class; the classes are normal, abnormal",
        ),
        (
            'simulation.sites=[{name="a", manifest="m", labels={x="y"}}]',
            "simulation.sites a: labels: x = 'y' is not a class",
        ),
        (
            'simulation.findings.shape.round="nodule"',
            "findings: shape: 'round' = 'nodule' is not a finding of any class; add it",
        ),
        (
            'simulation.unseen=["ill"]',
            "simulation: unseen: 'ill' is not a class; the classes are normal, abnormal",
        ),
        (
            'simulation.unseen=["normal"]',
            "simulation: unseen: of 2 classes 1 would be left to train on; .* take classes out",
        ),
        ("simulation.skew=0.0", r"simulation\.skew: Input should be greater than 0"),
        ("simulation.skew=inf", r"simulation\.skew: Input should be a finite number"),
        ("simulation.sizes=[]", r"simulation\.sizes: List should have at least 1 item"),
        ("simulation.sizes=[2, 0, 1]", r"simulation\.sizes\.1: Input should be greater than 0"),
        (
            "simulation.sizes=[2, 1]",
            r"sizes = \[2, 1\] are of 2 parts, but site 'a' has part = '2/3'; give a size for",
        ),
        (
            'simulation.sites=[{name="a", manifest="m", label_noise=1.1}]',
            r"sites\.0\.label_noise: Input should be less than or equal to 1",
        ),
        ('simulation.masks="blurred"', r"simulation\.masks: Input should be 'as drawn', 'dilated'"),
        ("simulation.mask_damage=0.5", r"simulation\.mask_damage: Input should be less than 0\.5"),
    ],
)
def test_errors_name_file_key_and_remedy(load, override, message):
    with pytest.raises(ConfigurationError, match=message) as error:
        load(SITES, override)
    assert "study.toml" in str(error.value)


def test_parts_are_shared_out_in_one_way(load):
    with pytest.raises(
        ConfigurationError, match=r"simulation: skew and sizes both say .* keep one"
    ):
        load(SITES, "simulation.skew=0.3", "simulation.sizes=[2, 1, 1]")


@pytest.mark.parametrize("key", ["skew=0.3", "sizes=[2, 1, 1]"])
def test_what_shares_out_parts_needs_parts(load, key):
    name = key.partition("=")[0]
    with pytest.raises(
        ConfigurationError,
        match=rf"{name} is of sites that share .*, but no site has a part; give .* take {name} out",
    ):
        load(SITES.replace('part = "2/3"\n', ""), f"simulation.{key}")


def test_what_tables_vary_reads_back(load, tmp_path):
    for overrides in (["skew=0.3"], ["sizes=[4, 2, 1]", 'masks="shifted"', "mask_damage=0.2"]):
        scenario = load(SITES, *(f"simulation.{override}" for override in overrides))
        path = tmp_path / "resolved.toml"
        path.write_text(scenario.as_toml())
        assert load_scenario(path) == scenario


def test_without_these_keys_nothing_is_varied(load):
    simulation = load(SITES).simulation
    assert (simulation.unseen, simulation.skew, simulation.sizes) == ([], None, None)
    assert simulation.masks == "as drawn"
    assert [site.label_noise for site in simulation.sites] == [0.0, 0.0]
