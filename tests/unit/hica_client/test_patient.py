import pytest
from tests.unit.hica_client.manifests import give, rows_of, write_rows

from hica_client.cli import main
from hica_client.draws import site_roles
from hica_client.session import Session
from hica_client.site import load_site
from hica_client.withdrawal import withdraw

FREE = ("federation.min_count=1", "alignment.shots=3")


@pytest.fixture
def site(draw_site):
    """Images 0 to 7 are for training, 8 to 15 held out, each of a patient of its own."""
    return load_site(draw_site("north"))


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main(list(map(str, arguments)))
    return end.value.code, capsys.readouterr()


@pytest.mark.parametrize("renamed", [False, True])
def test_an_image_that_was_taken_for_the_patient_s_by_mistake_stays_another_s(
    site, draw_site, toy_study, capsys, renamed
):
    session = Session(site, toy_study(*FREE))
    give(site, "5.png", "p3")
    Session(site, toy_study(*FREE))
    give(site, "5.png", "p5")
    if renamed:
        folder = site.data.manifest.parent
        (folder / "5.png").rename(folder / "five.png")
        text = site.data.manifest.read_text()
        site.data.manifest.write_text(text.replace("\n5.png", "\nfive.png"))
    code, said = run(capsys, "withdraw", site.file, "p3", "--yes")
    name = "five.png" if renamed else "5.png"
    assert code == 0
    assert "1 images; rows of the manifest: 3.png; left alone, as they are of another" in said.out
    assert f"patient now: {name}" in said.out
    assert name in [row.name for row in site_roles(site, session.study, keep=True).pool]
    assert name in [row["image"] for row in rows_of(site)]


def test_of_an_image_that_is_of_nobody_now_what_was_said_before_decides(site, toy_study):
    session = Session(site, toy_study(*FREE))
    give(site, "3.png", "")
    assert withdraw(site, "p3", "somebody").rows.keys() == {"3.png"}
    assert "3.png" not in [row["image"] for row in rows_of(site)]
    assert len(site_roles(site, session.study, keep=True).pool) == 7


def test_a_row_whose_file_is_away_is_named_and_nothing_is_done(site, capsys):
    """Zero images were recorded; when the share was there again, the patient was trained on."""
    give(site, "4.png", "p3")
    (site.data.manifest.parent / "3.png").rename(site.data.manifest.parent / "away.png")
    code, said = run(capsys, "withdraw", site.file, "p3", "--yes")
    assert code == 3
    assert "the files of these rows of 'p3' cannot be read: 3.png. Nothing was done" in said.err
    assert not site.withdrawals.exists() and len(rows_of(site)) == 16


def test_a_file_that_is_away_is_known_by_what_was_drawn_and_stays_out_when_it_is_back(
    site, toy_study
):
    study, file = toy_study(*FREE), site.data.manifest.parent / "3.png"
    Session(site, study)
    manifest = site.data.manifest.read_bytes()
    file.rename(file.with_name("away.png"))
    assert withdraw(site, "p3", "somebody").rows.keys() == {"3.png"}
    file.with_name("away.png").rename(file)
    site.data.manifest.write_bytes(manifest)
    for each in (study, toy_study(*FREE, "study.seed=5")):
        assert "3.png" not in [row.name for row in site_roles(site, each, keep=True).pool]


def test_an_image_without_patient_that_has_left_the_manifest_is_withdrawn_by_its_name(
    site, toy_study
):
    study = toy_study(*FREE)
    give(site, "3.png", "")
    state = Session(site, study).state
    write_rows(site, [row for row in rows_of(site) if row["image"] != "3.png"])
    assert len(withdraw(site, "3.png", "somebody").images) == 1
    assert '"3.png"' not in (state / "draw.json").read_text()
