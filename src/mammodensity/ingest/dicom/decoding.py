"""From the bytes of the pixels to stored values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammodensity.errors import DicomError
from mammodensity.ingest.dicom.decodable import require_decodable
from mammodensity.ingest.dicom.frames import codestream_of, is_complete, read_pixel_bytes
from mammodensity.ingest.dicom.grey_scale import padding_range
from mammodensity.ingest.dicom.headers import Header, one_line, quiet
from mammodensity.ingest.dicom.isolation import decode_apart
from mammodensity.ingest.dicom.lossless_check import uses_up_stream
from mammodensity.ingest.dicom.syntaxes import JPEG_EXTENDED, JPEG_LOSSLESS, MAY_LOSE, PLUGINS


def read_stored_values(header: Header) -> NDArray[np.int32]:
    """Stored values (H, W), sign extended where they are signed.

    Padding whose number needs more bits than Bits Stored keeps that number.

    Raises
    ------
    DicomError
        The pixels cannot be decoded, or are not whole.
    """
    require_decodable(header)
    found, data = read_pixel_bytes(header)
    try:
        with quiet():
            if found.encapsulated:
                raw, width = _decoded(header, data)
            else:
                raw, width = _native(header, data, found.vr), header.whole("BitsAllocated") or 16
    except DicomError:
        raise
    except (KeyboardInterrupt, SystemExit):
        raise
    except MemoryError as error:
        raise DicomError(f"{header.path} needs more memory than there is", "absurd-size") from error
    except BaseException as error:  # decoders raise whatever they like; those in Rust panic beside Exception
        raise DicomError(f"{header.path} has damaged pixels ({one_line(error)}); copy it again", "damaged") from error
    return _stored_bits(header, _one_channel(header, raw), width)


def _native(header: Header, data: bytes, vr: str) -> NDArray[Any]:
    """Uncompressed values (H, W) or (H, W, 3), unsigned."""
    rows, columns, samples = header.whole("Rows") or 0, header.whole("Columns") or 0, _samples(header)
    count = rows * columns * samples
    if header.whole("BitsAllocated") == 8:
        values = np.frombuffer(data, np.uint8)
        if not header.little and vr == "OW":  # bytes lie in big-endian words
            values = values[: len(values) // 2 * 2].reshape(-1, 2)[:, ::-1].reshape(-1)
        values = values[:count]
    else:
        values = np.frombuffer(data, "<u2" if header.little else ">u2", count).astype(np.uint16)
    return values.reshape((rows, columns) if samples == 1 else (rows, columns, samples))


def _samples(header: Header) -> int:
    return header.whole("SamplesPerPixel") or 1


def _decoded(header: Header, codestream: bytes) -> tuple[NDArray[Any], int]:
    """Decompressed cells (H, W) or (H, W, 3), and the number of bits of each.

    A codestream holds cells as deep as it says itself: the stored values alone, or all of Bits Allocated with what lies
    beside them. The decoder is told that depth, and nothing of signs, so that it neither masks nor extends.
    """
    if not is_complete(header, codestream):
        raise DicomError(f"{header.path} is cut short in its pixels; copy it again", "damaged")
    syntax = header.syntax
    stream = codestream_of(header, codestream[: 1 << 16])
    bits = header.whole("BitsAllocated") or 16
    width = bits if stream is None else stream.precision
    options: dict[str, Any] = {
        "rows": header.whole("Rows"),
        "columns": header.whole("Columns"),
        "samples_per_pixel": _samples(header),
        "planar_configuration": 0,
        "photometric_interpretation": header.text("PhotometricInterpretation"),
        "bits_allocated": bits,
        "bits_stored": width,
        "pixel_representation": 0,
        "number_of_frames": 1,
        "pixel_keyword": "PixelData",
    }
    twelve = syntax in JPEG_EXTENDED and stream is not None and stream.precision > 8
    plugin = "imagecodecs" if twelve else PLUGINS[syntax]
    pixels = decode_apart(header.path, {"syntax": syntax, "plugin": plugin, "options": options}, codestream)
    if syntax in JPEG_LOSSLESS and pixels.ndim == 2:
        unsigned = pixels.view(np.uint16) if pixels.itemsize == 2 else pixels.view(np.uint8).astype(np.uint16)
        if uses_up_stream(codestream, unsigned) is False:
            raise DicomError(f"{header.path} has damaged pixels (JPEG stream does not fit); copy it again", "damaged")
    return pixels, width


def _one_channel(header: Header, raw: NDArray[Any]) -> NDArray[Any]:
    """Grey values (H, W); three equal channels are grey."""
    shape = (header.whole("Rows"), header.whole("Columns"))
    if raw.ndim == 3 and raw.shape[:2] == shape:
        if (raw[..., 0] != raw[..., 1]).any() or (raw[..., 0] != raw[..., 2]).any():
            raise DicomError(f"{header.path} is a colour image; expected grey without marks", "colour")
        raw = raw[..., 0]
    if raw.shape != shape:
        raise DicomError(f"{header.path} decodes to another size than its header says; export it again", "damaged")
    return raw


def _stored_bits(header: Header, raw: NDArray[Any], width: int) -> NDArray[np.int32]:
    """The bits of the stored values out of cells of ``width`` bits (PS3.5 8.1.1: Bits Stored, down from High Bit)."""
    allocated = header.whole("BitsAllocated") or 16
    stored = header.whole("BitsStored") or allocated
    high = header.whole("HighBit")
    high = stored - 1 if high is None else high
    bits, shift = (width, 0) if width <= stored else (stored, high + 1 - stored)
    if shift + bits > width:
        text = f"{width} bits in its pixels, {stored} up to bit {high} by its header; export it again"
        raise DicomError(f"{header.path}: {text}", "damaged")
    cells = raw.astype(np.int32) & ((1 << width) - 1)
    if header.syntax in MAY_LOSE:
        cells = _without_overshoot(cells, shift + bits)
    values = (cells >> shift) & ((1 << bits) - 1)
    signed = header.whole("PixelRepresentation") == 1
    if signed:
        values = _extended(values, bits)
    # above the value there may be its sign or overlay planes (PS3.5 8.1.2), and nothing else
    mask = ((1 << (width - shift)) - (1 << bits)) & ~(header.overlay_bits() >> shift)
    above = (cells >> shift) & mask
    stray = (above != 0) & (above != (values & mask))
    if stray.any():
        numbers = _extended(cells, width) if signed else cells
        first, last = padding_range(header) or (1, 0)
        padding = stray & (numbers >= first) & (numbers <= last)
        if (stray & ~padding).any():
            text = f"values above the {stored} bits of its Bits Stored, and no overlay there; export it again"
            raise DicomError(f"{header.path}: {text}", "depth")
        values = np.where(padding, numbers, values)
    return values


def _extended(values: NDArray[np.int32], bits: int) -> NDArray[np.int32]:
    """Values of so many bits as signed numbers."""
    sign = 1 << (bits - 1)
    return (values ^ sign) - sign


def _without_overshoot(cells: NDArray[np.int32], bits: int) -> NDArray[np.int32]:
    """Loss makes values slightly larger than the largest; they are that one."""
    largest = (1 << bits) - 1
    return np.where((cells > largest) & (cells <= largest + (largest >> 4)), largest, cells)
