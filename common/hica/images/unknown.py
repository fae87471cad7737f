"""What a file that no reader knows looks to be, and how to make a picture of it."""

from hica.images.refusals import OR_OUT, RefusedError, damaged

CONVERT = "convert it to PNG or DICOM"
EXPORT = "export its pictures as PNG or DICOM"

KNOWN: tuple[tuple[int, bytes, str, str], ...] = (
    (128, b"DICM", "a DICOM file", ""),
    (344, b"n+1", "a NIfTI file", ""),
    (0, b"\x89PNG", "a PNG file", ""),
    (0, b"\xff\xd8\xff", "a JPEG file", ""),
    (0, b"%PDF", "a PDF document", EXPORT),
    (0, b"PK\x03\x04", "a zip archive or an office document", "unpack it and name the files in it"),
    (0, b"PK\x05\x06", "an empty zip archive", "name an image file"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it and name the files in it"),
    (0, b"Rar!", "a RAR archive", "unpack it and name the files in it"),
    (257, b"ustar", "a tar archive", "unpack it and name the files in it"),
    (0, b"BZh", "a file packed by bzip2", "unpack it and name that file"),
    (0, b"\xfd7zXZ\0", "a file packed by xz", "unpack it and name that file"),
    (0, b"\x28\xb5\x2f\xfd", "a file packed by zstd", "unpack it and name that file"),
    (4, b"ftyphei", "a HEIC picture", CONVERT),
    (4, b"ftyphev", "a HEIC picture", CONVERT),
    (4, b"ftypmif1", "a HEIC picture", CONVERT),
    (4, b"ftypmsf1", "a HEIC picture", CONVERT),
    (4, b"ftypcrx", "a raw camera picture (Canon CR3)", CONVERT),
    (4, b"ftyp", "a video (MP4 or QuickTime)", EXPORT),
    (4, b"moov", "a video (QuickTime)", EXPORT),
    (0, b"\x1a\x45\xdf\xa3", "a video (Matroska or WebM)", EXPORT),
    (8, b"AVI ", "a video (AVI)", EXPORT),
    (8, b"WAVE", "a sound (WAV)", "name an image file"),
    (0, b"\x00\x00\x01\xba", "a video (MPEG)", EXPORT),
    (0, b"\x00\x00\x01\xb3", "a video (MPEG)", EXPORT),
    (0, b"\x30\x26\xb2\x75", "a video (WMV)", EXPORT),
    (0, b"\xff\x0a", "a JPEG XL picture", CONVERT),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL picture", CONVERT),
    (0, b"8BPS", "a Photoshop picture", CONVERT),
    (0, b"\x00\x00\x01\x00", "an icon", CONVERT),
    (0, b"\x0a\x05\x01", "a PCX picture", CONVERT),
    (0, b"%!PS", "a PostScript document", EXPORT),
    (0, b"\xc5\xd0\xd3\xc6", "a PostScript document", EXPORT),
    (0, b"SIMPLE  =", "a FITS file", CONVERT),
    (0, b"\x89HDF", "an HDF5 or MINC 2 file", "convert it to NIfTI"),
    (0, b"CDF\x01", "a NetCDF or MINC file", "convert it to NIfTI"),
    (0, b"CDF\x02", "a NetCDF or MINC file", "convert it to NIfTI"),
    (0, b"NRRD", "an NRRD volume", "convert it to NIfTI"),
    (0, b"ObjectType", "a MetaImage header", "convert it to NIfTI"),
    (0, b"\x00\x00\x00\x01\x00\x00", "an MGH volume", "convert it to NIfTI"),
    (0, b"\x93NUMPY", "a NumPy array", CONVERT),
    (0, b"MATLAB", "a MATLAB file", CONVERT),
    (0, b"TRACK\0", "a file of tracts (TrackVis)", "name an image file"),
    (0, b"mrtrix image", "an MRtrix volume", "convert it to NIfTI"),
    (0, b"mrtrix tracks", "a file of tracts (MRtrix)", "name an image file"),
    (0, b"FUJIFILMCCD-RAW", "a raw camera picture", CONVERT),
    (0, b"IIRO", "a raw camera picture (Olympus)", CONVERT),
    (0, b"IIU\0", "a raw camera picture (Panasonic)", CONVERT),
    (0, b"Salted__", "an encrypted file (OpenSSL)", "decrypt it first"),
    (0, b"-----BEGIN PGP", "an encrypted file (PGP)", "decrypt it first"),
    (0, b"age-encryption", "an encrypted file (age)", "decrypt it first"),
    (0, b"SQLite format 3", "a database", "name an image file"),
    (0, b"version https://git-lfs", "a pointer of Git LFS", "fetch the file it stands for"),
    (0, b"{\\rtf", "a text document", "name an image file"),
    (0, b"\xd0\xcf\x11\xe0", "an office document", EXPORT),
)  # fmt: skip
"""Where a mark stands, the mark, what it is of, and the remedy."""
ENVELOPE = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07"
"""Of a CMS (PKCS #7) object: a secure DICOM file, PS3.15."""


def unknown(data: bytes) -> RefusedError:
    """The refusal of a file that no reader knows."""
    if not data:
        return RefusedError(f"cannot be decoded: it is empty; copy it from its source {OR_OUT}")
    if not any(data):
        return damaged(f"it is {len(data):,} bytes of zero")
    kind, remedy = _kind(data)
    if not kind:
        return RefusedError(
            "cannot be decoded: it is of no format that is read here; convert it to PNG, JPEG, "
            f"TIFF, DICOM or NIfTI, {OR_OUT}"
        )
    return RefusedError(f"cannot be decoded: it looks to be {kind}; {remedy}, {OR_OUT}")


def looks_like(data: bytes) -> str:
    """What a file looks to be, in words."""
    return _kind(data)[0] or "of no known format"


def _kind(data: bytes) -> tuple[str, str]:
    for at, mark, kind, remedy in KNOWN:
        if data[at : at + len(mark)] == mark:
            return kind, remedy
    if data[:1] == b"\x30" and ENVELOPE in data[:64]:
        return (
            "an encrypted or signed envelope (CMS), as of a secure DICOM file",
            "decrypt it first",
        )
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in head:
        return "an SVG drawing", CONVERT
    if head.startswith((b"<!doctype html", b"<html")):
        return "a web page, such as a download that asked for a login", "download the image again"
    if head.startswith(b"<?xml") or head.startswith(b"<"):
        return "an XML document", "name an image file"
    if b"\0" not in data[:4096] and _is_text(data[:4096]):
        return "a text file", "name an image file"
    return "", ""


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(data) - 4 and error.start > 0  # cut within a character
    return True
