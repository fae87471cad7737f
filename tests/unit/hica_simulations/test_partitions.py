import csv
from collections import Counter
from pathlib import Path

import numpy as np
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


def test_sites_know_how_common_classes_are_only_where_they_shall(build, tmp_path):
    _, unknowing = build(THIRDS)
    assert all(folder.prevalence == {} for folder in unknowing)
    _, folders = build(THIRDS, "simulation.prevalence=known", out=tmp_path / "known")
    for folder in folders:
        train = Counter(record.label for record in rows(folder, "train"))
        assert folder.prevalence == {
            name: pytest.approx(train[name] / train.total()) for name in ("normal", "abnormal")
        }
        assert sum(folder.prevalence.values()) == pytest.approx(1)


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


THREE = STUDY.replace(
    'labels = { normal = "normal", bacterial = "abnormal", viral = "abnormal" }',
    'labels = { normal = "normal", bacterial = "abnormal", viral = "viral" }',
).replace("[alignment]", '[[classes]]\nname = "viral"\nprompts = ["a viral image"]\n[alignment]')


@pytest.fixture
def build_three(build, tmp_path):
    """Like `build`, for a study in which `viral` is a class of its own."""

    def build_three(text, *overrides, out="out"):
        path = tmp_path / "three.toml"
        path.write_text(THREE + text)
        scenario = load_scenario(path, list(overrides))
        return build_sites(scenario, tmp_path / "data", tmp_path / out)

    return build_three


def test_unseen_classes_are_tested_but_not_trained_on(build_three):
    text = THIRDS + "labelled = false\n"
    seen = build_three(text)
    unseen = build_three(text, 'simulation.unseen=["viral"]', out="unseen")
    label_of = {row["image"]: row["label"] for row in numbered(72)}
    for before, after in zip(seen, unseen, strict=True):
        assert rows(after, "test") != [] and len(rows(after, "test")) == len(rows(before, "test"))
        assert [r.name for r in rows(after, "test")] == [r.name for r in rows(before, "test")]
        assert "viral" in {r.label for r in rows(after, "test")}
        # Not as an unlabelled image of the third site either.
        assert [r.name for r in rows(after, "train")] == [
            r.name for r in rows(before, "train") if label_of[Path(r.name).name] != "viral"
        ]


def test_a_site_of_nothing_but_unseen_training_rows_is_named(build_three, tmp_path):
    write_set(tmp_path / "data" / "viral", [numbered(24)[4]])
    site = '[[simulation.sites]]\nname = "a"\nmanifest = "viral/manifest.csv"\n'
    with pytest.raises(DataError, match=r"sites a: all its rows are for training .* raise simul"):
        build_three(site, 'simulation.unseen=["viral"]')


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_training_labels_is_another_class(build_three, share):
    clean = build_three(THIRDS)
    noisy = build_three(THIRDS + f"label_noise = {share}\n", out="noisy")
    for before, after in zip(clean[:2], noisy[:2], strict=True):
        assert before.manifest.read_bytes() == after.manifest.read_bytes()
    pairs = list(zip(rows(clean[2]), rows(noisy[2]), strict=True))
    assert [a.name for a, _ in pairs] == [b.name for _, b in pairs]
    wrong = [(a, b) for a, b in pairs if a.label != b.label]
    assert len(wrong) == round(share * clean[2].labelled)
    assert all(b.split == "train" and b.label is not None for _, b in wrong)
    if share == 1.0:  # every class is taken for either of the two others
        assert len({(a.label, b.label) for a, b in wrong}) == 6


def test_noise_is_fixed_by_the_splits_seed_and_grows(build_three):
    def wrong(share, *overrides, out):
        clean = build_three(THIRDS, *overrides, out=f"{out}-clean")[2]
        noisy = build_three(THIRDS + f"label_noise = {share}\n", *overrides, out=out)[2]
        pairs = zip(rows(clean), rows(noisy), strict=True)
        return {(a.name, b.label) for a, b in pairs if a.label != b.label}

    little = wrong(0.3, out="a")
    assert little == wrong(0.3, "study.seed=7", out="b")
    assert little < wrong(0.8, out="c")
    assert little != wrong(0.3, "simulation.split_seed=7", out="d")


def test_noise_brings_no_unseen_class_into_training(build_three):
    noise = THIRDS + "label_noise = 1.0\n"
    folders = build_three(noise, 'simulation.unseen=["viral"]')
    assert {r.label for r in rows(folders[2], "train")} == {"normal", "abnormal"}


