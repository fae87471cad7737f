"""Kinds of objects and their encodings, as they are proposed for C-GET.

A proposal holds 128 contexts at most, and of each one encoding is agreed on. So where the PACS has
told which kinds there are, each kind is proposed once for every encoding: what is stored compressed
then comes as it is stored.
"""

from collections.abc import Collection

from pydicom import uid

SYNTAXES = (
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.JPEGLosslessSV1,
    uid.JPEGBaseline8Bit,
    uid.JPEG2000Lossless,
    uid.JPEG2000,
    uid.RLELossless,
    uid.JPEGLSLossless,
    uid.JPEGLSNearLossless,
    uid.JPEGExtended12Bit,
    uid.JPEGLossless,
    uid.ExplicitVRBigEndian,
)
"""Those that archives hold pictures in, the most frequent first."""
USUAL = (
    uid.UltrasoundImageStorage,
    uid.UltrasoundMultiFrameImageStorage,
    uid.DigitalXRayImageStorageForPresentation,
    uid.ComputedRadiographyImageStorage,
    uid.DigitalMammographyXRayImageStorageForPresentation,
    uid.CTImageStorage,
    uid.MRImageStorage,
    uid.EnhancedCTImageStorage,
    uid.EnhancedMRImageStorage,
    uid.SecondaryCaptureImageStorage,
    uid.BreastTomosynthesisImageStorage,
    uid.VLEndoscopicImageStorage,
    uid.VLPhotographicImageStorage,
    uid.VLMicroscopicImageStorage,
    uid.OphthalmicPhotography8BitImageStorage,
    uid.OphthalmicTomographyImageStorage,
    uid.PositronEmissionTomographyImageStorage,
    uid.NuclearMedicineImageStorage,
    uid.XRayAngiographicImageStorage,
    uid.BasicTextSRStorage,
    uid.EnhancedSRStorage,
)
"""Proposed where the PACS does not tell which kinds there are."""


def proposals(classes: Collection[str], most: int) -> list[tuple[str, str]]:
    """Kind and encoding of each context to propose, `most` at most; an empty kind: not known."""
    kinds = [*dict.fromkeys(each for each in classes if each)]
    if "" in classes or not kinds:
        kinds += [str(each) for each in USUAL if str(each) not in kinds]
    return [(kind, str(syntax)) for syntax in SYNTAXES for kind in kinds][:most]
