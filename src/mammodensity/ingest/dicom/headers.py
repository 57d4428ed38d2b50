"""The header of a DICOM file: read leniently, without pixels, with bounded memory whatever the file claims."""

from __future__ import annotations

import logging
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from mammodensity.errors import DicomError

PREFIX = b"DICM"
MOST_PIXELS = 100_000_000  # five times the largest mammography detector; more is a mistake or an attack
LARGEST_FILE_BYTES = 2_000_000_000
_MOST_HEADER_BYTES = 64_000_000  # tomosynthesis headers reach a few MB
_MOST_META_BYTES = 1 << 20
_MOST_READS = 2_000_000
_MOST_INFLATED_BYTES = 2 * MOST_PIXELS + _MOST_HEADER_BYTES
_PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)

TAGS = tuple(
    """
    TransferSyntaxUID SpecificCharacterSet ImageType SOPClassUID SOPInstanceUID StudyDate ContentDate ContentTime
    AcquisitionDate AcquisitionTime AcquisitionDateTime Modality ConversionType PresentationIntentType
    Manufacturer ManufacturerModelName SeriesDescription StudyDescription ProtocolName
    PerformedProcedureStepDescription VolumeBasedCalculationTechnique AnatomicRegionSequence PatientID
    IssuerOfPatientID PatientAge BodyPartExamined BodyPartThickness EstimatedRadiographicMagnificationFactor
    ImagerPixelSpacing PositionerType ViewPosition PaddleDescription FieldOfViewDimensions
    FieldOfViewHorizontalFlip DetectorMode StudyInstanceUID SeriesInstanceUID InstanceNumber PatientOrientation
    Laterality ImageLaterality SamplesPerPixel PhotometricInterpretation PlanarConfiguration NumberOfFrames Rows
    Columns PixelSpacing BitsAllocated BitsStored HighBit PixelRepresentation PixelPaddingValue
    PixelPaddingRangeLimit QualityControlImage BurnedInAnnotation WindowCenter WindowWidth RescaleIntercept
    RescaleSlope WindowCenterWidthExplanation VOILUTFunction BreastImplantPresent PartialView ModalityLUTSequence
    VOILUTSequence NominalScannedPixelSpacing ViewCodeSequence CalibrationImage ContainerIdentifier
    SpecimenDescriptionSequence PresentationLUTShape SharedFunctionalGroupsSequence ImageComments
    LossyImageCompression DistanceSourceToDetector DistanceSourceToPatient ViewModifierCodeSequence
    PartialViewCodeSequence PartialViewDescription
    """.split()  # noqa: SIM905  (a list of eighty quoted names is harder to read)
)
"""Everything the gatekeeper and the grey-scale pipeline look at; nothing else of a header is kept."""
_TAG_OF = {name: Tag(name) for name in TAGS}
_WANTED: list[BaseTag | int] = list(_TAG_OF.values())


class Source(Protocol):
    """What pydicom needs of a file."""

    def read(self, size: int = -1, /) -> bytes:
        """Read bytes."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move."""

    def tell(self) -> int:
        """Say where."""


