"""The bytes of a DICOM file as pydicom reads them: with bounded memory and time whatever the file claims.

References
----------
PS3.5 A.5 (Deflated Explicit VR Little Endian), RFC 1951 (deflate).
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from mammodensity.errors import DicomError

MOST_HEADER_BYTES = 64_000_000  # a whole header; tomosynthesis headers reach a few MB
MOST_READS = 100_000  # one or two an element; the headers of tomosynthesis volumes have some ten thousand elements
_STEP = 1 << 18
_KEPT = 1 << 16  # pydicom goes back by a few bytes only


class NotDicomError(DicomError):
    """A file that is no DICOM file, or cannot be opened."""


class Source(Protocol):
    """The methods of a file that pydicom needs."""

    def read(self, size: int = -1, /) -> bytes:
        """Read bytes."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move."""

    def tell(self) -> int:
        """Say where."""


class Bounded:
    """The part of a file that a header may lie in; no read takes more than there is, so a false length costs nothing.

    ``cut`` becomes true when a read or a jump would have gone past the end: the element there is not whole.
    """

    def __init__(self, stream: Source, size: int) -> None:
        self._stream = stream
        self._size = size
        self._left = MOST_READS
        self.tell = stream.tell
        self.cut = False

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move, no further than the end."""
        goal = offset + (self.tell() if whence == 1 else 0)
        reached = self._stream.seek(min(goal, self._size))
        self.cut = self.cut or reached < goal
        return reached

    def read(self, size: int = -1, /) -> bytes:
        """Read bytes, fewer at the end."""
        self._left -= 1
        if self._left < 0:
            raise DicomError(f"its header has more than {MOST_READS} elements and items; export it again", "damaged")
        left = self._size - self.tell()
        data = self._stream.read(left if size < 0 else min(size, left))
        self.cut = self.cut or 0 < len(data) < size
        return data


class Inflating:
    """Deflated content as a file, inflated no further than it is read; only the last stretch is kept."""

    def __init__(self, stream: BinaryIO, begin: int, path: Path) -> None:
        stream.seek(begin)
        self._stream = stream
        self._path = path
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._kept = bytearray()
        self._kept_from = 0
        self._place = 0

    def tell(self) -> int:
        """Offset in the inflated content."""
        return self._place

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move, no further than the end."""
        goal = offset + (self._place if whence == 1 else 0)
        while goal > self._end and self._more():
            self._place = self._end
            self._forget()
        self._place = min(goal, self._end)
        return self._place

    def read(self, size: int = -1, /) -> bytes:
        """Read bytes, fewer at the end."""
        while (size < 0 or self._place + size > self._end) and self._more():
            pass
        begin = self._place - self._kept_from
        if begin < 0:
            raise DicomError(f"{self._path} has deflated content that cannot be followed; copy it again", "damaged")
        data = bytes(memoryview(self._kept)[begin : len(self._kept) if size < 0 else begin + size])
        self._place += len(data)
        self._forget()
        return data

    @property
    def _end(self) -> int:
        return self._kept_from + len(self._kept)

    def _forget(self) -> None:
        if self._place - self._kept_from > _KEPT + _STEP:
            del self._kept[: self._place - self._kept_from - _KEPT]
            self._kept_from = self._place - _KEPT

    def _more(self) -> bool:
        """Inflate another piece; False at the end, be it the proper end or that of a file cut short."""
        if self._inflate.eof:
            return False
        chunk = self._inflate.unconsumed_tail or self._stream.read(1 << 16)
        try:
            piece = self._inflate.decompress(chunk, _STEP)
        except zlib.error as error:
            raise DicomError(f"{self._path} has damaged deflated content; copy it again", "damaged") from error
        self._kept += piece
        return bool(chunk or piece)


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, os.stat_result]]:
    """Open a file; yield it with its size and times, and close it afterwards.

    Raises
    ------
    NotDicomError
        It cannot be opened.
    DicomError
        It cannot be read on.
    """
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):  # opening a pipe would wait for its writer
            raise NotDicomError(f"{path} is no ordinary file", "not-dicom")
        stream = path.open("rb")
    except FileNotFoundError as error:
        raise NotDicomError(f"{path} not found", "not-dicom") from error
    except OSError as error:
        raise NotDicomError(f"{path} cannot be read ({error.strerror or error})", "damaged") from error
    with stream:
        try:
            yield stream, state
        except OSError as error:
            raise DicomError(f"{path} cannot be read ({error.strerror or error})", "damaged") from error
