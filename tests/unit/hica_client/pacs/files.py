"""Small DICOM files, and an archive of them that a fake PACS answers from."""

import contextlib
from io import BytesIO

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

ROOT = "1.2.826.0.1.3680043.8.498"


def dataset(study=1, series=1, instance=1, **more) -> Dataset:
    """An image of 8×8 pixels."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = SecondaryCaptureImageStorage
    made.StudyInstanceUID = f"{ROOT}.{study}"
    made.SeriesInstanceUID = f"{ROOT}.{study}.{series}"
    made.SOPInstanceUID = f"{ROOT}.{study}.{series}.{instance}"
    made.PatientID, made.PatientName = f"PAT{study:04d}", "Doe^Jane"
    made.AccessionNumber = f"ACC{study:04d}"
    made.StudyDate, made.StudyDescription = f"202401{study:02d}", f"US breast {study}"
    made.Modality, made.SeriesDescription = "US", f"series {series}"
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows = made.Columns = made.BitsAllocated = made.BitsStored = 8
    made.HighBit, made.PixelRepresentation = 7, 0
    made.PixelData = bytes(range(64))
    for keyword, value in more.items():
        setattr(made, keyword, value)
    return made


def file_of(made: Dataset, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    made.file_meta.TransferSyntaxUID = syntax
    with contextlib.closing(BytesIO()) as file:
        made.save_as(
            file,
            enforce_file_format=True,
            implicit_vr=syntax.is_implicit_VR,
            little_endian=syntax.is_little_endian,
        )
        return file.getvalue()
