"""A tower that knows its language is not refined at a rate that would undo it."""

import pytest

from hica.errors import ConfigurationError
from hica.study import Study
from hica.text import from_study


class Knows:
    knows_language = True


def test_a_high_rate_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(from_study, "load_text_tower", lambda *_, **__: Knows())
    classes = [{"name": name, "prompts": [name]} for name in "ab"]
    table = {"study": {"name": "s"}, "classes": classes, "text": {"learning_rate": 1e-3}}
    with pytest.raises(ConfigurationError, match=r"text\.epochs = 0"):
        from_study.refined_text_tower(Study.model_validate(table), tmp_path)
    still = Study.model_validate({**table, "text": {"epochs": 0}})
    assert isinstance(from_study.refined_text_tower(still, tmp_path), Knows)
