"""Send objects by STOW-RS, one in a request, and judge the answer.

References
----------
DICOM PS3.18 section 10.5 and annex I.2.
"""

from __future__ import annotations

import json
from base64 import b64encode
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from pydicom.dataset import Dataset

from mammodensity.clinic.certificates import client_context, tls_reason
from mammodensity.clinic.config import StowDestination, Tls, read_secret
from mammodensity.errors import OptionError

_ANSWER_S = 60
_MOST_ANSWER_BYTES = 1_000_000
_BOUNDARY = "mammodensity-0f7c2a51d6e84b39"
CLASS_REFUSED = 0x0122


class NotStoredError(Exception):
    """An object that the server has not stored; the message says why."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final
        """Sending it again is of no use."""


def store(destination: StowDestination, tls: Tls | None, sop_uid: str, content: bytes) -> None:
    """Send one object, a DICOM file as bytes.

    Raises
    ------
    NotStoredError
        The server cannot be reached or trusted, or has not stored the object.
    """
    place = urlsplit(destination.url)
    try:
        headers = _headers(destination)
        connection: HTTPConnection = (
            HTTPSConnection(place.hostname or "", place.port, timeout=_ANSWER_S, context=client_context(tls))
            if place.scheme == "https"
            else HTTPConnection(place.hostname or "", place.port, timeout=_ANSWER_S)
        )
    except (OptionError, ValueError) as error:
        raise NotStoredError(str(error)) from error
    begin = f"--{_BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    end = f"\r\n--{_BOUNDARY}--\r\n".encode()
    try:
        connection.request("POST", f"{place.path.rstrip('/')}/studies", begin + content + end, headers)
        answer = connection.getresponse()
        status, text = answer.status, answer.read(_MOST_ANSWER_BYTES)
    except HTTPException as error:
        raise NotStoredError(f"its answer is no HTTP ({type(error).__name__})") from error
    except OSError as error:
        raise NotStoredError(f"it does not answer: {tls_reason(error)}") from error
    finally:
        connection.close()
    _judge(status, text, sop_uid)


def _headers(destination: StowDestination) -> dict[str, str]:
    headers = {
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={_BOUNDARY}',
        "Accept": "application/dicom+json",
    }
    if destination.token:
        headers["Authorization"] = f"Bearer {read_secret(destination.token)}"
    elif destination.password:
        login = f"{destination.user}:{read_secret(destination.password)}"
        headers["Authorization"] = f"Basic {b64encode(login.encode()).decode()}"
    return headers


def _judge(status: int, text: bytes, sop_uid: str) -> None:
    """Raise unless the answer says that the object is stored: a server may answer 200 and list it as failed."""
    answer = _parsed(text)
    failed = {
        str(item.get("ReferencedSOPInstanceUID", "")): int(item.get("FailureReason") or 0)
        for item in answer.get("FailedSOPSequence", ())
    }
    stored = [str(item.get("ReferencedSOPInstanceUID", "")) for item in answer.get("ReferencedSOPSequence", ())]
    if sop_uid in failed:
        code = failed[sop_uid]
        raise NotStoredError(f"HTTP status {status}, failure 0x{code:04X}", final=code == CLASS_REFUSED)
    if status == 200 or (status == 202 and sop_uid in stored):  # 200: all were stored, whatever else it says
        return
    raise NotStoredError(f"HTTP status {status}")


def _parsed(text: bytes) -> Dataset:
    """The data set of an answer; an empty one where there is none."""
    try:
        content: Any = json.loads(text)
        return Dataset.from_json(content[0] if isinstance(content, list) else content)
    except Exception:  # pydicom raises whatever such a text leads to
        return Dataset()
