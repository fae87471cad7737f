from hica.study import Study
from hica_server.findings.template import ASPECTS, template_findings


def test_each_class_has_each_aspect_in_the_modality_of_the_study(study):
    findings = template_findings(study)
    assert list(findings) == study.class_names
    assert findings["benign"][0] == "shape of benign in breast ultrasound"
    assert all(len(listed) == len(ASPECTS) for listed in findings.values())


def test_a_study_without_a_modality_names_none(toy_study):
    study: Study = toy_study()
    assert template_findings(study)["round"][-1] == "location of round"
