"""One small file of every kind of image that a department has, for the table of docs/images.md."""

import gzip
import io

import imagecodecs
import nibabel
import numpy as np
import tifffile
from PIL import Image
from pydicom.dataset import Dataset
from tests.unit.hica.images.made import RAMP, dicom_file

GREY, DEEP = RAMP, RAMP.astype(np.uint16) * 16
COLOUR = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=-1)
OPACITY = np.dstack([COLOUR, RAMP])


def pillow(array, suffix, mode=None, **options):
    """Bytes of a file of one of Pillow's formats."""
    file = io.BytesIO()
    image = Image.fromarray(array)
    image = image.convert(mode) if mode else image
    others = [image.transpose(0), image] if options.pop("more", 0) else []
    extra = {"save_all": True, "append_images": others} if others else {}
    image.save(file, suffix, **options, **extra)
    return file.getvalue()


def tiff(array, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def dicom(values, **tags):
    file = io.BytesIO()
    dicom_file(file, values, **tags)
    return file.getvalue()


def nifti(values, kind=nibabel.Nifti1Image, **fields):
    image = kind(values, np.diag([*fields.pop("zooms", (1, 1, 1)), 1]))
    for name, value in fields.items():
        image.header[name] = value
    return image.to_bytes()


def turned(suffix):
    exif = Image.Exif()
    exif[0x0112] = 6
    return pillow(GREY, suffix, exif=exif)


def item(**values):
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def table(name, **fields):
    made = item(LUTDescriptor=[4, 0, 12])
    made.add_new("LUTData", "US", [0, 90, 900, 4095])
    return {name: [made], **fields}


PALETTE = {
    f"{colour}PaletteColorLookupTable{part}": value
    for colour in ("Red", "Green", "Blue")
    for part, value in (
        ("Descriptor", [256, 0, 16]),
        ("Data", (np.arange(256, dtype="<u2") * 99).tobytes()),
    )
} | {"PhotometricInterpretation": "PALETTE COLOR"}
FRAMES = np.stack([DEEP] * 3)
CT = {"RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": 40, "WindowWidth": 400}
SERIES = item(
    FrameVOILUTSequence=[item(WindowCenter=1000, WindowWidth=900)],
    PixelValueTransformationSequence=[item(RescaleSlope=2, RescaleIntercept=-1)],
)


def no_pixels(uid):
    return dicom(GREY, SOPClassUID=uid, PixelData=None, Rows=None, Columns=None)


KINDS = {
    "PNG, 8-bit grey": lambda: pillow(GREY, "png"),
    "PNG, 8-bit RGB": lambda: pillow(COLOUR, "png"),
    "PNG, black and white": lambda: pillow(GREY > 90, "png"),
    "PNG, indexed": lambda: pillow(GREY, "png", "P"),
    "PNG with opacity": lambda: pillow(OPACITY, "png"),
    "PNG, 16-bit grey": lambda: pillow(DEEP, "png"),
    "PNG, 16-bit RGB": lambda: imagecodecs.png_encode(COLOUR.astype(np.uint16) * 16),
    "PNG with orientation tag": lambda: turned("png"),
    "PNG, several pictures (APNG)": lambda: pillow(GREY, "png", more=2),
    "JPEG": lambda: pillow(COLOUR, "jpeg"),
    "JPEG, CMYK": lambda: pillow(COLOUR, "jpeg", "CMYK"),
    "JPEG with orientation tag": lambda: turned("jpeg"),
    "JPEG 2000": lambda: pillow(COLOUR, "jpeg2000"),
    "GIF, several pictures": lambda: pillow(GREY, "gif", more=2),
    "WebP": lambda: pillow(COLOUR, "webp"),
    "BMP": lambda: pillow(COLOUR, "bmp"),
    "PGM, 16-bit": lambda: pillow(DEEP, "ppm"),
    "TIFF, 8-bit": lambda: tiff(GREY),
    "TIFF, 16-bit": lambda: tiff(DEEP),
    "TIFF, 16-bit RGB, LZW": lambda: tiff(COLOUR.astype(np.uint16), compression="lzw"),
    "TIFF, float": lambda: tiff(GREY.astype(np.float32)),
    "TIFF, float with NaN": lambda: tiff(np.where(GREY > 9, GREY, np.nan).astype(np.float32)),
    "TIFF, signed": lambda: tiff(GREY.astype(np.int16) - 100),
    "TIFF, white is zero": lambda: tiff(DEEP, photometric="miniswhite"),
    "TIFF, several pages": lambda: tiff(np.stack([GREY] * 3), photometric="minisblack"),
    "TIFF, another resolution along each side": lambda: tiff(GREY, resolution=(100, 200)),
    "TIFF, complex": lambda: tiff(GREY.astype(np.complex64)),
    "DICOM, window": lambda: dicom(DEEP, **CT),
    "DICOM, several windows": lambda: dicom(DEEP, WindowCenter=[9, 2], WindowWidth=[90, 20]),
    "DICOM, sigmoid window": lambda: dicom(DEEP, **CT, VOILUTFunction="SIGMOID"),
    "DICOM, lookup table": lambda: dicom(DEEP, **table("VOILUTSequence")),
    "DICOM, lookup table of the modality": lambda: dicom(DEEP, **table("ModalityLUTSequence")),
    "DICOM, no window": lambda: dicom(DEEP),
    "DICOM, window of negative width": lambda: dicom(DEEP, WindowCenter=9, WindowWidth=-9),
    "DICOM, MONOCHROME1": lambda: dicom(DEEP, PhotometricInterpretation="MONOCHROME1"),
    "DICOM, padding": lambda: dicom(DEEP, PixelPaddingValue=0),
    "DICOM, RGB": lambda: dicom(COLOUR),
    "DICOM, RGB of 12 bits": lambda: dicom(COLOUR.astype(np.uint16), BitsStored=12, HighBit=11),
    "DICOM, YBR_FULL": lambda: dicom(COLOUR, PhotometricInterpretation="YBR_FULL"),
    "DICOM, palette": lambda: dicom(GREY, **PALETTE),
    "DICOM, several frames": lambda: dicom(FRAMES),
    "DICOM, enhanced": lambda: dicom(FRAMES, SharedFunctionalGroupsSequence=[SERIES]),
    "DICOM, one bit": lambda: dicom(
        (GREY > 90).astype(np.uint8), BitsAllocated=1, BitsStored=1, HighBit=0,
        PixelData=np.packbits(GREY > 90, bitorder="little").tobytes(),
    ),
    "DICOM, oblong pixels": lambda: dicom(DEEP, PixelSpacing=[2, 1]),
    "DICOM segmentation": lambda: dicom(
        (GREY > 90).astype(np.uint8), SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4"
    ),
    "DICOM, no preamble": lambda: dicom(DEEP, Modality="CT")[132:],
    "DICOM, packed by gzip": lambda: gzip.compress(dicom(DEEP), mtime=0),
    "DICOM, 12 bits packed": lambda: dicom(DEEP, BitsAllocated=12, BitsStored=12),
    "DICOM, a tag that is missing": lambda: dicom(DEEP, Rows=None),
    "DICOM, a tag that is no number": lambda: dicom(DEEP, WindowCenter=9, WindowWidth=90).replace(
        b"90", b"9x"
    ),
    "DICOM, PDF": lambda: no_pixels("1.2.840.10008.5.1.4.1.1.104.1"),
    "DICOM, structured report": lambda: no_pixels("1.2.840.10008.5.1.4.1.1.88.11"),
    "DICOM, presentation state": lambda: no_pixels("1.2.840.10008.5.1.4.1.1.11.1"),
    "DICOM, RT structure set": lambda: no_pixels("1.2.840.10008.5.1.4.1.1.481.3"),
    "DICOM, pixels taken out": lambda: no_pixels("1.2.840.10008.5.1.4.1.1.2"),
    "DICOM, cut short": lambda: dicom(DEEP)[:-20],
    "NIfTI-1": lambda: nifti(np.arange(60.0).reshape(3, 4, 5)),
    "NIfTI-2": lambda: nifti(np.arange(60.0).reshape(3, 4, 5), nibabel.Nifti2Image),
    "NIfTI, packed by gzip": lambda: gzip.compress(
        nifti(np.arange(60.0).reshape(3, 4, 5)), mtime=0
    ),
    "NIfTI, a series": lambda: nifti(np.arange(120.0).reshape(3, 4, 5, 2)),
    "NIfTI, one sagittal slice": lambda: nifti(np.arange(20.0).reshape(1, 4, 5)),
    "NIfTI, RGB24": lambda: nifti(np.zeros((3, 4, 5), [(name, "u1") for name in "RGB"])),
    "NIfTI, oblong voxels": lambda: nifti(np.arange(60.0).reshape(3, 4, 5), zooms=(1, 2, 1)),
    "NIfTI, complex": lambda: nifti(np.zeros((3, 4, 5), np.complex64)),
    "NIfTI, the .hdr of a pair": lambda: nifti(np.zeros((3, 4, 5)))[:344] + b"ni1\0" + b"\0" * 4,
    "PDF": lambda: b"%PDF-1.7",
    "HEIC": lambda: b"\0\0\0\x18ftypheic",
    "SVG": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "video, MP4": lambda: b"\0\0\0\x18ftypisom",
    "zip": lambda: b"PK\x03\x04",
    "raw camera picture": lambda: b"FUJIFILMCCD-RAW ",
    "NRRD": lambda: b"NRRD0004\n",
    "encrypted (OpenSSL)": lambda: b"Salted__",
    "text": lambda: b"a,b\n",
    "an empty file": lambda: b"",
}  # fmt: skip
"""Name → a function that gives the bytes of such a file."""
