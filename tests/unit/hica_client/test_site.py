from importlib import resources

import pytest

from hica.errors import ConfigurationError
from hica.steps.plan import all_kinds
from hica_client.site import load_site

GOOD = '[site]\nname = "north"\n[data]\nmanifest = "images/manifest.csv"\n'


@pytest.fixture
def written(tmp_path):
    def written(text):
        path = tmp_path / "site.toml"
        path.write_text(text)
        return path

    return written


def test_paths_are_relative_to_the_file_and_defaults_lie_beside_it(written, tmp_path):
    data = load_site(written(GOOD)).data
    assert data.manifest == tmp_path / "images" / "manifest.csv"
    assert data.weights == tmp_path / "weights"
    assert data.cache == tmp_path / "cache"
    assert data.state == tmp_path / "state"


def test_they_are_whatever_folder_the_site_is_started_in(written, tmp_path, monkeypatch):
    written(GOOD)
    monkeypatch.chdir(tmp_path.parent)
    path = (tmp_path / "site.toml").relative_to(tmp_path.parent)
    assert load_site(path).data.manifest == tmp_path / "images" / "manifest.csv"


def test_absolute_paths_stay(written, tmp_path):
    elsewhere = tmp_path.parent / "weights"
    assert load_site(written(f'{GOOD}weights = "{elsewhere}"\n')).data.weights == elsewhere


def test_kit_and_key_lie_beside_the_file_and_logs_in_the_state(written, tmp_path):
    site = load_site(written(f'{GOOD}state = "kept"\n'))
    assert site.federation.kit == tmp_path / "kit"
    assert site.federation.key == tmp_path / "keys" / "site"
    assert site.approvals == tmp_path / "kept" / "approvals.jsonl"
    assert site.audit_log == tmp_path / "kept" / "audit.jsonl"
    assert site.ledger == tmp_path / "kept" / "ledger.jsonl"
    assert site.service == tmp_path / "kept" / "service"
    elsewhere = tmp_path.parent / "key"
    other = load_site(written(f'{GOOD}[federation]\nkit = "../kit"\nkey = "{elsewhere}"\n'))
    assert (other.federation.kit, other.federation.key) == (tmp_path / "../kit", elsewhere)


def test_a_prevalence_is_optional_and_need_not_be_exact(written):
    assert load_site(written(GOOD)).data.prevalence == {}
    text = GOOD + "prevalence = { round = 0.667, square = 0.33 }\n"
    assert load_site(written(text)).data.prevalence == {"round": 0.667, "square": 0.33}


def test_no_private_spending_is_allowed_before_somebody_decides(written):
    policy = load_site(written(GOOD)).policy
    assert (policy.max_epsilon, policy.delta) == (None, 1e-5)
    policy = load_site(written(GOOD + "[policy]\nmax_epsilon = 4\ndelta = 1e-3\n")).policy
    assert (policy.max_epsilon, policy.delta) == (4.0, 1e-3)


def test_the_policy_of_the_example_is_the_one_without_a_policy(written):
    example = resources.files("hica_client").joinpath("example_site.toml").read_text()
    shown, default = load_site(written(example)).policy, load_site(written(GOOD)).policy
    assert shown.model_dump(exclude={"kinds"}) == default.model_dump(exclude={"kinds"})
    assert set(shown.kinds) == set(default.kinds) == set(all_kinds())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD + 'manifets = "x.csv"\n', "data.manifets: unknown key; known keys: manifest, "),
        (GOOD + "[network]\n", "network: unknown key; known keys: site, data, device"),
        ('[site]\nname = "north"\n[data]\n', "data.manifest: Field required"),
        ('[data]\nmanifest = "x.csv"\n', "site: Field required"),
        ('[site]\nname = ""\n[data]\nmanifest = "x.csv"\n', "site.name: "),
        (GOOD + "test_fraction = 1.0\n", "data.test_fraction: Input should be less than 1"),
        (GOOD + "prevalence = { a = 0.6, b = 0.6 }\n", "of prevalence add up to 1.2; give one of"),
        (GOOD + "prevalence = { a = 1.5 }\n", "data.prevalence.a: Input should be less than or"),
        (GOOD + "manifest", "not valid TOML"),
        (
            GOOD + '[policy]\nkinds = ["train.all", "train.align"]\n',
            "policy: kinds: train.all: no kind of request; known are query.capabili",
        ),
        (GOOD + "[policy]\nmin_count = 0\n", "policy.min_count: Input should be greater than 0"),
        (GOOD + "[policy]\nmax_reply_bytes = 0\n", "policy.max_reply_bytes: Input should be"),
        (GOOD + '[policy]\ntensors = "*"\n', "policy.tensors: "),
        (GOOD + "[policy]\nmax_epsilon = 0\n", "policy.max_epsilon: Input should be greater"),
        (GOOD + "[policy]\nmax_epsilon = inf\n", "policy.max_epsilon: Input should be a finite"),
        (GOOD + "[policy]\ndelta = 0.0\n", "policy.delta: Input should be greater than 0"),
        (GOOD + "[policy]\ndelta = 1\n", "policy.delta: Input should be less than 1"),
        (GOOD + "[policy]\nmin = 1\n", "policy.min: unknown key; known keys: kinds, tensors, "),
        (GOOD + '[federation]\nkeys = "k"\n', "federation.keys: unknown key; known keys: kit, key"),
    ],
)
def test_what_cannot_be_used_is_named_with_file_and_key(written, text, words):
    path = written(text)
    with pytest.raises(ConfigurationError) as error:
        load_site(path)
    assert str(path) in str(error.value)
    assert words in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"gone\.toml: no such file"):
        load_site(tmp_path / "gone.toml")
