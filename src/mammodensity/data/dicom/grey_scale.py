"""The grey-scale pipeline of the standard: stored values to 16-bit values that are bright where much attenuates.

All pixels of one stored value get the same result, so it is computed once for each possible value, and looked up for
each pixel.

References
----------
PS3.3 C.11.1 (modality LUT, rescale), C.11.2 (VOI LUT; C.11.2.1.2 and C.11.2.1.3 the window functions), C.7.5.1.1.2
(pixel padding), C.7.6.16.2.9 and C.7.6.16.2.10 (rescale and window of frames), C.8.11.3 (presentation LUT shape of
digital X-ray); PS3.4 N.2 (order of the steps).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import dictionary_description
from pydicom.dataset import Dataset

from mammodensity.data.dicom.header import Header, PixelData, quiet
from mammodensity.errors import DicomError

_WHITE = 65535
_OF_FRAMES = {
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
}
"""Functional groups, and their elements that concern grey values."""
Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Table:
    """A look-up table: LUT Descriptor and LUT Data."""

    first: int
    """The value that the first entry is for."""
    data: Values
    bits: int

    def apply(self, values: Values) -> Values:
        """Look values up; values below the first entry take the first, values above the last take the last."""
        places = np.clip(np.round(values) - self.first, 0, len(self.data) - 1).astype(np.int64)
        looked_up: Values = self.data[places]
        return looked_up


def rendered(header: Header, stored: NDArray[np.int32]) -> tuple[NDArray[np.uint16], bool]:
    """Render an image (H, W) as it is presented, 0 black to 65535 white.

    The header may state more bits than the pixels have, or a window or table for more: then the range in use counts.

    Returns
    -------
    The image, and whether its range had to be found in the pixels.

    Raises
    ------
    DicomError
        A rescale, window or table that makes no sense.
    """
    header = _with_frame(header)
    bits = _depth(header)
    low = -(1 << (bits - 1)) if header.whole("PixelRepresentation") == 1 else 0
    high = low + (1 << bits) - 1
    padding = _is_padding(header, stored, low, high)
    places = np.clip(stored, low, high) - low
    share = _presented(header, low, bits)
    rows = slice(None, None, 1 + stored.size // _ENOUGH)
    counts = np.bincount(places[rows][~padding[rows]], minlength=1 << bits)
    base, scale = _range_in_use(header, share, counts, bits)
    result = _grey(header, np.clip((share - base) / scale, 0, 1))[places]
    result[padding] = 0
    return result, scale < 1


def _depth(header: Header) -> int:
    """Bits of the stored values: no more than the codestream has, whatever the header says."""
    bits = header.whole("BitsStored") or header.whole("BitsAllocated") or 16
    stream = header.pixels.codestream if isinstance(header.pixels, PixelData) else None
    return bits if stream is None else min(bits, stream.precision)


_ENOUGH = 1_000_000  # pixels looked at, in whole rows
_SELDOM = 0.005  # of the pixels: markers, labels and dead pixels, which may be brighter than any tissue
_UNUSED_BITS = 2  # detectors differ by two bits; no window leaves that much unused on purpose


def _range_in_use(header: Header, share: Values, counts: NDArray[np.int64], bits: int) -> tuple[float, float]:
    """The part of the range 0 to 1 that the pixels use: where it begins, and its length; all of it but for dark images.

    Parameters
    ----------
    share
        Of each stored value, before MONOCHROME1 is inverted.
    counts
        Number of pixels of each stored value.
    """
    order = np.argsort(share, kind="stable")
    below = np.cumsum(counts[order])
    if not below[-1]:
        return 0.0, 1.0
    ends = np.searchsorted(below, [_SELDOM * below[-1], (1 - _SELDOM) * below[-1]], side="right")
    first, last = share[order[np.minimum(ends, len(order) - 1)]]
    table = _first_item(header, "VOILUTSequence")
    if table is not None:
        bits = _table(header, table, signed=False).bits
    base, scale = 0.0, 1.0
    for used in range(bits - _UNUSED_BITS, 1, -_UNUSED_BITS):
        part = ((1 << used) - 1) / ((1 << bits) - 1)
        starts = [0.0, 1 - part]
        if header.whole("PixelRepresentation") == 1:
            starts += [0.5, 0.5 - part / 2]
        fitting = [start for start in starts if start <= first + _TINY and last <= start + part + _TINY]
        if not fitting:
            break
        base, scale = fitting[0], part
    return base, scale


_TINY = 1e-5  # of the range: less than a grey value of 16 bits


def _with_frame(header: Header) -> Header:
    """The header with the rescale and window of its frame, where functional groups state them.

    So they do in the SOP classes of tomosynthesis, which synthetic images may have.
    """
    dataset = Dataset(dict(header.dataset.items()))  # made from a data set, pydicom would share its elements
    for keyword, names in _OF_FRAMES.items():
        for group in _frame_groups(header, keyword):
            for name in names:
                dataset.pop(name, None)
                if name in group:
                    dataset[name] = group[name]
    return replace(header, dataset=dataset, _texts={})


def _frame_groups(header: Header, keyword: str) -> Iterator[Dataset]:
    """A functional group of the first frame: the one that all frames share, then the frame's, which counts more."""
    for where in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for item in header.items(where)[:1]:
            yield from header.items(keyword, item)[:1]


