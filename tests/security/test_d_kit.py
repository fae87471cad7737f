"""D: what a hospital reads is what it approves (number 13)."""

import pytest
from rich.console import Console

from hica.deployment.kit import read_kit, study_text
from hica.errors import ConfigurationError
from hica_client.consent import decide
from hica_client.federation_checks import check_federation
from hica_client.operation import admitted
from hica_client.preflight_report import Preflight
from hica_client.site import load_site

PROMISED = ["privacy.mechanism=dp-sgd", "privacy.epsilon=1.0", "privacy.delta=1e-5"]
PROMISED += ["calibration.rounds=0"]


@pytest.fixture
def site(draw_site, toy_study, lay_kit):
    """A hospital whose kit has a study without privacy, and a text that promises ε = 1."""
    site_file = draw_site("north")
    lay_kit(site_file, toy_study())
    text = study_text(toy_study(*PROMISED))
    (site_file.parent / "kit" / "study.toml").write_text(text)
    return load_site(site_file)


WORDS = (
    r"kit/study\.toml: is another study than study\.json, whose hash is approved: "
    r"calibration\.rounds = 0, in study\.json 4; privacy\.mechanism = 'dp-sgd', in study\.json "
    r"'none'; privacy\.epsilon = 1\.0, in study\.json nothing; and 1 more\. Do not approve it"
)


def test_13_approve_refuses_a_text_that_is_another_study(site, toy_study):
    """A coordinator hands out a text with ε = 1 beside a study without any privacy."""
    with pytest.raises(ConfigurationError, match=WORDS):
        decide(site, toy_study().sha256[:12], None, True, Console())
    assert not site.approvals.exists()


def test_13_check_reports_a_text_that_is_another_study(site):
    """The same kit, seen by `hica-client check`."""
    found = Preflight()
    assert check_federation(found, site, offline=True) is None
    [problem] = [each for each in found.problems if "study.toml" in str(each)]
    assert "privacy.epsilon = 1.0, in study.json nothing" in str(problem)


def test_13_run_refuses_a_text_that_is_another_study(site, tmp_path):
    """The text was changed after the approval: `hica-client run` does not start."""
    with pytest.raises(ConfigurationError, match=WORDS):
        admitted(tmp_path / "north" / "site.toml", site)


@pytest.mark.parametrize(
    "added",
    [
        "# privacy.epsilon = 1: all that leaves is private\n",
        "\n[other] # privacy = true",
        "x = 'a\"b' # epsilon = 1 \"\n",
        'x = """a"""" # epsilon = 1 "\n',
    ],
)
def test_13_a_comment_that_promises_what_the_study_does_not_hold_is_refused(
    draw_site, toy_study, lay_kit, added
):
    """The settings are right, and a comment beside them promises privacy."""
    site_file = draw_site("north")
    lay_kit(site_file, toy_study())
    text = site_file.parent / "kit" / "study.toml"
    text.write_text(f"{added}{text.read_text()}" if added[0] != "\n" else text.read_text() + added)
    with pytest.raises(ConfigurationError, match=r"study\.toml: has the comment '# .*No start kit"):
        read_kit(text.parent)


def test_13_a_kit_without_the_text_is_refused(draw_site, toy_study, lay_kit):
    """What people should read is not there at all."""
    site_file = draw_site("north")
    lay_kit(site_file, toy_study())
    (site_file.parent / "kit" / "study.toml").unlink()
    with pytest.raises(ConfigurationError, match=r"study\.toml: cannot be read: .*start kit"):
        read_kit(site_file.parent / "kit")


@pytest.mark.parametrize(
    "prompt",
    ["a # b", "two\nlines # of text", "three\r\nlines", 'a """quoted""" word', "it's ''' so"],
)
def test_13_a_right_kit_is_read_whatever_its_texts_hold(draw_site, toy_study, lay_kit, prompt):
    """No honest kit is refused for a sign in a prompt."""
    study = toy_study()
    first, *others = study.classes
    told = first.model_copy(update={"prompts": [prompt]})
    study = study.model_copy(update={"classes": [told, *others]})
    site_file = draw_site("north")
    lay_kit(site_file, study)
    assert read_kit(site_file.parent / "kit")[1] == study
