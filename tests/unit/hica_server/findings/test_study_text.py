import tomllib

import pytest

from hica_server.findings.study_text import with_findings

STUDY = """\
# a study
[study]
name = "s" # short

[[classes]]
name = "a" # first
prompts = [
  "an [a] image", # with ] in a comment
]
findings = [ # why
  "one ] two",
  "three",
] # so many

# the second
[[ classes ]]
findings = ["x"]
name = "b"
prompts = ["b"]

[[classes]]
name = "c"
prompts = ["c"]
# nothing is seen

[text]
epochs = 3 # few
"""
NEW = {"a": ["p", 'q "r"'], "b": ["x"], "c": ["v"]}


def test_only_findings_change():
    text, has_comments = with_findings(STUDY, NEW)
    assert has_comments
    wanted = tomllib.loads(STUDY)
    for item in wanted["classes"]:
        item["findings"] = NEW[item["name"]]
    assert tomllib.loads(text) == wanted
    removed = set(STUDY.splitlines()) - set(text.splitlines())
    assert removed == {"findings = [ # why", '  "one ] two",', '  "three",', "] # so many"}


def test_the_same_findings_leave_the_text_as_it_is():
    same = {"a": ["one ] two", "three"], "b": ["x"], "c": []}
    text, _ = with_findings(STUDY.replace("# nothing is seen\n", "findings = [] # none\n"), same)
    assert text == STUDY.replace("# nothing is seen\n", "findings = [] # none\n")


def test_a_class_without_findings_gets_them_after_its_last_key():
    lines = with_findings(STUDY, NEW)[0].splitlines()
    at = lines.index('prompts = ["c"]')
    assert lines[at : at + 5] == [
        'prompts = ["c"]', "findings = [", '  "v",', "]", "# nothing is seen",
    ]  # fmt: skip


@pytest.mark.parametrize("end", ["", "\n", "\n\n# end"])
def test_the_last_class_may_end_the_file(end):
    text = '[study]\nname = "s"\n[[classes]]\nname = "a"\nfindings = ["x"]' + end
    new, has_comments = with_findings(text, {"a": ["y", "z"]})
    assert has_comments
    assert tomllib.loads(new)["classes"] == [{"name": "a", "findings": ["y", "z"]}]
    assert new.endswith(end)


@pytest.mark.parametrize(
    "text",
    [
        '# c\nclasses = [{ name = "a", findings = ["x"] }]\n',
        '# c\n[[classes]]\nname = "a"\nprompts = ["""\n[[classes]]\nfindings = [1]\n"""]\n',
        '# c\n[[classes]]\nname = "a"\nprompts = [\n  ["p"],\n]\nfindings = ["x"]\n',
        '# c\n[[classes]]\nname = "a"\n"findings" = ["x"]\n',
    ],
)
def test_another_form_of_the_classes_is_written_anew_without_comments(text):
    new, has_comments = with_findings(text, {"a": ["y"]})
    assert not has_comments
    wanted = tomllib.loads(text)
    wanted["classes"][0]["findings"] = ["y"]
    assert tomllib.loads(new) == wanted
