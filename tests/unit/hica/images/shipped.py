"""The image files that come with pydicom, pydicom-data and nibabel, and what they should show.

The reference is slow, and knows the code under test in nothing but the conventions of
docs/images.md: values are decoded by pydicom or nibabel, and shown pixel by pixel as DICOM PS3.3
C.11 and the NIfTI standard have it.
"""

from pathlib import Path

import nibabel
import numpy as np
import pydicom
from pydicom.pixels.utils import pixel_array

ROOTS = {
    "pydicom": Path(pydicom.__file__).parent / "data",
    "nibabel": Path(nibabel.__file__).parent,
}
try:
    import data_store

    ROOTS["pydicom-data"] = Path(data_store.__file__).parent / "data"
except ModuleNotFoundError:  # pydicom's larger half, which only developers have
    pass
NO_IMAGES = (".py", ".pyc", ".json", ".txt", ".rst", ".m", ".dump", ".icc", ".gii", ".PAR")
"""Suffixes of what lies beside the images."""


def files():
    """Every file, by a short name."""
    return {
        f"{package}: {path.relative_to(root).as_posix()}": path
        for package, root in ROOTS.items()
        for path in sorted(root.rglob("*"))
        if path.is_file()
        and "data" in path.parent.parts  # of nibabel, what lies beside its tests
        and path.suffix not in NO_IMAGES
        and not path.name.startswith((".", "DICOMDIR", "README"))
    }


def volume_shown(path):
    """Grey of the middle slice of a NIfTI volume, `[H, W]`: right at the left, front up."""
    image = nibabel.as_closest_canonical(nibabel.load(path))
    values = image.get_fdata()
    while values.ndim > 3:
        values = values[..., 0]
    plane = values[:, :, values.shape[2] // 2]
    columns, rows = plane.shape
    shown = np.zeros((rows, columns))
    for row in range(rows):
        for column in range(columns):
            shown[row, column] = plane[columns - 1 - column, rows - 1 - row]
    return stretched(shown, np.isfinite(shown))


def frame_shown(path):
    """Colours of the middle frame of a DICOM file, `[H, W, 3]`."""
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        import gzip

        data = gzip.decompress(data)
    dataset = pydicom.dcmread(pydicom.filebase.DicomBytesIO(data), force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    middle = int(dataset.get("NumberOfFrames") or 1) // 2
    stored = pixel_array(dataset, index=middle)
    if dataset.SamplesPerPixel == 3:
        return stored.astype(float) * 255 / (2**dataset.BitsStored - 1)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        return palette_shown(stored, dataset)
    values = np.array(stored, float)
    padding = np.zeros(values.shape, bool)
    if "PixelPaddingValue" in dataset:
        ends = [dataset.PixelPaddingValue]
        ends.append(dataset.get("PixelPaddingRangeLimit", ends[0]))
        padding = (stored >= min(ends)) & (stored <= max(ends))
    group = shared = pydicom.Dataset()
    if dataset.get("PerFrameFunctionalGroupsSequence"):
        group = dataset.PerFrameFunctionalGroupsSequence[middle]
    if dataset.get("SharedFunctionalGroupsSequence"):
        shared = dataset.SharedFunctionalGroupsSequence[0]

    def tag_of(sequence, name):
        for place in (group, shared):
            if sequence in place and place[sequence].value and name in place[sequence][0]:
                return place[sequence][0][name].value
        return dataset.get(name)

    if dataset.get("ModalityLUTSequence"):
        values = looked_up(values, dataset.ModalityLUTSequence[0])[0].astype(float)
    else:
        slope = tag_of("PixelValueTransformationSequence", "RescaleSlope")
        intercept = tag_of("PixelValueTransformationSequence", "RescaleIntercept")
        values = values * float(slope or 1) + float(intercept or 0)
    width, centre = (
        tag_of("FrameVOILUTSequence", name) for name in ("WindowWidth", "WindowCenter")
    )
    if dataset.get("VOILUTSequence"):
        entries, full = looked_up(values, dataset.VOILUTSequence[0])
        grey = entries * 255 / full
    elif width and centre:
        width, centre = (float(np.atleast_1d(number)[0]) for number in (width, centre))
        assert dataset.get("VOILUTFunction", "LINEAR") == "LINEAR"
        grey = windowed(values, centre, width)
    elif dataset.BitsStored == 1:
        grey = values * 255
    else:
        grey = stretched(values, ~padding)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        grey = 255 - grey
    grey[padding] = 0
    return np.repeat(grey[..., None], 3, axis=-1)


def value_by_value(values, function):
    """`function` of each value that there is."""
    each, places = np.unique(values, return_inverse=True)
    return np.array([function(value) for value in each], float)[places].reshape(values.shape)


def windowed(values, centre, width):
    """LINEAR, the pseudo-code of C.11.2.1.2.1."""

    def show(value):
        if value <= centre - 0.5 - (width - 1) / 2:
            return 0
        if value > centre - 0.5 + (width - 1) / 2:
            return 255
        return ((value - (centre - 0.5)) / (width - 1) + 0.5) * 255

    return value_by_value(values, show)


def looked_up(values, item):
    """Entries of a lookup table, and the highest that it can have."""
    length, first, bits = item.LUTDescriptor
    data = item.LUTData
    if isinstance(data, bytes):
        data = np.frombuffer(data, "<u2")
    table = {first + at: entry for at, entry in enumerate(data)}
    last = first + (length or 2**16) - 1
    found = value_by_value(values, lambda value: table[min(max(int(value), first), last)])
    return found, 2**bits - 1


def palette_shown(stored, dataset):
    """Colours by the palette of the file."""
    shown = np.empty((*stored.shape, 3))
    order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
    for channel, colour in enumerate(("Red", "Green", "Blue")):
        length, first, bits = dataset[f"{colour}PaletteColorLookupTableDescriptor"].value
        length = length or 2**16
        segmented = f"Segmented{colour}PaletteColorLookupTableData"
        if segmented in dataset:
            table = unrolled(np.frombuffer(dataset[segmented].value, f"{order}u2").tolist())
        else:
            data = dataset[f"{colour}PaletteColorLookupTableData"].value
            table = np.frombuffer(data, "u1" if len(data) < 2 * length else f"{order}u2")
        full = 255 if bits == 8 or max(table) < 256 else 65535
        at = np.clip(stored.astype(int) - first, 0, length - 1)
        shown[..., channel] = np.asarray(table)[at] * 255.0 / full
    return shown


def unrolled(data):
    """A segmented palette (C.7.9.2), of discrete and linear segments."""
    table, at = [], 0
    while at < len(data):
        kind, count = data[at : at + 2]
        if kind == 0:
            table += data[at + 2 : at + 2 + count]
            at += 2 + count
        else:
            assert kind == 1
            table += list(np.linspace(table[-1], data[at + 2], count + 1)[1:])
            at += 3
    return table


def stretched(values, inside):
    """By the range of what is inside; the rest is black."""
    low, high = values[inside].min(), values[inside].max()
    shown = np.zeros(values.shape)
    if high > low:
        shown[inside] = (values[inside] - low) / (high - low) * 255
    return shown