def _is_padding(header: Header, stored: NDArray[np.int32], low: int, high: int) -> NDArray[np.bool_]:
    """Mark padding.

    A padding value that needs more bits than there are (65535 with 12) is stored whole where the cells have room for
    it. A coder without that room leaves its lower bits; they count as padding at an end of the range only, since
    elsewhere they may be tissue.
    """
    ends = padding_range(header)
    if ends is None:
        return np.zeros(stored.shape, np.bool_)
    padding: NDArray[np.bool_] = (stored >= ends[0]) & (stored <= ends[1])
    if ends[0] > high or ends[1] < low:
        lower = (ends[0] - low) % (high - low + 1) + low
        if lower in (low, high):
            padding |= stored == lower
    return padding


def _presented(header: Header, low: int, bits: int) -> Values:
    """Share of each stored value from ``low`` on: modality, then VOI."""
    with quiet():
        values = modality_values(header, np.arange(low, low + (1 << bits), dtype=np.float64))
        share = voi_share(header, values)
    if not np.isfinite(share).all():
        raise DicomError(f"{header.path} has a rescale or window without numbers; export it again", "grey-scale")
    return share


def _grey(header: Header, share: Values) -> NDArray[np.uint16]:
    """Grey values of shares, those of MONOCHROME1 inverted."""
    if is_inverted(header):
        share = 1 - share
    # Rounded twice, so that MONOCHROME1 and 2 agree whatever the last bit of a floating-point number is.
    return np.floor(np.round(share * _WHITE, 4) + 0.5).astype(np.uint16)


def is_inverted(header: Header) -> bool:
    """True when the largest VOI value is the darkest: MONOCHROME1, or Presentation LUT Shape INVERSE."""
    return header.text("PhotometricInterpretation") == "MONOCHROME1" or header.text("PresentationLUTShape") == "INVERSE"


def modality_values(header: Header, values: Values) -> Values:
    """Stored values after the modality LUT or rescale."""
    item = _first_item(header, "ModalityLUTSequence")
    if item is not None:
        return _table(header, item, signed=header.whole("PixelRepresentation") == 1).apply(values)
    slope, intercept = _stated(header, "RescaleSlope"), _stated(header, "RescaleIntercept")
    if slope == 0:
        raise DicomError(f"{header.path} has a Rescale Slope of 0; export it again", "grey-scale")
    return values * (1.0 if slope is None else slope) + (0.0 if intercept is None else intercept)


def _stated(header: Header, keyword: str) -> float | None:
    """A number of the grey scale; None where it is absent, a refusal where it is there but no number."""
    number = header.number(keyword)
    if number is None and header.is_given(keyword):
        name = dictionary_description(keyword)
        raise DicomError(f"{header.path} has a {name} that is no number; export it again", "grey-scale")
    return number


def _first_item(header: Header, keyword: str) -> Dataset | None:
    """The first item of a sequence; None where it is absent or empty, a refusal where it cannot be read."""
    items = header.items(keyword)
    if not items and header.is_given(keyword):
        name = dictionary_description(keyword)
        raise DicomError(f"{header.path} has a {name} that cannot be read; export it again", "grey-scale")
    return items[0] if items else None


