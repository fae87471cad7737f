import json
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest
import tomli_w
import torch
from PIL import Image
from tests.unit.hica_client.hospitals import ROOT, STUDY, change, messages

from hica.deployment import lockfile
from hica.deployment.bundle import BUNDLE_SHA256
from hica.deployment.keys import fingerprint, read_public
from hica.errors import StorageError
from hica.images.manifest import read_manifest
from hica.study import load_study
from hica_client import preflight_study
from hica_client.cli import main
from hica_client.preflight_report import Preflight
from hica_client.preflight_study import cache_bytes, check_space
from hica_client.site import load_site


def test_init_writes_a_site_that_loads_and_the_manifests_header(run_command, tmp_path):
    assert run_command("init", tmp_path / "new")[0] == 0
    assert load_site(tmp_path / "new" / "site.toml").data.manifest == tmp_path / "new/manifest.csv"
    header = (tmp_path / "new" / "manifest.csv").read_text()
    assert header == "image,label,patient_id,split,mask,findings,report,dup_group\n"


def test_init_fills_the_manifest_from_folders_by_class(run_command, tmp_path):
    for label in ("normal", "pneumonia"):
        (tmp_path / "exported" / label).mkdir(parents=True)
        Image.new("L", (4, 4)).save(tmp_path / "exported" / label / "1.png")
    run_command("init", tmp_path / "new", "--images", tmp_path / "exported")
    records = read_manifest(tmp_path / "new" / "manifest.csv")
    assert [record.label for record in records] == ["normal", "pneumonia"]
    assert {record.dup_group for record in records} == {None}


