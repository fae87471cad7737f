import pytest

from hica_simulations.experiments.tables import descriptors


@pytest.mark.parametrize(
    "name",
    [
        "breast_ultrasound",
        "breast_lesions",
        "pneumonia",
        "pneumonia_kinds",
        "tuberculosis",
        "chest_xray",
        "phantoms",
    ],
)
def test_findings_alone_differ(loaded, name):
    lines = loaded(descriptors, name)
    assert list(lines) == ["curated", "templates", "random words", "none"]
    own = lines["curated"].study.classes
    for each in lines.values():
        assert [item.prompts for item in each.study.classes] == [item.prompts for item in own]
        assert [item.healthy for item in each.study.classes] == [item.healthy for item in own]
    assert lines["templates"].study.classes[0].findings[0].startswith(f"shape of {own[0].name}")
    counts = [[len(i.findings) for i in s.study.classes] for s in lines.values()]
    assert counts[2] == counts[0] and not any(counts[3])
    assert not set(lines["random words"].study.finding_names) & set(
        lines["curated"].study.finding_names
    )


def test_no_manifest_names_findings_that_are_gone(loaded):
    lines = loaded(descriptors, "breast_ultrasound")
    sites = {name: each.simulation.sites[-1] for name, each in lines.items()}
    assert all(sites["curated"].findings.values())
    assert not any(any(sites[name].findings.values()) for name in list(lines)[1:])
    assert sites["none"].name == "breast" and sites["none"].manifest == "bus_breast/manifest.csv"
