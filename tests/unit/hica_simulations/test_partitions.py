from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from hica.errors import ConfigurationError, DataError, StorageError
from hica.images.episodes import draw_episode
from hica.images.manifest import read_manifest
from hica_simulations.partitions import build_sites, pooled_folders
from hica_simulations.scenario import load_scenario

STUDY = """
[study]
name = "test"
[[classes]]
name = "normal"
prompts = ["a normal image"]
findings = ["clear"]
[[classes]]
name = "abnormal"
prompts = ["an abnormal image"]
findings = ["round opacity", "blurred outline"]
[alignment]
shots = 3
[simulation]
test_fraction = 0.4
labels = { normal = "normal", bacterial = "abnormal", viral = "abnormal" }
"""
THIRDS = "".join(
    f'[[simulation.sites]]\nname = "s{k}"\nmanifest = "set/manifest.csv"\npart = "{k}/3"\n'
    for k in (1, 2, 3)
)
SHARED = Path(__file__).parents[4] / "shared" / "data"


def write_set(folder, rows):
    """A set of empty files: partitions read names only."""
    folder.mkdir(parents=True)
    for row in rows:
        (folder / row["image"]).touch()
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, sorted({key for row in rows for key in row}))
        writer.writeheader()
        writer.writerows(rows)


def numbered(count):
    """Two images a patient; labels in turn; the last patients' are the official test."""
    labels = ("normal", "bacterial", "viral")
    return [
        {
            "image": f"{n:03d}.png",
            "label": labels[n // 2 % 3],
            "patient_id": f"p{n // 2}",
            "split": "test" if n >= 3 * count // 4 else "train",
            "margin": "not sharp - blurred&angular" if n % 2 else "sharp",
            "hospital": "a" if n // 2 % 2 else "b",
        }
        for n in range(count)
    ]


@pytest.fixture
def build(tmp_path):
    data = tmp_path / "data"
    write_set(data / "set", numbered(72))
    write_set(data / "other", numbered(24))

    def build(text, *overrides, out=tmp_path / "out", data=data):
        path = tmp_path / "study.toml"
        path.write_text(STUDY + text)
        scenario = load_scenario(path, list(overrides))
        return scenario, build_sites(scenario, data, out)

    return build


def rows(folder, split=None):
    return [r for r in read_manifest(folder.manifest) if split is None or r.split == split]


def test_parts_share_out_every_image_once_and_every_label_evenly(build):
    _, folders = build(THIRDS)
    images = Counter(Path(record.name).name for folder in folders for record in rows(folder))
    assert images == Counter({row["image"]: 1 for row in numbered(72)})
    for folder in folders:
        assert Counter(r.label for r in rows(folder)) == {"normal": 8, "abnormal": 16}
        train, test = rows(folder, "train"), rows(folder, "test")
        assert folder.labelled == len(train) and folder.test == len(test)
        assert {r.group for r in train}.isdisjoint(r.group for r in test)
        assert len(test) == pytest.approx(0.4 * 24, abs=2)
        assert all(record.image.is_file() for record in train + test)


def test_the_split_is_fixed_by_its_own_seed(build, tmp_path):
    def tests(*overrides, out):
        return [
            {r.name for r in rows(folder, "test")}
            for folder in build(THIRDS, *overrides, out=tmp_path / out)[1]
        ]

    assert tests(out="a") == tests("study.seed=7", out="b")
    assert tests(out="a") != tests("simulation.split_seed=7", out="c")


def test_manifests_do_not_depend_on_where_the_data_lies(build, tmp_path):
    _, here = build(THIRDS)
    (tmp_path / "data").rename(tmp_path / "moved")
    _, there = build(THIRDS, out=tmp_path / "elsewhere", data=tmp_path / "moved")
    for one, other in zip(here, there, strict=True):
        assert one.manifest.read_bytes() == other.manifest.read_bytes()


def test_labels_and_findings_are_translated_by_whole_terms(build):
    _, (folder,) = build(
        """
        [[simulation.sites]]
        name = "a"
        manifest = "set/manifest.csv"
        labels = { bacterial = "abnormal", normal = "normal" }
        findings.margin = { sharp = "round opacity", blurred = "blurred outline" }
        """
    )
    source = {row["image"]: row for row in numbered(72)}
    for record in rows(folder):
        row = source[Path(record.name).name]
        assert record.label == {"normal": "normal", "bacterial": "abnormal"}[row["label"]]
        # "not sharp" is not "sharp".
        sharp = row["margin"] == "sharp"
        assert record.findings == (("round opacity",) if sharp else ("blurred outline",))
    assert len(rows(folder)) == 48  # viral is not in the site's own map


def test_official_test_rows_are_kept_and_their_patients_not_trained_on(build, tmp_path):
    mixed = numbered(24)
    mixed[-2]["split"] = "train"  # its patient's other image is in the official test
    write_set(tmp_path / "data" / "mixed", mixed)
    _, (folder,) = build(
        """
        [[simulation.sites]]
        name = "a"
        manifest = "mixed/manifest.csv"
        test_where = { split = "test" }
        """
    )
    assert [Path(r.name).name for r in rows(folder, "test")] == [
        row["image"] for row in mixed if row["split"] == "test"
    ]
    assert len(rows(folder)) == 23


def test_a_site_may_be_without_labels_but_is_tested(build):
    _, folders = build(THIRDS + "labelled = false\n")
    assert [folder.labelled > 0 for folder in folders] == [True, True, False]
    assert all(record.label is None for record in rows(folders[2], "train"))
    assert folders[2].test == len([r for r in rows(folders[2], "test") if r.label])


def test_without_unlabelled_images_a_site_holds_its_shots_and_tests(build, tmp_path):
    scenario, everything = build(THIRDS)
    _, shots = build(THIRDS, "simulation.unlabelled=false", out=tmp_path / "shots")
    for full, few in zip(everything, shots, strict=True):
        train = rows(full, "train")
        episode = draw_episode(train, scenario.study.class_names, 3, 0)
        assert {r.name for r in rows(few, "train")} == {train[i].name for i in episode.indices}
        assert rows(few, "test") != []


def test_pooled_training_uses_exactly_the_sites_shots(build, tmp_path):
    text = THIRDS + '[[simulation.sites]]\nname = "other"\nmanifest = "other/manifest.csv"\n'
    scenario, folders = build(text, "study.seed=5")
    study = scenario.study
    pooled, *tested = pooled_folders(folders, study, tmp_path / "pooled")
    expected = set()
    for folder in folders:
        train = rows(folder, "train")
        for index in draw_episode(train, study.class_names, 3, 5).indices:
            expected.add((train[index].image.resolve(), train[index].label))
    records = rows(pooled)
    shots = draw_episode(records, study.class_names, 3 * len(folders), 5).indices
    assert {(records[i].image.resolve(), records[i].label) for i in shots} == expected
    assert pooled.labelled == len(expected) == 24
    assert len(records) == sum(len(rows(folder, "train")) for folder in folders)
    # Patients p0, p1, ... of `set` and `other` are different people.
    assert len({r.group for r in records}) == sum(
        len({r.group for r in rows(folder, "train")}) for folder in folders
    )
    for before, after in zip(folders, tested, strict=True):
        assert (after.name, after.labelled, after.test) == (before.name, 0, before.test)
        assert [r.image.resolve() for r in rows(after)] == [
            r.image.resolve() for r in rows(before, "test")
        ]


def test_phantoms_are_drawn_once_and_kept_in_the_cache(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(
        STUDY.replace(
            'labels = { normal = "normal", bacterial = "abnormal", viral = "abnormal" }',
            'labels = { clear = "normal", nodular = "abnormal" }',
        )
        + '[simulation.phantoms]\nmodality = "xray"\nper_class = 4\nsize = 32\n'
        + '[[simulation.sites]]\nname = "a"\n'
        + '[[simulation.sites]]\nname = "b"\nshift = { gain = 1.3 }\n'
    )
    scenario, cache = load_scenario(path), tmp_path / "cache"
    first = build_sites(scenario, Path("absent"), tmp_path / "one", cache)
    image = rows(first[0])[0].image.resolve()
    assert cache.resolve() in image.parents
    Image.open(image).load()
    image.write_bytes(b"kept")
    again = build_sites(scenario, Path("absent"), tmp_path / "two", cache)
    assert image.read_bytes() == b"kept"
    assert [r.name for r in rows(again[0])] == [r.name for r in rows(first[0])]
    assert Counter(r.label for r in rows(first[1])) == {"normal": 4, "abnormal": 4}
    other = build_sites(
        load_scenario(path, ["simulation.phantoms.seed=1"]), Path("absent"), tmp_path / "3", cache
    )
    assert rows(other[0])[0].image.resolve() != image


SITE = '[[simulation.sites]]\nname = "a"\nmanifest = "set/manifest.csv"\n'


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (
            SITE.replace("set/", "absent/"),
            ConfigurationError,
            "sites a: manifest: absent/manifest.csv does not exist below --data",
        ),
        (
            SITE + 'where = { clinic = "a" }',
            ConfigurationError,
            r"sites a: where: .*set/manifest.csv has no column 'clinic'; its columns are hospital",
        ),
        (
            SITE + 'test_where = { fold = "1" }',
            ConfigurationError,
            "sites a: test_where: .* has no column 'fold'",
        ),
        (
            SITE + 'findings.shape.round = "round opacity"',
            ConfigurationError,
            "sites a: findings: .* has no column 'shape'",
        ),
        (SITE + 'where = { hospital = "c" }', DataError, "sites a: no rows of .* are left by"),
        (SITE + 'part = "999/999"', DataError, "sites a: no rows of .* are left by"),
        (
            SITE + 'test_where = { hospital = "c" }',
            DataError,
            "sites a: test_where = .* leaves no test row .* take it out to hold out a share",
        ),
        (
            SITE + SITE.replace('"a"', '"b"'),
            ConfigurationError,
            r"a and b share images of .*; give them different part = \"k/n\" or where",
        ),
    ],
)
def test_errors_name_site_and_remedy(build, text, error, message):
    with pytest.raises(error, match=message):
        build(text)