def test_init_takes_images_by_content_and_says_what_it_passes_over(run_command, tmp_path):
    """`IM000001` was passed over without a word, and `__MACOSX` was a class."""
    exported = tmp_path / "exported"
    for name in ("benign/IM000001", "benign/1.IMA", "__MACOSX/benign/1.png", "benign/.hidden.png"):
        (exported / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(exported / name, "PNG")
    (exported / "benign" / "note.txt").write_text("no image")
    code, out, _ = run_command("init", tmp_path / "new", "--images", exported)
    records = read_manifest(tmp_path / "new" / "manifest.csv")
    assert code == 0
    assert [record.name for record in records] == [
        str(exported / "benign" / name) for name in ("1.IMA", "IM000001")
    ]
    assert (
        f"{exported}: passed over: 1 (left by an operating system): __MACOSX/ with 1 files" in out
    )
    assert f"{exported}: passed over: 1 (no image, by their content): benign/note.txt" in out
    assert "(hidden: the name begins with a dot): benign/.hidden.png" in out


@pytest.mark.parametrize("name", ["site.toml", "manifest.csv"])
def test_init_leaves_existing_files_alone(run_command, tmp_path, name):
    (tmp_path / name).write_text("mine")
    code, _, err = run_command("init", tmp_path)
    assert code == 2
    assert f"{tmp_path / name}: exists" in err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_every_value_the_example_shows_is_the_default(tmp_path):
    shown = load_site(ROOT / "client" / "example_site.toml")
    bare = tmp_path / "site.toml"
    bare.write_text('[site]\nname = "st-elsewhere"\n[data]\nmanifest = "manifest.csv"\n')
    defaults = load_site(bare)
    assert shown.device == defaults.device
    moved = {name: value.name if isinstance(value, Path) else value for name, value in shown.data}
    assert moved == {
        name: value.name if isinstance(value, Path) else value for name, value in defaults.data
    }


def test_a_site_that_is_ready(check, hospital):
    code, found = check(hospital)
    assert (code, found["ok"], found["problems"], found["notes"]) == (0, True, [], [])
    assert (found["images"], found["patients"], found["masks"]) == (10, 10, 1)
    assert found["labels"]["malignant"] == {"test": 2, "train": 3}
    assert (found["decoded"], found["not_square"]) == ({"8-bit grey": 10}, 10)
    assert (found["device"], found["precision"]) == ("cpu", "float32") or torch.cuda.is_available()


def test_every_image_and_mask_that_cannot_be_read_is_named(check, hospital):
    folder = hospital.parent
    (folder / "benign-1.png").write_bytes(b"")
    (folder / "malignant-2.png").write_bytes(b"")
    Image.new("L", (10, 10)).save(folder / "mask.png")
    code, found = check(hospital)
    said = messages(found)
    assert (code, found["ok"], len(said)) == (3, False, 2)
    assert "the mask is 10×10 px but its image is 48×40 px" in said[0]
    assert said[1].startswith(f"{folder / 'benign-1.png'}: ")
    assert said[1].endswith("(and so in 1 more images: malignant-2.png)")
    assert found["problems"][1]["places"] == ["benign-1.png", "malignant-2.png"]


def test_every_row_that_cannot_be_used_is_named_and_the_rest_is_read(check, hospital):
    (hospital.parent / "benign-1.png").unlink()
    (hospital.parent / "benign-2.png").write_bytes(b"")
    change(hospital, "malignant-0,train", "malignant-0,dev")
    code, found = check(hospital)
    said = messages(found)
    assert (code, len(said), found["images"]) == (3, 3, 8)
    assert "line 3: column image: benign-1.png does not exist" in said[0]
    assert "line 7: column split: 'dev'" in said[1]
    assert said[2].startswith(f"{hospital.parent / 'benign-2.png'}: ")


def test_a_missing_manifest_is_one_problem(check, hospital, study):
    (hospital.parent / "manifest.csv").unlink()
    code, found = check(hospital, "--study", study)
    assert code == 3
    assert messages(found) == [
        f"{hospital.parent / 'manifest.csv'}: manifest cannot be read: No such file or directory; "
        "name a CSV file in data.manifest of the site file"
    ]


def test_a_site_file_that_cannot_be_used_ends_with_2(check, hospital):
    change(hospital, "manifest =", "manifset =", name="site.toml")
    code, found = check(hospital)
    assert code == 2
    assert "data.manifset: unknown key; known keys: manifest" in messages(found)[0]


def test_a_device_this_machine_lacks_is_listed_beside_the_rest(check, hospital):
    change(hospital, '"auto"', '"cuda:99"', name="site.toml")
    (hospital.parent / "benign-1.png").write_bytes(b"")
    code, found = check(hospital)
    assert code == 2
    assert "device 'cuda:99'" in messages(found)[0]
    assert "benign-1.png" in messages(found)[1]


def test_a_folder_that_cannot_be_written(check, hospital):
    (hospital.parent / "cache").write_text("a file in its place")
    code, found = check(hospital)
    assert code == 7
    assert str(hospital.parent / "cache") in messages(found)[0]


def test_images_without_patient_are_noted(check, hospital):
    change(hospital, "malignant-0.png,malignant,malignant-0", "malignant-0.png,malignant,")
    code, found = check(hospital)
    assert code == 0
    assert "1 images have no patient_id" in found["notes"][0]


def test_with_a_study_that_fits(check, hospital, study):
    code, found = check(hospital, "--study", study)
    assert (code, found["problems"], found["notes"]) == (0, [], [])
    assert found["study_sha256"] == load_study(study).sha256
    assert found["shots"] == {"benign": 2, "malignant": 2}
    assert (found["train"], found["test"]) == (6, 4)
    assert len(found["image_tower"]) == 64
    assert found["preprocess"]["size"] == "64 (built in)"
    assert found["preprocess"]["resize"] == "squash, which loses the aspect ratio (built in)"


def test_a_study_that_is_not_the_kits_is_a_problem(check, enrolled_site, toy_study, tmp_path):
    path = tmp_path / "other.toml"
    other = toy_study("alignment.shots=5")
    path.write_text(tomli_w.dumps(other.model_dump(mode="json", exclude_none=True)))
    code, found = check(enrolled_site, "--offline", "--study", path)
    [words] = [text for text in messages(found) if "another study than that of" in text]
    assert code == 2
    assert words.startswith(f"{path}: ") and "alignment.shots = 5, in " in words
    path.write_text(tomli_w.dumps(toy_study().model_dump(mode="json", exclude_none=True)))
    assert check(enrolled_site, "--offline", "--study", path)[0] == 0


def test_a_class_with_too_few_images_and_an_unknown_finding_are_noted(check, hospital, study):
    change(hospital, "oval shape", "round shape|oval shape")
    study.write_text(STUDY.replace("shots = 2", "shots = 20"))
    code, found = check(hospital, "--study", study)
    assert code == 0
    assert found["shots"] == {"benign": 3, "malignant": 3}
    unknown, short = found["notes"]
    assert unknown == "findings the study does not name are passed over: ['round shape']"
    assert "fewer than 20 training images of benign, malignant" in short


def test_a_site_without_labels_takes_part_in_stage_1_only(check, hospital, study):
    change(hospital, ",benign,", ",,")
    change(hospital, ",malignant,", ",,")
    code, found = check(hospital, "--study", study)
    assert code == 0
    assert found["notes"][-1] == "has no labelled training image: takes part in stage 1 only"


def test_labels_the_study_does_not_know_and_a_shared_patient_are_problems(check, hospital, study):
    change(hospital, "benign-1.png,benign", "benign-1.png,bening")
    _, found = check(hospital, "--study", study)
    assert len(messages(found)) == 1
    assert "not classes of the study: 'bening' (1)" in messages(found)[0]

    change(hospital, "benign-1.png,bening", "benign-1.png,benign")
    change(hospital, "malignant-4,test", "malignant-0,test")
    code, found = check(hospital, "--study", study)
    assert code == 3
    assert "both sides of the split: ['patient:malignant-0']" in messages(found)[0]


def test_a_split_that_holds_out_nobody_or_is_half_given_is_a_problem(check, hospital):
    """It said `ready`, and the site had no test."""
    text = (hospital.parent / "manifest.csv").read_text()
    (hospital.parent / "manifest.csv").write_text(text.replace(",test,", ",train,"))
    code, found = check(hospital)
    assert code == 3
    assert "column split: no labelled row is of the test" in messages(found)[0]
    (hospital.parent / "manifest.csv").write_text(text.replace(",test,", ",,"))
    code, found = check(hospital)
    assert code == 3
    assert "column split: empty in 4 labelled rows" in messages(found)[0]


def test_missing_weights_are_listed_beside_what_else_is_wrong(check, hospital, study):
    (hospital.parent / "benign-1.png").write_bytes(b"")
    pinned = f'image = "timm/mobilenetv2_100"\ncheckpoint = "w.safetensors"\nsha256 = "{"0" * 64}"'
    study.write_text(STUDY.replace("[model]\n", f"[model]\n{pinned}\n"))
    code, found = check(hospital, "--study", study)
    assert code == 3
    assert "benign-1.png" in messages(found)[0]
    assert f"{hospital.parent / 'weights' / 'w.safetensors'}: no such weights" in messages(found)[1]
    (hospital.parent / "weights").mkdir()
    (hospital.parent / "weights" / "w.safetensors").write_bytes(b"other weights")
    assert "expected sha256 0000" in messages(check(hospital, "--study", study)[1])[1]


def test_missing_weights_of_the_region_method(check, hospital, study):
    study.write_text(STUDY + '[regions]\nmethod = "sam"\ncheckpoint = "sam.pth"\n')
    code, found = check(hospital, "--study", study)
    assert code == 4
    assert str(hospital.parent / "weights" / "sam.pth") in messages(found)[0]


def test_a_study_that_cannot_be_read_does_not_keep_the_site_from_being_checked(check, hospital):
    (hospital.parent / "benign-1.png").write_bytes(b"")
    code, found = check(hospital, "--study", hospital.parent / "gone.toml")
    assert code == 2
    assert "gone.toml: no such file" in messages(found)[0]
    assert "benign-1.png" in messages(found)[1]


@pytest.mark.parametrize("train", ["full", "last-1", "adapter"])
def test_a_run_puts_into_the_cache_what_was_foreseen(hospital, study, train):
    """To the byte, but for the files' headers; images met in two roles share their pixels."""
    import torch

    from hica.towers.from_study import adapted_tower
    from hica_client.session import Session

    chosen = load_study(study, [f"model.train={train}", 'regions.method="grid"'])
    session = Session(load_site(hospital), chosen)
    for part in ("labelled", "unlabelled", "test"):
        session.examples(part)
    files = list(session.site.data.cache.rglob("*.safetensors"))
    held = sum(file.stat().st_size for file in files)
    tower = adapted_tower(chosen, Path(), torch.device("cpu"))
    needed = cache_bytes(chosen, tower, len(session.roles.train), len(session.roles.test))
    headers = 500 * len(files)
    assert needed <= held <= needed + headers


def test_a_disk_too_small_for_the_cache(tmp_path, monkeypatch):
    found = Preflight()
    monkeypatch.setattr(
        preflight_study.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1)
    )
    (tmp_path / "a.safetensors").write_bytes(b"12")
    check_space(found, tmp_path, needed=3)
    with pytest.raises(StorageError, match=r"data\.cache"):
        check_space(found, tmp_path, needed=4)


