"""From the bytes of the pixels to stored values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammodensity.errors import DicomError
from mammodensity.ingest.dicom.decodable import require_decodable
from mammodensity.ingest.dicom.frames import codestream_of, is_complete, read_pixel_bytes
from mammodensity.ingest.dicom.headers import Header, one_line, quiet
from mammodensity.ingest.dicom.isolation import decode_apart
from mammodensity.ingest.dicom.lossless_check import uses_up_stream
from mammodensity.ingest.dicom.syntaxes import JPEG_EXTENDED, JPEG_LOSSLESS, PLUGINS


def read_stored_values(header: Header) -> NDArray[np.int32]:
    """Stored values (H, W): bits outside Bits Stored cleared, sign extended where they are signed.

    Raises
    ------
    DicomError
        The pixels cannot be decoded, or are not whole.
    """
    require_decodable(header)
    found, data = read_pixel_bytes(header)
    try:
        with quiet():
            raw = _decoded(header, data) if found.encapsulated else _native(header, data, found.vr)
    except DicomError:
        raise
    except (KeyboardInterrupt, SystemExit):
        raise
    except MemoryError as error:
        raise DicomError(f"{header.path} needs more memory than there is", "absurd-size") from error
    except BaseException as error:  # decoders raise whatever they like; those in Rust panic beside Exception
        raise DicomError(f"{header.path} has damaged pixels ({one_line(error)}); copy it again", "damaged") from error
    return _stored_bits(header, _one_channel(header, raw))


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


def _decoded(header: Header, codestream: bytes) -> NDArray[Any]:
    """Decompressed values (H, W) or (H, W, 3)."""
    if not is_complete(header, codestream):
        raise DicomError(f"{header.path} is cut short in its pixels; copy it again", "damaged")
    syntax = header.syntax
    stream = codestream_of(header, codestream[: 1 << 16])
    bits = header.whole("BitsAllocated") or 16
    options: dict[str, Any] = {
        "rows": header.whole("Rows"),
        "columns": header.whole("Columns"),
        "samples_per_pixel": _samples(header),
        "planar_configuration": 0,
        "photometric_interpretation": header.text("PhotometricInterpretation"),
        "bits_allocated": bits,
        "bits_stored": header.whole("BitsStored") or bits,
        "pixel_representation": 1 if header.whole("PixelRepresentation") == 1 else 0,
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
    return pixels


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


def _stored_bits(header: Header, raw: NDArray[Any]) -> NDArray[np.int32]:
    allocated = header.whole("BitsAllocated") or 16
    bits = header.whole("BitsStored") or allocated
    high = header.whole("HighBit")
    shift = 0 if high is None or header.syntax in PLUGINS else high + 1 - bits
    values = raw.astype(np.int32)
    if shift:
        values = (values & ((1 << allocated) - 1)) >> shift
    values &= (1 << bits) - 1
    if header.whole("PixelRepresentation") == 1:
        sign = 1 << (bits - 1)
        values = (values ^ sign) - sign
    return values
