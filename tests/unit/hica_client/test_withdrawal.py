import csv
import json
import shutil

import numpy as np
import pytest
from tests.unit.hica_client.manifests import rows_of, write_rows

from hica.cohort.draw import hash_of
from hica.errors import DataError, StorageError
from hica.images.cache import file_sha256
from hica.images.manifest import read_manifest
from hica.wire.checkpoint import load_state
from hica_client.app import session_for
from hica_client.cli import main
from hica_client.draws import site_roles
from hica_client.preflight_report import Preflight
from hica_client.preflight_study import check_shots
from hica_client.session import Session
from hica_client.site import load_site
from hica_client.withdrawal import withdraw, withdrawn

FREE = ("federation.min_count=1", "alignment.shots=3")


@pytest.fixture
def site(draw_site):
    """Images 0 to 7 are for training, 8 to 15 held out, each of a patient of its own."""
    return load_site(draw_site("north"))


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main(list(map(str, arguments)))
    return end.value.code, capsys.readouterr()


def kept_words(folder):
    """All text that stands in a folder's files, whatever they are."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_patient_is_out_of_manifest_cache_draw_and_every_kept_label(site, toy_study):
    session = Session(site, toy_study(*FREE))
    images = session.images("unlabelled")
    row = next(row for row in session.roles.pool if row.name == "3.png")
    image, number = hash_of(row), session.roles.pool.index(row)
    labels = np.arange(len(images))
    for _ in range(2):  # so that there is a state before the last one
        session.keep({"pseudo_labels": {"labels": labels, "images": images}}, "a question")
    session.keep({"centre": {"centre": np.ones((2, 3))}}, "another")
    assert list(site.data.cache.glob(f"*/{image}-*"))
    assert image in (session.state / "draw.json").read_text()

    assert len(withdraw(site, "p3", "somebody").images) == 1

    assert b"\n3.png" not in site.data.manifest.read_bytes()
    assert not list(site.data.cache.rglob(f"{image}*"))
    assert len(list(site.data.cache.rglob("*.safetensors"))) > 6
    draw = (session.state / "draw.json").read_text()
    assert image not in draw and '"3.png"' not in draw and '"patient:p3"' not in draw
    assert json.loads(draw)["withdrawn"] == 1
    for name in ("pseudo_labels", "pseudo_labels.previous"):
        arrays, meta = load_state(session.state, name)
        assert arrays["labels"].tolist() == [each for each in labels if each != number]
        assert meta == {"question": "a question"}
        assert bytes.fromhex(image) not in kept_words(session.state)
    assert load_state(session.state, "centre")[0]["centre"].shape == (2, 3)


def test_the_rounds_that_follow_are_without_the_patient_also_of_a_client_that_runs(
    site, draw_site, toy_study, tmp_path
):
    path, study = tmp_path / "north" / "site.toml", toy_study(*FREE)
    request = type("Asked", (), {"study": study})
    before = session_for(path, site, request)
    assert session_for(path, site, request) is before
    told = before.capabilities()
    withdraw(site, "p3", "somebody")
    after = session_for(path, site, request)
    assert [row.name for row in after.roles.pool] == [
        row.name for row in before.roles.pool if row.name != "3.png"
    ]
    assert after.roles.withdrawn == 1
    now = after.capabilities()
    assert now.pop("notes") != told.pop("notes")
    assert now == told  # nothing that is told says which class it was
    assert session_for(path, site, request) is after


def test_an_edit_of_the_manifest_is_seen_by_a_client_that_runs(site, toy_study, tmp_path):
    path, request = tmp_path / "north" / "site.toml", type("Asked", (), {"study": toy_study(*FREE)})
    before = session_for(path, site, request)
    rows = site.data.manifest.read_text().splitlines(keepends=True)
    site.data.manifest.write_text("".join(row for row in rows if not row.startswith("3.png")))
    after = session_for(path, site, request)
    assert len(after.roles.pool) == len(before.roles.pool) - 1
    site.data.manifest.write_text("image,label\nnowhere.png,round\n")
    with pytest.raises(DataError, match="nowhere"):
        session_for(path, site, request)
    site.data.manifest.unlink()
    with pytest.raises(DataError, match="manifest"):
        session_for(path, site, request)


def test_a_damaged_model_of_a_study_that_is_over_does_not_keep_a_patient_in(site, toy_study):
    study = toy_study(*FREE)
    model = Session(site, study).state / "model.safetensors"
    model.write_text("x")
    withdraw(site, "p3", "somebody")
    assert Session(site, study).roles.withdrawn == 1
    assert model.read_text() == "x"  # and can be written again when the end is told again


def test_who_was_held_out_is_not_tested_any_more(site, toy_study):
    study = toy_study(*FREE)
    Session(site, study)
    withdraw(site, "p9", "somebody")
    assert [row.name for row in Session(site, study).roles.test] == [
        f"{number}.png" for number in (8, 10, 11, 12, 13, 14, 15)
    ]


def test_who_withdrew_comes_back_under_no_other_name_and_in_no_later_study(site, toy_study):
    shutil.copy(site.data.manifest.parent / "3.png", site.data.manifest.parent / "again.png")
    withdraw(site, "p3", "somebody")
    with site.data.manifest.open("a") as file:
        file.write("again.png,square,p99,train,\n3.png,square,p3,train,\n")
    assert len(read_manifest(site.data.manifest)) == 17
    roles = site_roles(site, toy_study(*FREE, "study.seed=5"), keep=True)
    assert len(roles.pool) == 7
    assert roles.withdrawn == 0  # of this study nobody did


def test_the_record_holds_hashes_and_who_did_it_and_not_the_patient(site):
    image = file_sha256(site.data.manifest.parent / "3.png")
    withdraw(site, "p3", "somebody")
    (entry,) = map(json.loads, site.withdrawals.read_text().splitlines())
    assert (entry["images"], entry["user"]) == ([image], "somebody")
    assert "p3" not in site.withdrawals.read_text()
    assert withdrawn(site)[0].images == {image}


def test_a_record_that_was_changed_is_named(site, toy_study):
    withdraw(site, "p3", "somebody")
    site.withdrawals.write_text("")
    with pytest.raises(DataError, match=r"withdrawals\.jsonl: ends after entry 0.*Restore it"):
        Session(site, toy_study(*FREE))


def test_a_file_that_is_gone_already_is_still_taken_out_of_what_is_kept(site, toy_study):
    session = Session(site, toy_study(*FREE))
    (site.data.manifest.parent / "3.png").unlink()
    assert len(withdraw(site, "p3", "somebody").images) == 1
    assert '"patient:p3"' not in (session.state / "draw.json").read_text()
    assert len(Session(site, toy_study(*FREE)).roles.pool) == 7


def test_interrupted_after_the_record_the_next_session_does_the_rest(site, toy_study, monkeypatch):
    session = Session(site, toy_study(*FREE))

    def full(path, images):
        raise StorageError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("hica_client.withdrawal.take_out", full)
        with pytest.raises(StorageError):
            withdraw(site, "p3", "somebody")
    roles = Session(site, toy_study(*FREE)).roles
    assert len(roles.pool) == 7 and roles.withdrawn == 1
    assert '"patient:p3"' not in (session.state / "draw.json").read_text()
    withdraw(site, "p3", "somebody")  # the same command goes on
    assert b"\n3.png" not in site.data.manifest.read_bytes()
    assert Session(site, toy_study(*FREE)).roles.withdrawn == 1


def test_what_a_round_under_way_writes_of_a_withdrawn_patient_goes_with_the_next_session(
    site, toy_study
):
    session = Session(site, toy_study(*FREE))
    images = session.images("unlabelled")
    image = file_sha256(site.data.manifest.parent / "3.png")
    withdraw(site, "p3", "somebody")
    session.keep({"pseudo_labels": {"labels": np.arange(8), "images": images}}, "a question")
    again = Session(site, toy_study(*FREE))
    assert len(again.kept("pseudo_labels")["labels"]) == 7
    assert bytes.fromhex(image) not in kept_words(session.state)


def test_an_image_without_patient_is_withdrawn_by_its_name(site, toy_study):
    with site.data.manifest.open() as file:
        rows = list(csv.reader(file))
    rows[4][2] = ""
    site.data.manifest.write_text("\n".join(map(",".join, rows)) + "\n")
    withdraw(site, "3.png", "somebody")
    assert len(Session(site, toy_study(*FREE)).roles.pool) == 7


@pytest.mark.parametrize("more", [False, True])
def test_a_patient_is_counted_once_however_often_the_command_failed(
    site, toy_study, monkeypatch, more
):
    """Two tries on a full disk and a good one were three patients."""
    Session(site, toy_study(*FREE))

    def full(*_):
        raise StorageError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("hica_client.withdrawal.prune", full)
        patch.setattr("hica_client.withdrawal.take_out", full)
        for _ in range(2):
            with pytest.raises(StorageError):
                withdraw(site, "p3", "somebody")
    if more:  # than was known before
        rows = rows_of(site)
        rows[4]["patient_id"] = "p3"
        write_rows(site, rows)
    withdraw(site, "p3", "somebody")
    withdraw(site, "p9", "somebody")
    roles = Session(site, toy_study(*FREE)).roles
    assert (roles.withdrawn, len(roles.pool)) == (2, 6 if more else 7)


# --- What cannot be read -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["draw.json", "pseudo_labels.safetensors"])
def test_what_is_damaged_of_one_study_keeps_no_patient_in(site, toy_study, capsys, name):
    one, other = (Session(site, toy_study(*FREE, f"study.seed={seed}")) for seed in (0, 1))
    labels = {"labels": np.arange(8), "images": one.images("unlabelled")}
    for session in (one, other):
        session.keep({"pseudo_labels": labels}, "a question")
    (one.state / name).write_bytes(b"")
    code, said = run(capsys, "withdraw", site.file, "p3", "--yes")
    assert code == 4
    assert "1 images of 'p3' are recorded as withdrawn" in said.err and str(one.state) in said.err
    assert "give the same command again" in said.err and "cannot" not in said.out
    assert "3.png" not in [row["image"] for row in rows_of(site)]
    assert len(Session(site, other.study).roles.pool) == 7


def test_who_is_in_a_draw_only_is_withdrawn_beside_an_empty_manifest(site, toy_study):
    state = Session(site, toy_study(*FREE)).state
    write_rows(site, [])
    for patient in ("p3", "p4"):
        assert len(withdraw(site, patient, "somebody").images) == 1
    assert json.loads((state / "draw.json").read_text())["withdrawn"] == 2


def test_beside_a_manifest_that_cannot_be_read_what_was_drawn_is_withdrawn_and_that_is_said(
    site, toy_study
):
    state = Session(site, toy_study(*FREE)).state
    site.data.manifest.write_bytes(b"\xe4\xfe")
    with pytest.raises(DataError, match=r"1 images of 'p3' are recorded.*not UTF-8"):
        withdraw(site, "p3", "somebody")
    assert json.loads((state / "draw.json").read_text())["withdrawn"] == 1


def test_check_says_how_many_have_withdrawn_in_the_study(site, toy_study):
    study = toy_study(*FREE)
    Session(site, study)
    withdraw(site, "p3", "somebody")
    assert site_roles(site, study, keep=False).withdrawn == 1
    found = Preflight()
    check_shots(found, site, study)
    assert "1 patients have withdrawn since the study was drawn here" in found.notes


# --- The command ---------------------------------------------------------------------------------


def test_the_command_asks_says_what_remains_and_is_told_in_json(draw_site, capsys, monkeypatch):
    path = draw_site("north")
    monkeypatch.setattr("sys.stdin", None)
    code, said = run(capsys, "withdraw", path, "p3", "--yes")
    assert code == 0
    assert (
        "p3: taken out: 1 images; rows of the manifest: 3.png. Logged in" in said.out
        and "cannot be" not in said.err
    )
    assert "What remains: weights and sums that left this site before" in said.out
    code, said = run(capsys, "withdraw", path, "p4", "--yes", "--json")
    told = json.loads(said.out)
    assert code == 0 and (told["images"], told["rows"], told["left"]) == (1, ["4.png"], [])


def test_without_consent_nothing_is_done(draw_site, capsys, monkeypatch):
    path = draw_site("north")
    monkeypatch.setattr("typer.confirm", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run(capsys, "withdraw", path, "p3")[0] == 130
    assert not load_site(path).withdrawals.exists()
    assert len(read_manifest(load_site(path).data.manifest)) == 16


def test_an_unknown_patient_is_said_and_nothing_is_written(draw_site, capsys):
    path = draw_site("north")
    code, said = run(capsys, "withdraw", path, "nobody", "--yes")
    assert code == 3 and "no image of the patient 'nobody': give the patient_id" in said.err
    assert not load_site(path).withdrawals.exists()
