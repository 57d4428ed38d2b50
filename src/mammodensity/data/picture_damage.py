"""Damage in the compressed data of PNG, TIFF and JPEG pictures that Pillow and libtiff decode without an error.

The checks follow checksums and lengths: that of each PNG chunk, that of a deflate stream, and the number of bytes that
the codes of a strip stand for.

References
----------
PNG (third edition), 5.3 and 13.2; TIFF 6.0, sections 9 (PackBits) and 13 (LZW); TIFF Technical Note 2 (JPEG tables).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageFile

from mammodensity.data.jpeg_stream import require_sound_jpeg

_WIDTH, _LENGTH, _BITS, _COMPRESSION, _SAMPLES, _PLANAR = 256, 257, 258, 259, 277, 284
_STRIPS, _STRIP_ROWS, _STRIP_BYTES = 273, 278, 279
_TILE_WIDTH, _TILE_LENGTH, _TILES, _TILE_BYTES = 322, 323, 324, 325
_JPEG_TABLES = 347
_NONE, _JPEG = 1, 7  # compressions
_PLAIN = ("raw", "ppm")  # Pillow's decoders of values that lie as they are


def require_whole(picture: Image.Image, stream: BinaryIO) -> None:
    """Raise where the compressed data of an opened picture are damaged.

    Raises
    ------
    ValueError, zlib.error
        A checksum is wrong, or the data hold more or fewer values than the picture has.
    """
    place = stream.tell()
    if picture.format == "PNG":
        _require_chunks(stream)
    elif picture.format == "PPM":
        _require_end(picture, stream)
    elif picture.format == "JPEG":
        stream.seek(0)
        require_sound_jpeg(stream.read())
    elif picture.format == "TIFF":
        _require_strips(dict(picture.tag_v2), stream)  # type: ignore[attr-defined]  # of TIFF only
    stream.seek(place)


def is_uncompressed(picture: Image.Image) -> bool:
    """True where the values of an opened picture, which is not loaded yet, lie in its file as they are."""
    return (
        isinstance(picture, ImageFile.ImageFile) and picture.format in ("TIFF", "PPM") and picture.tile[0][0] in _PLAIN
    )


_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples of a pixel by colour type of a PNG."""


