"""`hica-client verify` and what `export` refuses; what it writes is in tests/integration."""

import json

import pytest

from hica.deployment.keys import fingerprint, generate, read_private
from hica.export import folder as forms
from hica.export.manifest import write_manifest

SAID = dict.fromkeys(("study", "study_sha256", "exported_by", "made", "hica"), "toy")


@pytest.fixture
def exported(enrolled_site, toy_study, unpack_kit, tmp_path):
    """A folder that the coordinator of the site's start kit has signed."""
    public = generate(tmp_path / "coordinator")
    unpack_kit(enrolled_site, toy_study(), coordinator_key=public.openssh)
    made = tmp_path / "model"
    made.mkdir()
    (made / "weights").write_text("learnt")
    write_manifest(made, read_private(tmp_path / "coordinator"), **SAID)
    return made, fingerprint(public)


def test_a_hospital_knows_its_coordinators_signature(run_command, enrolled_site, exported):
    folder, signer = exported
    code, out, _ = run_command("verify", folder)
    assert code == 0 and signer in out and "by telephone" in out
    for site in (enrolled_site, enrolled_site.parent):
        code, out, _ = run_command("verify", folder, "--site", site)
        assert code == 0 and signer in out and "by telephone" not in out
    code, out, _ = run_command("verify", folder, "--json")
    assert json.loads(out) == {"files": 1, "signer": signer, **SAID}


def test_a_signature_of_another_than_the_coordinator_is_told(
    run_command, enrolled_site, exported, tmp_path
):
    folder, signer = exported
    for name in ("manifest.json", "manifest.sig"):
        (folder / name).unlink()
    write_manifest(folder, read_private(enrolled_site.parent / "keys" / "site"), **SAID)
    code, _, err = run_command("verify", folder, "--site", enrolled_site)
    assert code == 3 and f"and not by {signer}" in err


def test_a_study_that_is_not_over_has_no_model(run_command, enrolled_site, tmp_path):
    code, _, err = run_command("export", enrolled_site, "--to", tmp_path / "model")
    assert code == 6 and "has left no model here yet" in err
    assert not (tmp_path / "model").exists()


def test_a_library_that_is_missing_is_told_first(run_command, enrolled_site, tmp_path, monkeypatch):
    monkeypatch.setattr(forms, "LIBRARIES", ("no_such_library",))
    code, _, err = run_command("export", enrolled_site, "--to", tmp_path / "model")
    assert code == 2 and "no_such_library: not installed" in err


def test_a_site_without_models_of_its_own_is_told(monkeypatch):
    from types import SimpleNamespace

    from hica.errors import FederationError
    from hica_client.prediction.models import SiteModels

    models = SiteModels.__new__(SiteModels)
    models._kept = {"shared": {}}
    models.session = SimpleNamespace(
        name="north", study=SimpleNamespace(study=SimpleNamespace(name="toy"))
    )
    with pytest.raises(FederationError, match=r"north: has no model of its own.*'toy'"):
        models.by_itself("personal")