def test_a_missing_data_folder_is_named(build, tmp_path):
    with pytest.raises(ConfigurationError, match=r"--data .*absent: no such folder; give"):
        build(THIRDS, data=tmp_path / "absent")


def test_a_link_that_cannot_be_made_is_named(build, tmp_path):
    place = tmp_path / "out" / "sites" / "s1" / "source"
    place.mkdir(parents=True)
    with pytest.raises(StorageError, match=r"source: cannot be made: .*choose an --out"):
        build(THIRDS)


@pytest.mark.real_data
@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data beside the repository")
@pytest.mark.parametrize(
    ("name", "sites", "train"),
    [
        ("breast_ultrasound", ["busi-1", "busi-2", "busi-3", "breast"], 40),
        ("chest_xray", ["kermany", "shenzhen", "montgomery", "nih"], 60),
    ],
)
def test_the_real_studies_find_their_data(tmp_path, name, sites, train):
    study = Path(__file__).parents[3] / "simulations" / "studies" / f"{name}.toml"
    scenario = load_scenario(study)
    folders = build_sites(scenario, SHARED, tmp_path)
    assert [folder.name for folder in folders] == sites
    for folder in folders:
        assert folder.labelled >= train and folder.test >= 30
        assert {r.label for r in rows(folder)} == set(scenario.study.class_names)
    known = set(scenario.study.finding_names)
    named = [r.findings for folder in folders for r in rows(folder) if r.findings]
    assert known.issuperset(finding for findings in named for finding in findings)
    assert len(named) >= (150 if name == "breast_ultrasound" else 0)