def test_what_a_person_sees(run_command, hospital, study):
    (hospital.parent / "benign-1.png").write_bytes(b"")
    code, out, err = run_command("check", hospital, "--study", study)
    assert code == 3
    assert "decoding images and masks" in err
    lines = " ".join(out.split())
    assert "st-elsewhere" in lines
    assert f"problem {hospital.parent / 'benign-1.png'}: " in lines
    assert lines.endswith("1 to mend")


def test_the_version_names_all_that_has_to_fit_the_coordinator(run_command):
    code, out, _ = run_command("--version")
    assert code == 0
    assert out == f"hica {version('hica')}\nflwr {version('flwr')}\nbundle {BUNDLE_SHA256}\n"


def test_keygen_makes_the_pair_and_says_what_to_send(run_command, hospital):
    code, out, _ = run_command("keygen", hospital)
    key = hospital.parent / "keys" / "site"
    assert code == 0
    assert fingerprint(read_public(key.with_suffix(".pub"))) in out
    assert f"send to the coordinator  {key}.pub" in out
    assert key.stat().st_mode & 0o777 == 0o600
    private = key.read_bytes()
    code, _, err = run_command("keygen", hospital)
    assert (code, key.read_bytes()) == (2, private)
    assert "exists and is left alone" in err


@pytest.mark.parametrize(
    "verb",
    [
        "init",
        "import",
        "check",
        "keygen",
        "approve",
        "run",
        "status",
        "audit",
        "ledger",
        "export",
        "verify",
    ],
)
def test_every_verb_shows_an_example(run_command, verb):
    code, out, _ = run_command(verb, "--help")
    assert code == 0
    assert f"Example: hica-client {verb}" in " ".join(out.split())