def _require_chunks(stream: BinaryIO) -> None:
    """Compare the checksum of each chunk of pixels of a PNG, and count the bytes of pixels.

    Pillow looks at checksums of other chunks only, and passes over pixels beyond the stated height.
    """
    stream.seek(16)
    columns, rows, depth, colour, interlaced = struct.unpack(">LLBBxxB", stream.read(13))
    size = rows * (1 + -(-columns * depth * _CHANNELS.get(colour, 0) // 8))  # each row begins with its filter
    stream.seek(8)
    held, inflate = 0, zlib.decompressobj()
    while len(head := stream.read(8)) == 8:
        length, name = struct.unpack(">L4s", head)
        if name == b"IDAT":
            data = stream.read(length)
            if stream.read(4) != struct.pack(">L", zlib.crc32(data, zlib.crc32(name))):
                raise ValueError("a wrong checksum")
            while data and not inflate.eof:
                held += len(inflate.decompress(data, 1 << 20))
                data = inflate.unconsumed_tail
        elif name == b"IEND":
            break
        else:
            stream.seek(length + 4, 1)
    if not inflate.eof:
        raise ValueError("its compressed pixels end too soon")
    if held != size and not interlaced:  # interlaced pixels lie in seven passes of rows of their own
        raise ValueError(f"{held} bytes of pixels where its size needs {size}")


def _require_end(picture: Image.Image, stream: BinaryIO) -> None:
    """Raise where a PGM of binary values goes on after its pixels, but for a line end."""
    assert isinstance(picture, ImageFile.ImageFile)  # it was opened, not made
    if picture.tile and picture.tile[0][0] == "raw":
        offset = picture.tile[0][2]
        stream.seek(0, 2)
        width = 2 if picture.mode.startswith("I") else len(picture.getbands())  # bytes of a pixel
        if stream.tell() > offset + picture.width * picture.height * width + 2:
            raise ValueError("more pixels than its size needs")


def _require_strips(tags: dict[int, Any], stream: BinaryIO) -> None:
    """Count the bytes that the strips or tiles of a TIFF hold."""
    compression = tags.get(_COMPRESSION, 1)
    if compression not in (*_HELD, _JPEG, _NONE):
        return
    planar = tags.get(_PLANAR, 1) == 2
    bits = sum(tags.get(_BITS, (1,))[: 1 if planar else None])
    rows, columns = tags[_LENGTH], tags[_WIDTH]
    if _TILES in tags:
        offsets, lengths = tags[_TILES], tags[_TILE_BYTES]
        sizes = [tags[_TILE_LENGTH] * -(-tags[_TILE_WIDTH] * bits // 8)] * len(offsets)
    else:
        offsets, lengths = tags[_STRIPS], tags[_STRIP_BYTES]
        step = min(tags.get(_STRIP_ROWS, rows), rows)
        starts = list(range(0, rows, step)) * (tags.get(_SAMPLES, 1) if planar else 1)
        sizes = [min(step, rows - start) * -(-columns * bits // 8) for start in starts]
    if not len(offsets) == len(lengths) == len(sizes):
        raise ValueError("strips that do not fit its size")
    for offset, length, size in zip(offsets, lengths, sizes, strict=True):
        stream.seek(offset)
        data = stream.read(length)
        if len(data) < length:
            raise ValueError("strips that lie beyond its end")
        if compression == _JPEG:
            require_sound_jpeg(data, bytes(tags.get(_JPEG_TABLES, b"")))
        elif compression == _NONE:
            if not size <= length <= (sizes[0] if offset == offsets[-1] else size):
                raise ValueError(f"{length} bytes of pixels in a strip of {size}")
        elif (held := _HELD[compression](data, size)) != size:
            raise ValueError(f"{held} bytes of pixels in a strip of {size}")


def _held_by_deflate(data: bytes, size: int) -> int:
    """Bytes in a deflate stream, whose checksum zlib compares at its end."""
    inflate = zlib.decompressobj()
    held = len(inflate.decompress(data, size + 1))
    if held == size:
        inflate.decompress(inflate.unconsumed_tail, 1)
    if held < size or not inflate.eof:
        raise ValueError("its compressed pixels end too soon or too late")
    return held


def _held_by_packbits(data: bytes, size: int) -> int:
    place = held = 0
    while place < len(data) and held < size:
        count = data[place]
        place += 2 if count > 128 else 1 if count == 128 else count + 2
        held += 257 - count if count > 128 else 0 if count == 128 else count + 1
    return held if place <= len(data) else -1


_CLEAR, _END, _FIRST_FREE = 256, 257, 258
_MOST_CODES = 4096
_CODE_BITS = np.repeat([9, 10, 11, 12], [254, 512, 1024, _MOST_CODES])[:_MOST_CODES].astype(np.int64)
"""Width of each code after a clear code: it grows one code early (section 13)."""
_CODE_PLACES = np.cumsum(_CODE_BITS) - _CODE_BITS


def _held_by_lzw(data: bytes, size: int) -> int:
    """Bytes that the codes stand for.

    The width of a code depends on the number of codes since the last clear code only, so all codes up to the next one
    are cut out at once.
    """
    if data[:1] == b"\0":  # old files, of codes in the other order of bits
        return size
    content = np.frombuffer(data + bytes(8), np.uint8).astype(np.int64)
    wide = content[:-2] << 16 | content[1:-1] << 8 | content[2:]
    bits, place, held = 8 * len(data), 0, 0
    while held < size and place + 9 <= bits:
        places = place + _CODE_PLACES
        places = places[places + _CODE_BITS <= bits]
        widths = _CODE_BITS[: places.size]
        codes = (wide[places >> 3] >> (24 - widths - (places & 7))) & ((1 << widths) - 1)
        special = np.flatnonzero((codes == _CLEAR) | (codes == _END))
        number = int(special[0]) if special.size else codes.size
        held += _length_of_strings(codes[:number])
        if number == codes.size or codes[number] == _END:
            break
        place = int(places[number] + widths[number])
    return held


def _length_of_strings(codes: np.ndarray[Any, np.dtype[np.int64]]) -> int:
    """Bytes of the strings of codes after a clear code: a code above 257 stands for an earlier string and one byte."""
    before = codes - _FIRST_FREE
    if (before >= np.arange(codes.size)).any():
        raise ValueError("codes that its table does not have")
    before = np.where(before < 0, codes.size, before)  # strings of one byte end at a last, empty one
    before = np.append(before, codes.size)
    lengths = np.ones(before.size, np.int64)
    lengths[-1] = 0
    while (before < codes.size).any():
        lengths += lengths[before]
        before = before[before]
    return int(lengths.sum())


_HELD: dict[int, Callable[[bytes, int], int]] = {
    5: _held_by_lzw,
    8: _held_by_deflate,
    32946: _held_by_deflate,
    32773: _held_by_packbits,
}
"""By compression (TIFF 6.0, tag 259)."""