@pytest.mark.parametrize("key", ["skew=2.0", "sizes=[2, 1, 1]"])
def test_skewed_and_sized_parts_share_out_every_image_once(build, tmp_path, key):
    even = build(THIRDS)[1]
    folders = build(THIRDS, f"simulation.{key}", out=tmp_path / "uneven")[1]
    again = build(THIRDS, f"simulation.{key}", "study.seed=5", out=tmp_path / "again")[1]
    images = Counter(Path(record.name).name for folder in folders for record in rows(folder))
    assert images == Counter({row["image"]: 1 for row in numbered(72)})
    counts = [Counter(r.label for r in rows(folder)) for folder in folders]
    assert counts != [Counter(r.label for r in rows(folder)) for folder in even]
    if key.startswith("sizes"):
        assert counts == [{"normal": 6 * n, "abnormal": 12 * n} for n in (2, 1, 1)]
    for one, other in zip(folders, again, strict=True):
        assert one.manifest.read_bytes() == other.manifest.read_bytes()


def test_a_part_that_a_skew_leaves_empty_is_named(build):
    with pytest.raises(
        DataError, match=r"sites s\d: no rows of .* or where simulation.skew or siz"
    ):
        build(THIRDS, "simulation.skew=1e-6")


def test_parts_of_other_rows_are_skewed_otherwise(build):
    """The hospitals of one manifest, in halves: not both lack the same label."""
    text = "".join(
        f'[[simulation.sites]]\nname = "{h}{k}"\nmanifest = "set/manifest.csv"\n'
        f'where = {{ hospital = "{h}" }}\npart = "{k}/2"\n'
        for h in "ab"
        for k in (1, 2)
    )
    _, folders = build(text, "simulation.skew=1.0")
    counts = [Counter(r.label for r in rows(folder)) for folder in folders]
    assert counts[:2] != counts[2:]


def test_whole_manifests_are_not_shared_out(build, tmp_path):
    other = '[[simulation.sites]]\nname = "other"\nmanifest = "other/manifest.csv"\n'
    _, folders = build(THIRDS + other, "simulation.skew=2.0")
    assert len(rows(folders[3])) == 24
    _, folders = build(THIRDS + other, "simulation.sizes=[2, 1, 1]", out=tmp_path / "sizes")
    assert len(rows(folders[3])) == 24


@pytest.fixture
def drawn(build, tmp_path):
    """A site whose images, but every fourth, have masks."""
    folder = tmp_path / "data" / "drawn"
    drawn_rows = [
        {**row, "mask": f"m{row['image']}" if n % 4 else ""} for n, row in enumerate(numbered(24))
    ]
    write_set(folder, [{**row, "mask": ""} for row in drawn_rows])
    (folder / "manifest.csv").unlink()
    for n, row in enumerate(drawn_rows):
        mask = np.zeros((16, 16 + n), dtype=bool)
        mask[2 : 5 + n % 5, 3:9] = True
        Image.new("L", (16 + n, 16), n).save(folder / row["image"])
        if row["mask"]:
            Image.fromarray(mask).save(folder / row["mask"])
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, sorted(drawn_rows[0]))
        writer.writeheader()
        writer.writerows(drawn_rows)
    return '[[simulation.sites]]\nname = "drawn"\nmanifest = "drawn/manifest.csv"\n'


@pytest.mark.parametrize("damage", ["as drawn", "dilated", "shifted", "replaced", "none"])
def test_masks_of_training_and_test_are_damaged(build, drawn, tmp_path, damage):
    _, (plain,) = build(drawn)
    scenario, folders = build(drawn, f'simulation.masks="{damage}"', out=tmp_path / "damaged")
    for before, after in zip(rows(plain), rows(folders[0]), strict=True):
        assert (before.name, before.label, before.split) == (after.name, after.label, after.split)
        if before.mask is None or damage == "none":
            assert after.mask is None
        elif damage == "as drawn":
            assert after.mask.resolve() == before.mask.resolve()
        else:
            assert after.mask.parent == tmp_path / "damaged" / "sites" / "drawn" / "masks"
            assert Image.open(after.mask).size == Image.open(after.image).size
            # A kept mask is the same on any machine: named by image, not by place.
            assert f",masks/{after.mask.name}," in folders[0].manifest.read_text()
    pooled, *_ = pooled_folders(folders, scenario.study, tmp_path / "pooled")
    assert {r.mask.resolve() for r in rows(pooled) if r.mask} == {
        r.mask.resolve() for r in rows(folders[0], "train") if r.mask
    }


def test_only_masks_of_kept_images_are_drawn(build, drawn, tmp_path):
    few = ["simulation.unlabelled=false", 'simulation.masks="replaced"']
    _, (kept,) = build(drawn, *few)
    _, (everything,) = build(drawn, few[1], out=tmp_path / "all")
    masks = {r.name: r.mask.name for r in rows(everything) if r.mask}
    assert {r.name: r.mask.name for r in rows(kept) if r.mask}.items() < masks.items()
    assert len(list((kept.manifest.parent / "masks").iterdir())) < len(masks)


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