def test_the_key_as_json(run_command, draw_site):
    made = json.loads(run_command("keygen", draw_site("north"), "--json")[1])
    assert made["fingerprint"].startswith("SHA256:") and Path(made["public_key"]).exists()


def test_where_no_client_runs_there_is_none_to_stop(run_command, enrolled_site):
    assert run_command("stop", enrolled_site)[1] == "not running\n"
    assert json.loads(run_command("stop", enrolled_site, "--json")[1]) == {"stopped": False}


def test_stop_ends_the_client_of_this_site(run_command, enrolled_site, monkeypatch):
    lock = load_site(enrolled_site).service / "lock"
    ended = []
    monkeypatch.setattr(lockfile, "end_holder", lambda path: ended.append(path) or True)
    assert run_command("stop", enrolled_site)[1] == "stopped\n"
    assert ended == [lock]


def test_before_the_first_run_there_are_no_logs(run_command, enrolled_site):
    code, _, err = run_command("logs", enrolled_site)
    assert code == 2 and f"they are written by: hica-client run {enrolled_site}" in err


def test_the_logs_of_both_processes_are_shown(enrolled_site, capfd):
    logs = load_site(enrolled_site).service / "logs"
    logs.mkdir(parents=True)
    for name in ("supernode", "runner"):
        (logs / f"{name}.log").write_text(f"{name} says\n")
    with pytest.raises(SystemExit):
        main(["logs", str(enrolled_site), "--lines", "1"])
    out = capfd.readouterr().out
    assert "supernode says" in out and "runner says" in out
