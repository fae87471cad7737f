"""What a DICOMweb service's refusals mean, and what to do."""

import httpx

from hica_client.pacs.connection import AGAIN, network_words

GONE = "were there when the PACS was searched and are gone now; look whether the study was moved"
FAILED = (
    "could not be sent by the PACS, which reports an error of its own; look for it in its log, or "
    "open the images at a viewer"
)
FORBIDDEN = "may not be fetched by this user; ask the PACS's administrator to allow it"


def of_status(status: int, *, signed: bool) -> str:
    """Why a search or a fetch was refused, by HTTP status; `signed`: a password was sent."""
    if status == httpx.codes.UNAUTHORIZED and signed:
        return "refuses this user or password; set user and password_file in [pacs] anew"
    if status == httpx.codes.UNAUTHORIZED:
        return "asks for user and password; set user and password_file in [pacs] of the site file"
    if status == httpx.codes.FORBIDDEN:
        return "this user may not search or fetch there; ask its administrator to allow both"
    if status == httpx.codes.NOT_FOUND:
        return (
            "no DICOMweb service at this address; it often ends in /dicom-web, /rs or "
            "/aets/AETITLE/rs: ask the PACS's administrator"
        )
    if 300 <= status < 400:
        return "sends on to another address, which is not followed; give that one, if it is its"
    if status >= 500:
        return f"reports an error of its own; ask its administrator, look into its log: {AGAIN}"
    return "does not take the search; leave selections out until it does, tell its administrator"


def of_error(error: httpx.RequestError) -> str:
    """Why there was no answer; httpx has what the system said somewhere below its own error."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError) and not isinstance(error, httpx.ReadError):
            return network_words(below)
        below = below.__cause__ or below.__context__
    if isinstance(error, httpx.TimeoutException):
        return network_words(TimeoutError())
    if isinstance(error, httpx.ProtocolError | httpx.ReadError):
        return (
            "closes the connection without an answer in HTTP; if it is a DICOM port, write the "
            f"address as dicom://AETITLE@host:port; else it may be restarting: {AGAIN}"
        )
    return network_words(ConnectionError())
