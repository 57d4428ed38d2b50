"""The header of a DICOM file: its elements as text, numbers and items, and the place of its pixels."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from mammodensity.data.dicom.file_bytes import Inflating, Source
from mammodensity.data.dicom.file_checks import Reason

TAGS = tuple(
    """
    TransferSyntaxUID SpecificCharacterSet ImageType SOPClassUID SOPInstanceUID StudyDate ContentDate ContentTime
    AcquisitionDate AcquisitionTime AcquisitionDateTime AccessionNumber Modality ConversionType
    PresentationIntentType Manufacturer ManufacturerModelName StationName SeriesDescription StudyDescription
    ProtocolName PerformedProcedureStepDescription VolumeBasedCalculationTechnique AnatomicRegionSequence PatientID
    IssuerOfPatientID PatientAge BodyPartExamined BodyPartThickness EstimatedRadiographicMagnificationFactor
    ImagerPixelSpacing PositionerType ViewPosition PaddleDescription FieldOfViewDimensions
    FieldOfViewHorizontalFlip DetectorMode StudyInstanceUID SeriesInstanceUID InstanceNumber PatientOrientation
    Laterality ImageLaterality SamplesPerPixel PhotometricInterpretation PlanarConfiguration NumberOfFrames Rows
    Columns PixelSpacing BitsAllocated BitsStored HighBit PixelRepresentation PixelPaddingValue
    PixelPaddingRangeLimit QualityControlImage BurnedInAnnotation WindowCenter WindowWidth RescaleIntercept
    RescaleSlope WindowCenterWidthExplanation VOILUTFunction BreastImplantPresent PartialView ModalityLUTSequence
    VOILUTSequence NominalScannedPixelSpacing ViewCodeSequence CalibrationImage ContainerIdentifier
    SpecimenDescriptionSequence PresentationLUTShape SharedFunctionalGroupsSequence ImageComments
    LossyImageCompression PerFrameFunctionalGroupsSequence DistanceSourceToDetector DistanceSourceToPatient
    ViewModifierCodeSequence PartialViewCodeSequence PartialViewDescription AcquisitionDeviceProcessingDescription
    """.split()  # noqa: SIM905  (a list of eighty quoted names is harder to read)
)
"""The elements that the gatekeeper, the grey-scale pipeline and the facts need; nothing else of a header is kept."""
_TAG_OF = {name: Tag(name) for name in TAGS}
_OVERLAY_BIT_POSITIONS = [Tag(0x6000 + 2 * plane, 0x0102) for plane in range(16)]
WANTED_TAGS: list[BaseTag | int] = [*_TAG_OF.values(), *_OVERLAY_BIT_POSITIONS]


@dataclass(frozen=True)
class Codestream:
    """Size and depth that a JPEG, JPEG-LS or JPEG 2000 codestream states itself."""

    rows: int
    columns: int
    samples: int
    precision: int
    process: int = 0
    """Second byte of the frame marker of a JPEG: C0 baseline, C1 extended, C3 lossless."""


@dataclass(frozen=True)
class PixelData:
    """The place of the bytes of the pixels, and the facts that they state themselves."""

    spans: tuple[tuple[int, int], ...]
    """Offset and length of each fragment; a single one for native pixels."""
    encapsulated: bool
    vr: str
    codestream: Codestream | None = None
    """None for native pixels, for RLE, and where the bytes are no codestream of the transfer syntax."""

    @property
    def length(self) -> int:
        """Bytes in all."""
        return sum(length for _, length in self.spans)


@dataclass(frozen=True, eq=False)
class Header:
    """The header of one file, and where its pixels lie."""

    path: Path
    dataset: Dataset
    syntax: str
    """Transfer Syntax UID."""
    size: int
    """Bytes of the file."""
    changed_ns: int
    """When the file was last changed (ns)."""
    pixel_start: int
    """Offset of the tag of Pixel Data, in the inflated content where that is deflated; -1 where there is none."""
    implicit: bool = False
    little: bool = True
    flags: tuple[str, ...] = field(default=())
    """The ways in which reading was lenient."""
    deflated_at: int = -1
    """Offset of the deflated data set; -1 where the data set is not deflated."""
    pixels: PixelData | Reason | None = None
    """Where the pixels lie, or why they cannot be read; None before that was looked for."""
    _texts: dict[str, str] = field(default_factory=dict, repr=False)

    def is_current(self) -> bool:
        """True while the file has the size and the time of change that it had when this header was read."""
        try:
            state = self.path.stat()
        except OSError:
            return False
        return (state.st_size, state.st_mtime_ns) == (self.size, self.changed_ns)

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
            self._texts[keyword] = self.exact_text(keyword).upper()
        return self._texts[keyword]

    def exact_text(self, keyword: str) -> str:
        """An element as one text, upper and lower case as written."""
        value = self.get(keyword)
        if value is None:
            return ""
        try:
            several = not isinstance(value, str) and hasattr(value, "__iter__")
            joined = "\\".join(map(str, value)) if several else str(value)
        except Exception:
            return ""
        return " ".join(joined.replace("\0", " ").split())

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

    def is_given(self, keyword: str) -> bool:
        """True where an element is there and not empty, readable or not."""
        tag = _TAG_OF[keyword]
        if tag not in self.dataset:
            return False
        value = self.dataset.get_item(tag).value
        return bool(value.strip(b" \0") if isinstance(value, bytes) else value or value == 0)

    def overlay_bits(self) -> int:
        """The bits of a pixel cell that overlay planes lie in (PS3.5 8.1.2), as a mask; 0 where there is none."""
        mask = 0
        for tag in _OVERLAY_BIT_POSITIONS:
            try:
                position = int(self.dataset[tag].value)
            except Exception:  # absent or unreadable
                continue
            mask |= 1 << position if 0 <= position < 16 else 0
        return mask

    def items(self, keyword: str, inside: Any = None) -> list[Any]:
        """The items of a sequence; none where it is absent or damaged."""
        try:
            value = self.dataset.get(keyword) if inside is None else inside.get(keyword)
            return [item for item in value if isinstance(item, Dataset)] if value else []
        except Exception:
            return []

    def content(self, stream: BinaryIO) -> Source:
        """The content of the opened file, inflated where it is deflated; offsets are those of the header."""
        return stream if self.deflated_at < 0 else Inflating(stream, self.deflated_at, self.path)


def say(header: Header, text: str) -> str:
    """One line about a file."""
    return f"{header.path}: {text}"


_LOGGER = logging.getLogger("pydicom")
_quiet_lock = threading.Lock()
_quiet: list[ExitStack] = []


@contextmanager
def quiet() -> Iterator[None]:
    """Silence pydicom's warnings: what they are about is checked here.

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
