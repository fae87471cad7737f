from datetime import UTC, datetime

import pytest

from hica.errors import ConfigurationError, WeightsError
from hica_server.findings.language_model import PROMPT
from hica_server.findings.propose import propose


def test_a_template_has_nothing_but_its_kind_and_date(study):
    draft, left_out = propose(study, "template", None, 7)
    assert draft.source.model_dump(exclude_none=True) == {
        "kind": "template",
        "date": datetime.now(UTC).date(),
    }
    assert (draft.reviewed_by, left_out) == ("", {})


def test_random_words_say_their_seed_and_take_the_studys_without_one(study):
    assert propose(study, "random", None, 7)[0].source.seed == 7
    own = propose(study, "random", None, None)[0]
    assert own.source.seed == study.study.seed
    assert own == propose(study, "random", None, study.study.seed)[0]


@pytest.mark.parametrize("seed", [None, 0, 5])
def test_a_language_model_says_how_to_ask_it_again(study, save_model, seed):
    draft, left_out = propose(study, "language-model", str(save_model("oval shape")), seed)
    source = draft.source
    assert (source.model, source.prompt, source.seed) == ("little-model", PROMPT, seed)
    assert len(source.sha256) == 64
    assert draft.findings == {name: ["oval shape"] for name in study.class_names}
    assert list(left_out) == study.class_names


@pytest.mark.parametrize(("kind", "model"), [("language-model", None), ("template", "gpt2")])
def test_a_model_belongs_to_its_source(study, kind, model):
    with pytest.raises(ConfigurationError, match="belong together"):
        propose(study, kind, model, None)


def test_a_model_of_a_hub_is_fetched_only_where_that_is_allowed(study, monkeypatch):
    asked = []

    def locate(name, hubs):
        asked.append((name, hubs))
        raise WeightsError("not here")

    monkeypatch.setattr("hica_server.findings.language_model.locate", locate)
    for hubs in (False, True):
        with pytest.raises(WeightsError):
            propose(study, "language-model", "owner/name@0", None, hubs)
    assert asked == [("owner/name@0", False), ("owner/name@0", True)]