class _Bounded:
    """A file whose ``read`` never asks for more than is there, so that a false length costs no memory."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._size = size
        self._left = _MOST_READS
        self.seek = stream.seek
        self.tell = stream.tell

    def read(self, size: int = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise DicomError("its header has more elements than any header", "damaged")
        left = max(0, self._size - self._stream.tell())
        wanted = left if size < 0 else min(size, left)
        if wanted > _MOST_HEADER_BYTES:
            raise DicomError("an element before the pixels is larger than any header", "damaged")
        return self._stream.read(wanted)


@dataclass(frozen=True, eq=False)
class Header:
    """A header as read, and where the pixels begin."""

    path: Path
    dataset: Dataset
    syntax: str
    """Transfer Syntax UID."""
    size: int
    """Bytes of the file, or of the inflated content."""
    pixel_start: int
    """Offset of the tag of Pixel Data; -1 where there is none."""
    implicit: bool = False
    little: bool = True
    flags: tuple[str, ...] = field(default=())
    """What was lenient about reading it."""
    _texts: dict[str, str] = field(default_factory=dict, repr=False)

    def get(self, keyword: str, default: Any = None) -> Any:
        """The value of an element, or ``default`` where it is absent, empty or unreadable."""
        if _TAG_OF[keyword] not in self.dataset:
            return default
        try:
            value = self.dataset[_TAG_OF[keyword]].value
        except Exception:  # a damaged element raises whatever its bytes lead to; for us it is absent
            return default
        return default if value is None or value == "" or (isinstance(value, list) and not value) else value

    def text(self, keyword: str) -> str:
        """An element as one upper-case text; several values joined by a backslash."""
        if keyword not in self._texts:
            self._texts[keyword] = self._text(keyword)
        return self._texts[keyword]

    def _text(self, keyword: str) -> str:
        value = self.get(keyword)
        if value is None:
            return ""
        try:
            several = not isinstance(value, str) and hasattr(value, "__iter__")
            joined = "\\".join(str(one) for one in value) if several else str(value)
        except Exception:
            return ""
        return " ".join(joined.replace("\0", " ").split()).upper()

    def number(self, keyword: str, place: int = 0) -> float | None:
        """An element, or its value at ``place``, as a finite number; None where it is none."""
        value = self.get(keyword)
        try:
            if not isinstance(value, (str, bytes)) and hasattr(value, "__getitem__"):
                value = value[place]
            number = float(value)
        except Exception:
            return None
        return number if abs(number) < float("inf") else None

    def whole(self, keyword: str) -> int | None:
        """An element as a whole number, or None."""
        number = self.number(keyword)
        return int(number) if number is not None and number == int(number) else None

    def items(self, keyword: str, inside: Any = None) -> list[Any]:
        """The items of a sequence; none where it is absent or damaged."""
        try:
            value = self.dataset.get(keyword) if inside is None else inside.get(keyword)
            return [item for item in value if isinstance(item, Dataset)] if value else []
        except Exception:
            return []


def say(header: Header, text: str) -> str:
    """One line about a file."""
    return f"{header.path}: {text}"


def looks_like_dicom(path: Path) -> bool:
    """True when the content begins as a DICOM file does, with or without the preamble; reads 140 bytes."""
    try:
        if not path.is_file():  # opening a pipe would wait for its writer
            return False
        with path.open("rb") as stream:
            return _kind(stream.read(144)) is not None
    except OSError:
        return False


def _kind(start: bytes) -> str | None:
    """``"file"`` with preamble and prefix, ``"bare"`` without, None for what is no DICOM file."""
    if start[128:132] == PREFIX:
        return "file"
    if len(start) < 16:
        return None
    for order in "<>":
        group, element = struct.unpack(f"{order}HH", start[:4])
        if group not in (0x0002, 0x0008) or element > 0x0060:
            continue
        if start[4:6].isalpha() and start[4:6].isupper():
            length = struct.unpack(f"{order}H", start[6:8])[0]
            if length <= 256:
                return "bare"
        elif struct.unpack(f"{order}L", start[4:8])[0] <= 256 and order == "<":
            return "bare"
    return None


_LOGGER = logging.getLogger("pydicom")
_quiet_lock = threading.Lock()
_quiet: list[ExitStack] = []


@contextmanager
def quiet() -> Iterator[None]:
    """Without pydicom's warnings: what they are about is checked here.

    Filters of warnings belong to the whole process, so the first thread in sets them and the last one out takes them
    back; each thread for itself would undo what another needs.
    """
    with _quiet_lock:
        if not _quiet:
            _quiet.append(_silenced())
        else:
            _quiet.append(ExitStack())
    try:
        yield
    finally:
        with _quiet_lock:
            # the first entry holds what is to be taken back, so it goes last
            _quiet.pop().close()


def _silenced() -> ExitStack:
    stack = ExitStack()
    stack.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")
    stack.callback(_LOGGER.setLevel, _LOGGER.level)
    _LOGGER.setLevel(logging.CRITICAL)
    return stack


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """The file and its size, closed afterwards; system errors become a refusal."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            yield stream, size
    except FileNotFoundError as error:
        raise DicomError(f"{path} not found", "not-dicom") from error
    except OSError as error:
        raise DicomError(f"{path} cannot be read ({error.strerror or error})", "damaged") from error


def read_header(path: Path) -> Header:
    """Read the elements of ``TAGS``, no pixels.

    Raises
    ------
    DicomError
        No DICOM file, or one whose header cannot be followed.
    """
    with opened(path) as (stream, size):
        try:
            with quiet():
                return _parse(path, stream, size)
        except DicomError as error:
            text = str(error)
            raise DicomError(text if str(path) in text else f"{path}: {text}", error.code) from error
        except OSError:
            raise
        except Exception as error:  # pydicom raises many types on damaged bytes
            raise DicomError(
                f"{path} has a damaged header ({type(error).__name__}); copy it again", "damaged"
            ) from error