def voi_share(header: Header, values: Values) -> Values:
    """Convert all possible modality values to shares 0 to 1 of the output range."""
    item = _first_item(header, "VOILUTSequence")
    if item is not None:
        table = _table(header, item, signed=bool(values.min() < 0))
        return np.clip(table.apply(values) / ((1 << table.bits) - 1), 0, 1)
    centre, width = _stated(header, "WindowCenter"), _stated(header, "WindowWidth")
    if (centre is None) != (width is None):
        there, missing = ("Width", "Center") if centre is None else ("Center", "Width")
        text = f"a Window {there} without a Window {missing}; export it again"
        raise DicomError(f"{header.path} has {text}", "grey-scale")
    count, other = (len(header.text(keyword).split("\\")) for keyword in ("WindowCenter", "WindowWidth"))
    if count != other:
        raise DicomError(f"{header.path} has {count} Window Centers for {other} widths; export it again", "grey-scale")
    if centre is None or width is None:
        lowest, highest = values.min(), values.max()
        return np.asarray((values - lowest) / (highest - lowest))
    # The standard has one function for all windows (C.11.2.1.3); one repeated for each window contradicts nothing.
    functions = set(header.text("VOILUTFunction").split("\\"))
    function = functions.pop() if len(functions) == 1 else "several"
    return window(values, centre, width, function or "LINEAR", str(header.path))


def window(values: Values, centre: float, width: float, function: str, name: str = "window") -> Values:
    """Apply a window: values to shares 0 to 1.

    >>> window(np.array([0.0, 1024.0, 2047.0, 4095.0]), 2048, 4096, "LINEAR").round(4).tolist()
    [0.0, 0.2501, 0.4999, 1.0]
    >>> window(np.array([0.0, 2048.0]), 2048, 1024, "SIGMOID").round(4).tolist()
    [0.0003, 0.5]
    """
    if width <= 0 or (function == "LINEAR" and width < 1):
        raise DicomError(f"{name} has a Window Width of {width:g}; export it again", "grey-scale")
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700))))
    if function == "LINEAR_EXACT":
        return np.asarray(np.clip((values - centre) / width + 0.5, 0, 1))
    if function != "LINEAR":
        raise DicomError(
            f"{name} has a VOI LUT Function that is not defined, or several; export it again", "grey-scale"
        )
    if width == 1:
        return (values > centre - 0.5).astype(np.float64)
    return np.asarray(np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1))


def _table(header: Header, item: Any, *, signed: bool) -> Table:
    """Read LUT Descriptor and LUT Data, whatever VR they were written with."""
    wrong = DicomError(f"{header.path} has a look-up table that makes no sense; export it again", "grey-scale")
    try:
        count, first, bits = map(int, item["LUTDescriptor"].value)
        data = item["LUTData"].value
    except Exception as error:
        raise wrong from error
    count = (count & 0xFFFF) or 65536
    first &= 0xFFFF
    if signed and first > 0x7FFF:
        first -= 0x10000
    if isinstance(data, (bytes, bytearray)):
        small = len(data) < 2 * count and bits <= 8
        numbers = np.frombuffer(data, np.uint8 if small else "<u2" if header.little else ">u2", -1)
        entries = numbers.astype(np.float64)
    else:
        try:
            entries = np.atleast_1d(np.asarray(data, np.float64))
        except (TypeError, ValueError) as error:
            raise wrong from error
    if len(entries) * 2 == count and bits <= 8:  # two 8-bit entries a word
        words = entries.astype(np.uint16)
        entries = np.stack([words & 0xFF, words >> 8], axis=1).ravel().astype(np.float64)
    if len(entries) < count or not 8 <= bits <= 16 or entries.min() < 0:
        raise wrong
    return Table(first, entries[:count], bits)


def padding_range(header: Header) -> tuple[int, int] | None:
    """The first and last stored value that are padding: Pixel Padding Value and Range Limit."""
    value = header.whole("PixelPaddingValue")
    if value is None:
        return None
    limit = header.whole("PixelPaddingRangeLimit")
    ends = [value, value if limit is None else limit]
    if header.whole("PixelRepresentation") == 1:
        ends = [end - 0x10000 if end > 0x7FFF else end for end in ends]
    else:
        ends = [end + 0x10000 if end < 0 else end for end in ends]
    return min(ends), max(ends)
