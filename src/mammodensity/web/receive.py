"""Take objects by STOW-RS: each part of the request goes the way of a C-STORE, as soon as it is whole.

References
----------
DICOM PS3.18 section 10.5 and annex I.2.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from io import BytesIO

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydicom import dcmread
from pydicom.dataset import Dataset
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from mammodensity.clinic.inbox import CANNOT_UNDERSTAND, NO_RESOURCES, SUCCESS, Inbox
from mammodensity.clinic.node import Node

_SILENCE_S = 60
_OTHER_STUDY = 0xA900
_SENDER = "STOW-RS"
_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID")


class _Parts:
    """Cuts the body of a request into its parts, of which only one is in memory at a time."""

    def __init__(self, boundary: bytes, most_bytes: int) -> None:
        self.whole: list[tuple[str, bytes]] = []
        """Media type and content of the parts that have come whole."""
        self.ended = False
        self._most_bytes = most_bytes
        self._content, self._type = bytearray(), ""
        self._name, self._value = b"", b""
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._on_name,
                "on_header_value": self._on_value,
                "on_header_end": self._on_header,
                "on_part_data": self._on_data,
                "on_part_end": self._on_part,
                "on_end": self._on_end,
            },
        )

    def feed(self, data: bytes) -> list[tuple[str, bytes]]:
        """Take a piece of the body; returns the parts that end in it."""
        self._parser.write(data)
        whole, self.whole = self.whole, []
        return whole

    def _begin(self) -> None:
        self._content, self._type = bytearray(), "application/dicom"

    def _on_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        if self._name.lower() == b"content-type":
            self._type = parse_options_header(self._value)[0].decode("latin-1").lower()
        self._name, self._value = b"", b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if len(self._content) + end - start > self._most_bytes:
            raise HTTPException(413, f"an object is larger than {self._most_bytes // 1_000_000} MB")
        self._content += data[start:end]

    def _on_part(self) -> None:
        self.whole.append((self._type, bytes(self._content)))
        self._content = bytearray()

    def _on_end(self) -> None:
        self.ended = True


def receiving(node: Node) -> APIRouter:
    """The resources of STOW-RS."""
    router = APIRouter(prefix="/dicom-web")
    most_bytes = node.config.web.most_mb * 1_000_000

    @router.post("/studies")
    @router.post("/studies/{study_uid}")
    async def store(request: Request, study_uid: str = "") -> Response:
        """Store the objects of a multipart request, of one study where the path names it."""
        parts = _Parts(_boundary(request), most_bytes)
        answer = _Answer(node.inbox, study_uid)
        try:
            async for piece in _pieces(request):
                for media_type, content in parts.feed(piece):
                    await run_in_threadpool(answer.add, media_type, content)
        except FormParserError as error:
            raise HTTPException(400, "the body is no multipart message with the boundary that is stated") from error
        if not parts.ended or not answer.count:
            raise HTTPException(400, "the body ends before its last boundary, or holds no object")
        return answer.response()

    return router


def _boundary(request: Request) -> bytes:
    """The boundary of the parts; raises for a request that does not hold DICOM files."""
    if "origin" in request.headers:
        raise HTTPException(403, "pages of web sites may not store objects")
    media_type, options = parse_options_header(request.headers.get("content-type"))
    if media_type != b"multipart/related" or options.get(b"type", b"application/dicom") != b"application/dicom":
        raise HTTPException(415, 'expected Content-Type: multipart/related; type="application/dicom"; boundary=...')
    if not options.get(b"boundary"):
        raise HTTPException(400, "the Content-Type states no boundary")
    return options[b"boundary"]


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    """The body, piece by piece; a connection that is silent for too long is given up."""
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(_SILENCE_S):
                piece = await anext(stream, None)
        except TimeoutError as error:
            raise HTTPException(408, f"nothing came for {_SILENCE_S} s") from error
        if piece is None:
            return
        yield piece


class _Answer:
    """The answer to a request: what was stored, and what was not."""

    def __init__(self, inbox: Inbox, study_uid: str) -> None:
        self._inbox, self._study_uid = inbox, study_uid
        self._stored: list[Dataset] = []
        self._failed: list[Dataset] = []
        self._unknown: list[Dataset] = []

    @property
    def count(self) -> int:
        """Objects that came."""
        return len(self._stored) + len(self._failed) + len(self._unknown)

    def add(self, media_type: str, content: bytes) -> None:
        """Store one object."""
        sop_class, sop_uid, study_uid = _uids(content)
        if media_type != "application/dicom" or not sop_uid:
            status = CANNOT_UNDERSTAND
        elif self._study_uid and study_uid != self._study_uid:
            status = _OTHER_STUDY
        else:
            status = self._inbox.keep(content, _SENDER)
        item = Dataset()
        if sop_uid:
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_uid
        if status == SUCCESS:
            self._stored.append(item)
            return
        item.FailureReason = status
        (self._failed if sop_uid else self._unknown).append(item)

    def response(self) -> Response:
        """200 where all were stored, 202 where some were, 409 where none was, 503 where none could be for now."""
        answer = Dataset()
        answer.RetrieveURL = ""
        sequences = {
            "ReferencedSOPSequence": self._stored,
            "FailedSOPSequence": self._failed,
            "OtherFailuresSequence": self._unknown,
        }
        for keyword, items in sequences.items():
            if items:
                setattr(answer, keyword, items)
        failed = [*self._failed, *self._unknown]
        if not failed:
            status = 200
        elif self._stored:
            status = 202
        else:
            status = 503 if all(item.FailureReason == NO_RESOURCES for item in failed) else 409
        headers = {"Retry-After": "60"} if status == 503 else None
        return Response(answer.to_json(), status, headers, "application/dicom+json")


def _uids(content: bytes) -> tuple[str, str, str]:
    """SOP Class, SOP Instance and Study Instance UID of a DICOM file; blank for anything else."""
    try:
        header = dcmread(BytesIO(content), stop_before_pixels=True, specific_tags=list(_UIDS))
        sop_class, sop_uid, study_uid = (str(header.get(keyword) or "") for keyword in _UIDS)
    except Exception:  # pydicom raises whatever the bytes of a damaged object lead to
        return "", "", ""
    return sop_class, sop_uid, study_uid
