import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation, gaussian_filter

from hica.errors import ConfigurationError
from hica.images.manifest import read_manifest
from hica_simulations.experiments.baselines import linear_probe
from hica_simulations.phantoms.sites import (
    FINDINGS,
    MEAN,
    SPREAD,
    SiteShift,
    draw_phantom,
    draw_site,
    labels_of,
)

PLAIN = SiteShift("plain")
MODALITIES = list(FINDINGS)


def drawn(modality, label, count, site=PLAIN, size=96):
    pairs = [
        draw_phantom(modality, label, site, size, np.random.default_rng([n, *label.encode()]))
        for n in range(count)
    ]
    return [image.astype(float) for image, _ in pairs], [mask for _, mask in pairs]


@pytest.mark.parametrize("modality", MODALITIES)
def test_manifest_lists_images_with_labels_masks_and_findings(tmp_path, modality):
    manifest = draw_site(tmp_path, modality, PLAIN, 2, size=32)
    assert manifest == tmp_path / "plain" / "manifest.csv"
    records = read_manifest(manifest)
    assert [record.label for record in records] == [x for x in labels_of(modality) for _ in "12"]
    assert len({record.group for record in records}) == len(records)
    for record in records:
        image, mask = Image.open(record.image), Image.open(record.mask)
        assert (image.mode, image.size) == ("L", (32, 32))
        assert (mask.mode, mask.size) == ("1", (32, 32))
        assert record.findings == FINDINGS[modality][record.label]


def test_an_image_depends_on_its_seed_site_class_and_number_only(tmp_path):
    def files(root, sites, per_class, seed):
        for site in sites:
            draw_site(root, "ultrasound", site, per_class, size=32, seed=seed)
        return {
            str(path.relative_to(root)): path.read_bytes() for path in root.rglob("images/*.png")
        }

    few = files(tmp_path / "few", [PLAIN], 1, 0)
    many = files(tmp_path / "many", [SiteShift("other"), PLAIN], 2, 0)
    assert few.items() <= many.items()
    assert len(set(many.values())) == len(many)
    assert files(tmp_path / "seed", [PLAIN], 1, 1).items().isdisjoint(few.items())


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_image_has_the_same_mean_and_spread(modality):
    for label in labels_of(modality):
        for image in drawn(modality, label, 6)[0]:
            # Cutting at black and white moves both a little.
            assert image.mean() == pytest.approx(MEAN, abs=4)
            assert image.std() == pytest.approx(SPREAD, abs=6)


@pytest.mark.parametrize("modality", MODALITIES)
def test_only_the_healthy_class_has_an_empty_mask(modality):
    healthy, *diseased = labels_of(modality)
    assert not np.any(drawn(modality, healthy, 4)[1])
    for label in diseased:
        assert all(0.005 < mask.mean() < 0.2 for mask in drawn(modality, label, 8)[1])


def test_ultrasound_lesions_have_the_same_contrast():
    def contrast(label):
        images, masks = drawn("ultrasound", label, 16)
        return np.mean(
            [
                image[
                    binary_dilation(mask, iterations=6) & ~binary_dilation(mask, iterations=2)
                ].mean()
                - image[mask].mean()
                for image, mask in zip(images, masks, strict=True)
            ]
        )

    smooth, spiculated = contrast("smooth"), contrast("spiculated")
    assert smooth > 20
    assert spiculated == pytest.approx(smooth, rel=0.25)


def test_ultrasound_classes_differ_in_shape():
    def width_over_height(mask):
        rows, columns = np.nonzero(mask)
        return columns.std() / rows.std()

    def edge_over_area(mask):
        return (binary_dilation(mask) & ~mask).sum() ** 2 / mask.sum()

    smooth, spiculated = (drawn("ultrasound", x, 12)[1] for x in ("smooth", "spiculated"))
    assert min(map(width_over_height, smooth)) > 1.2
    assert max(map(width_over_height, spiculated)) < 1.1
    assert min(map(edge_over_area, spiculated)) > max(map(edge_over_area, smooth))


def test_ultrasound_classes_differ_in_the_coarseness_of_the_lesion():
    def grain(label):
        images, masks = drawn("ultrasound", label, 12)
        return np.mean(
            [
                gaussian_filter(image, 2.0)[mask].std()
                for image, mask in zip(images, masks, strict=True)
            ]
        )

    assert grain("spiculated") > 1.5 * grain("smooth")


@pytest.mark.parametrize("modality", MODALITIES)
def test_thumbnails_do_not_give_the_class_away(modality, one_site):
    labels = labels_of(modality)
    images = np.array([drawn(modality, label, 60, size=32)[0] for label in labels])
    small = images.reshape(len(labels), 60, 16, 2, 16, 2).mean(axis=(3, 5))
    pixels = small.reshape(len(labels), 60, -1) / 255
    classes = np.repeat(np.arange(len(labels)), 40), np.repeat(np.arange(len(labels)), 20)
    train, test = pixels[:, :40].reshape(-1, 256), pixels[:, 40:].reshape(-1, 256)
    probabilities = linear_probe.fit_predict(one_site(train, classes[0], test, 3))
    assert np.mean(probabilities.argmax(axis=1) == classes[1]) < 0.65


@pytest.mark.parametrize("modality", MODALITIES)
def test_sites_shift_gain_blur_and_speckle(modality):
    label = labels_of(modality)[1]

    def detail(**shift):
        image = drawn(modality, label, 1, SiteShift("shifted", **shift))[0][0]
        return (image - gaussian_filter(image, 1.0)).std()

    bright = drawn(modality, label, 1, SiteShift("bright", gain=1.3))[0][0]
    flat = drawn(modality, label, 1, SiteShift("flat", contrast=0.6))[0][0]
    assert bright.mean() > 1.2 * MEAN
    assert flat.std() < 0.7 * SPREAD
    assert detail(blur=1.0) < 0.7 * detail()
    assert detail(speckle=2.0) > 1.2 * detail()


def test_unknown_modality_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="'mri'; choose one of ultrasound, xray"):
        draw_site(tmp_path, "mri", PLAIN, 1)
