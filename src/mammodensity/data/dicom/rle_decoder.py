"""RLE Lossless by pylibjpeg-rle, segment by segment: each has to hold exactly its bytes; run apart, and by path.

Decoders of a whole frame cut off what is too much. So a stream with lost, inserted or overwritten bytes passes, its
later pixels moved along.

References
----------
PS3.5 G.3 to G.5 (segments of bytes, the most significant ones first; the RLE header).
"""

from __future__ import annotations

import struct
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

_HEADER_BYTES = 64


class DamagedRleError(Exception):
    """The stream is not the one that was written."""


def decode(stream: bytes, rows: int, columns: int, samples: int, bits: int) -> NDArray[np.unsignedinteger]:
    """Decode an image (H, W) or (H, W, samples).

    Raises
    ------
    DamagedRleError
        The header makes no sense, or a segment holds more or fewer bytes than the image has pixels.
    """
    depth = bits // 8
    count = samples * depth
    number, *offsets = struct.unpack("<16L", stream[:_HEADER_BYTES].ljust(_HEADER_BYTES, b"\0"))
    ends = [*offsets[1:count], len(stream)]
    if number != count or offsets[0] < _HEADER_BYTES or any(a >= b for a, b in zip(offsets, ends, strict=False)):
        raise DamagedRleError("the RLE header does not fit its segments")
    library = import_module("rle.rle")
    planes = np.empty((count, rows * columns), np.uint8)
    for plane, begin, end in zip(planes, offsets, ends, strict=False):
        try:
            values = np.frombuffer(library.decode_segment(stream[begin:end]), np.uint8)
        except ValueError as error:
            raise DamagedRleError("an RLE segment ends within a run") from error
        if values.size != plane.size:
            raise DamagedRleError("an RLE segment holds more or fewer bytes than the image has pixels")
        plane[:] = values
    # the most significant byte of a sample comes first
    cells = planes.reshape(samples, depth, rows, columns)[:, ::-1].transpose(2, 3, 0, 1)
    pixels = np.ascontiguousarray(cells).view(f"<u{depth}")[..., 0]
    return pixels[..., 0] if samples == 1 else pixels
