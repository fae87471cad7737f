"""A heat map as a DICOM secondary capture: what any viewer shows, marked not for diagnosis."""

import highdicom as hd
import numpy as np
from highdicom.sc import SCImage
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset

from hica.images.overlay import resized
from hica_client.prediction.dicom_source import Source
from hica_client.prediction.predict import Prediction
from hica_client.prediction.provenance import MANUFACTURER, NOT_FOR_DIAGNOSIS, Provenance
from hica_client.prediction.written import DONT_KNOW

SERIES_NUMBER = 9002
SERIES_DESCRIPTION = "HiCA heat map, not for diagnosis"
SIDE, BANNER = 512, 56
"""Of the picture and of the words above it, in pixels."""
TAKEN_OVER = (
    "BurnedInAnnotation",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
"""Of the source, as it holds for what is drawn from it, too."""


def pictured(
    drawn: NDArray[np.uint8], said: Prediction, likely: str, made_by: Provenance
) -> NDArray[np.uint8]:
    """The heat map with words above it: [BANNER + SIDE, SIDE, 3]."""
    canvas = Image.new("RGB", (SIDE, BANNER + SIDE))
    canvas.paste(Image.fromarray(resized(drawn, SIDE)), (0, BANNER))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=15)
    share = f"{100 * said.probabilities[likely]:.0f} %"
    lines = (
        f"{NOT_FOR_DIAGNOSIS.upper()}  {MANUFACTURER} {made_by.version}",
        f"like {likely} ({share}); answer: {said.answer or DONT_KNOW}",
    )
    for row, line in enumerate(lines):
        draw.text((8, 6 + 24 * row), line, fill="white", font=font)
    return np.asarray(canvas)


def secondary_capture(
    source: Source,
    pixels: NDArray[np.uint8],
    likely: str,
    made_by: Provenance,
    series_uid: str,
    number: int,
) -> SCImage:
    """The object of a picture [H, W, 3]; patient and study are those of the image.

    `likely` is the class that the map is of, `number` that of the object in its series.
    """
    made = SCImage.from_ref_dataset(
        source.dataset,
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        series_instance_uid=series_uid,
        series_number=SERIES_NUMBER,
        sop_instance_uid=hd.UID(),
        instance_number=number,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MANUFACTURER,
        software_versions=made_by.version,
        series_description=SERIES_DESCRIPTION,
    )
    # highdicom asks for one; what the image does not say is not known.
    made.PatientOrientation = source.dataset.get("PatientOrientation")
    made.DerivationDescription = (
        f"{NOT_FOR_DIAGNOSIS}. Where the image is more like {likely!r} than the other classes of "
        f"the study {made_by.study}. {'. '.join(made_by.parameters[1:3])}."
    )
    made.SourceImageSequence = [_reference(source)]
    for name in TAKEN_OVER:
        if name in source.dataset:
            setattr(made, name, source.dataset[name].value)
    return made


def _reference(source: Source) -> Dataset:
    """Which image it is drawn from."""
    item = Dataset()
    item.ReferencedSOPClassUID = source.dataset.SOPClassUID
    item.ReferencedSOPInstanceUID = source.dataset.SOPInstanceUID
    if source.frame:
        item.ReferencedFrameNumber = source.frame
    return item