def _parse(path: Path, stream: BinaryIO, size: int) -> Header:
    if size == 0:
        raise DicomError(f"{path} is empty; copy it again", "damaged")
    start = stream.read(144)
    kind = _kind(start)
    if kind is None:
        raise DicomError(f"{path} is no DICOM file", "not-dicom")
    if size > LARGEST_FILE_BYTES:
        raise DicomError(f"{path} is larger than any mammogram ({size} bytes)", "absurd-size")
    flags: tuple[str, ...] = ()
    stream.seek(132 if kind == "file" else 0)
    source: Any = _Bounded(stream, size)
    meta, after = _meta(_Bounded(stream, min(size, _MOST_META_BYTES)))
    syntax = str(meta.get("TransferSyntaxUID", "") or "").strip()
    if kind == "bare":
        flags += ("no-preamble",)
    if not syntax:
        flags += ("no-transfer-syntax",)
    stream.seek(after)
    if syntax == DeflatedExplicitVRLittleEndian:
        source, size = _inflated(stream, _MOST_HEADER_BYTES)
    implicit, little = _encoding(source, syntax)
    if not syntax:
        syntax = ImplicitVRLittleEndian if implicit else "1.2.840.10008.1.2.1" if little else ExplicitVRBigEndian
    stopped: list[bool] = []

    def at_pixels(tag: Any, _vr: str | None, _length: int) -> bool:
        if tag in _PIXEL_TAGS:
            stopped.append(True)
        return bool(stopped)

    dataset = read_dataset(source, implicit, little, stop_when=at_pixels, specific_tags=_WANTED)
    for keyword in ("MediaStorageSOPClassUID",):
        if not dataset.get("SOPClassUID") and meta.get(keyword):
            dataset.SOPClassUID = meta.get(keyword)
    return Header(path, dataset, syntax, size, source.tell() if stopped else -1, implicit, little, flags)


def _meta(source: Any) -> tuple[Dataset, int]:
    """The file meta information (group 2) and the offset after it; empty where there is none."""
    begin = source.tell()
    first = source.read(8)
    source.seek(begin)
    if len(first) < 8 or struct.unpack("<H", first[:2])[0] != 2:
        return Dataset(), begin
    implicit = not first[4:6].isalpha()  # against the standard, but met

    def after_meta(tag: Any, _vr: str | None, _length: int) -> bool:
        return int(tag) >> 16 != 2

    meta = read_dataset(source, implicit, True, stop_when=after_meta)
    return meta, _rewound(source, begin, implicit)


def _rewound(source: Any, begin: int, implicit: bool) -> int:
    """Offset of the first element that is not of group 2, found by walking: the next group may be big-endian."""
    source.seek(begin)
    while True:
        place = source.tell()
        head = source.read(8)
        if len(head) < 8 or head[:2] != b"\x02\x00":
            return int(place)
        if implicit:
            length = struct.unpack("<L", head[4:])[0]
        elif head[4:6] in (b"OB", b"OW", b"UN", b"UT", b"SQ", b"OF"):
            more = source.read(4)
            length = struct.unpack("<L", more)[0] if len(more) == 4 else 0
        else:
            length = struct.unpack("<H", head[6:8])[0]
        source.seek(source.tell() + length)


def _encoding(source: Any, syntax: str) -> tuple[bool, bool]:
    """Implicit VR? little endian? As the first element shows; the transfer syntax where it shows nothing."""
    begin = source.tell()
    head = source.read(6)
    source.seek(begin)
    little = syntax != ExplicitVRBigEndian
    if len(head) < 6:
        return syntax == ImplicitVRLittleEndian, little
    if not syntax:
        little = struct.unpack("<H", head[:2])[0] < struct.unpack(">H", head[:2])[0]
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return not explicit, little


def _inflated(stream: BinaryIO, most: int) -> tuple[BytesIO, int]:
    """The content after a deflated header, at most so many bytes of it."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    out = bytearray()
    while len(out) < most and not inflate.eof:
        chunk = inflate.unconsumed_tail or stream.read(1 << 16)
        if not chunk:
            break
        try:
            out += inflate.decompress(chunk, min(1 << 22, most - len(out)))
        except zlib.error as error:
            raise DicomError("its deflated content is damaged; copy it again", "damaged") from error
        if out.find(b"\xe0\x7f\x10\x00", max(0, len(out) - (1 << 22) - 4)) >= 0 and most == _MOST_HEADER_BYTES:
            break  # the header needs no more
    return BytesIO(bytes(out)), len(out)


def inflated_content(header: Header) -> bytes:
    """All content of a deflated file, refused where it is larger than any mammogram."""
    with opened(header.path) as (stream, size):
        stream.seek(132)
        _, after = _meta(_Bounded(stream, min(size, _MOST_META_BYTES)))
        stream.seek(after)
        content, length = _inflated(stream, _MOST_INFLATED_BYTES)
        if length >= _MOST_INFLATED_BYTES:
            raise DicomError(f"{header.path} inflates to more than any mammogram holds", "absurd-size")
        return content.getvalue()


def one_line(error: BaseException) -> str:
    """What an error says, shortened to one line."""
    return " ".join(str(error).split())[:120] or type(error).__name__
