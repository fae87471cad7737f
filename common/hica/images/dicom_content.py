"""What a DICOM file holds: a picture or none, a mask, what else lies over the picture."""

from pydicom.dataset import Dataset
from pydicom.uid import UID

from hica.images.dicom_tags import named
from hica.images.refusals import OR_OUT, RefusedError, damaged, unsupported

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
REMEDIES = {
    "Media Storage Directory": "name the image files that it lists",
    "Encapsulated PDF": "export its pages as pictures",
    "Structured": "put its text into the column report",
    "SR Storage": "put its text into the column report",
    "Presentation State": "name the image that it is about",
    "RT Structure Set": "export its contours as a mask of the image's size",
    "Video": "export a frame as PNG or DICOM",
}
"""Part of the name of a SOP class → what to do with such a file."""
SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""SOP classes of segmentations and label maps."""


def check_content(dataset: Dataset) -> None:
    """Check that there is a picture in the file.

    Raises:
        RefusedError: There is none; says what there is instead.
    """
    if any(keyword in dataset for keyword in PIXELS):
        if not any(dataset.get(keyword) for keyword in PIXELS):
            raise damaged(f"{named('PixelData')} is empty")
        return
    meta = dataset.file_meta.get("MediaStorageSOPClassUID", "")
    name = UID(str(dataset.get("SOPClassUID") or meta)).name
    if "EncryptedAttributesSequence" in dataset:
        raise unsupported("is encrypted and shows no picture", "decrypt it first")
    if "PixelDataProviderURL" in dataset:
        raise unsupported(
            "holds the address of its pixels instead of them (JPIP)", "export it with its pixels"
        )
    if not name or "Image Storage" in name or "Rows" in dataset:
        raise RefusedError(
            f"holds no {named('PixelData')}: it is cut short, or its pixels were taken out; export "
            f"it again with them, {OR_OUT}"
        )
    kind = "no SOP class that is known" if name[0].isdigit() else name
    remedy = next((words for part, words in REMEDIES.items() if part in name), "name an image file")
    raise RefusedError(f"is DICOM and holds no picture ({kind}); {remedy}, {OR_OUT}")


def kind_notes(dataset: Dataset) -> tuple[str, ...]:
    """What is in the file beside the picture, and is not drawn into it."""
    notes = []
    tags = list(dataset.keys())  # to go through the data set would convert every value
    if any(0x6000 <= tag.group <= 0x60FF and tag.element == 0x0010 for tag in tags):
        notes.append("its overlay is not drawn in")
    if is_segmentation(dataset):
        notes.append("it is a segmentation: a mask rather than an image")
    if dataset.get("PixelPresentation") in ("COLOR", "MIXED"):
        notes.append("the colours that lie over its grey values are left out")
    return tuple(notes)


def is_segmentation(dataset: Dataset) -> bool:
    """Whether a file is made to be a mask."""
    return str(dataset.get("SOPClassUID")) in SEGMENTATIONS


def is_one_place(dataset: Dataset, frames: int) -> bool:
    """Whether all frames lie on one slice, as those of several segments do."""
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or []
    positions = {
        str(plane.get("ImagePositionPatient"))
        for group in groups
        for plane in group.get("PlanePositionSequence") or []
    }
    return frames == 1 or (len(groups) == frames and len(positions) == 1)
