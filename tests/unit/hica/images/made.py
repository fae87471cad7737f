"""Small image files of every kind, made for a test, and what is seen of them."""

import numpy as np
import pytest
from PIL import Image

from hica.errors import DataError
from hica.images.decode import read_image, read_picture

RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def pillow_file(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def dicom_file(path, values, syntax=None, **tags):
    """A DICOM file of the given stored values, as small as may be; without tags that are None."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    native = syntax is None or not syntax.is_encapsulated
    meta.TransferSyntaxUID = syntax if syntax and native else ExplicitVRLittleEndian
    dataset = Dataset()
    dataset.file_meta = meta
    colour = values.ndim == 3 and values.shape[-1] == 3
    if values.ndim == 3 and not colour:
        dataset.NumberOfFrames = len(values)
    dataset.Rows, dataset.Columns = values.shape[-3:-1] if colour else values.shape[-2:]
    dataset.SamplesPerPixel = 3 if colour else 1
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = values.dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.PixelData = values.tobytes()
    for name, value in tags.items():
        if value is None and name in dataset:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    if not native:
        dataset.set_original_encoding(False, True)
        dataset.compress(syntax)
    dataset.save_as(path, enforce_file_format=True)
    return path


def grey(path):
    image = read_image(path)
    assert image.mode == "RGB"
    red, green, blue = np.moveaxis(np.asarray(image), -1, 0)
    assert (red == green).all()
    assert (red == blue).all()
    return red


def own_range(values):
    values = values.astype(float)
    return np.round((values - values.min()) / (values.max() - values.min()) * 255)


def way(path):
    return read_picture(path).way


def refused(path):
    with pytest.raises(DataError) as error:
        read_image(path)
    return str(error.value)


def notes(path):
    return " | ".join(read_picture(path).notes)
