"""JPEG 2000 by OpenJPEG, with the two signs of damage that its decoders otherwise pass over; run apart, and by path.

The arithmetic decoder reads any bytes without an error. It tells two things all the same. A code block whose bytes are
those that were written is read to its end, and not beyond: OpenJPEG compares the two where the codestream says that its
blocks end in a predictable way, so here every codestream says so; the values stay the same. And the packets fill their
tile: with its last bytes taken away, the tile cannot be read.

The library is that of pylibjpeg-openjpeg, called directly: pylibjpeg registers its message handlers before there is a
decoder, so that none arrives.

References
----------
ISO/IEC 15444-1 A.4.2 (SOT), A.5.1 (SIZ), A.6.1 and A.6.2 (COD, COC), B.10 (packet headers), D.4.2 (predictable
termination).
"""

from __future__ import annotations

import ctypes
import re
import struct
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SIZ, _COD, _COC, _SOT, _SOD = 0xFF51, 0xFF52, 0xFF53, 0xFF90, 0xFF93
_HIGH_THROUGHPUT, _PREDICTABLE = 0x40, 0x10  # of the code block style
_READ_BEYOND = 3  # bytes; encoders leave out last bytes that a decoder supplies itself
_SELDOM, _SELDOM_BEYOND = 0.002, 32  # of the blocks, and bytes: encoders cut a block too short now and then,
_HIGH_RATIO, _OFTEN_BEYOND = 20, 128  # and above this compression one block of a few, by more bytes
_MOST_TILES = 64  # whose packets are looked at
_CUTS = 1.0, 1.45, 2.0  # several, as a cut between two packets goes unnoticed
_MISMATCH = re.compile(rb"PTERM check failure: (\d+) ")


class DamagedStreamError(Exception):
    """The codestream is not the one that was written."""


@dataclass
class _Layout:
    """The places of the parts of a codestream."""

    begin: int
    """Start of the first tile-part, which is the end of the main header."""
    end: int
    """End of the last tile-part."""
    styles: list[int] = field(default_factory=list)
    """Places of code block styles."""
    parts: list[tuple[int, int, int]] = field(default_factory=list)
    """Tile, begin and end of each tile-part."""
    empty: int = 0
    """Bytes of a tile all of whose packets are empty; no fewer."""
    blocks: int = 0
    """Number of code blocks, roughly."""
    bits: int = 0
    """Bits of the image without compression."""
    tiles: int = 0
    """Number of tiles that the size of the image needs."""


def decode(stream: bytes) -> NDArray[np.uint16]:
    """Decode an image (H, W) or (H, W, samples); signed values lose their sign.

    Raises
    ------
    DamagedStreamError
        It cannot be decoded, or bytes of it are not those that were written.
    """
    start = stream.find(b"\xff\x4f\xff\x51")
    content = stream[start:]
    try:
        layout = _layout(content)
    except (struct.error, IndexError, ZeroDivisionError) as error:
        raise DamagedStreamError("the headers of the JPEG 2000 stream cannot be followed") from error
    if len({tile for tile, _, _ in layout.parts}) != layout.tiles:
        raise DamagedStreamError("tiles of the JPEG 2000 stream are missing, or too many")
    values, mismatches = _decoded(_with_predictable_ends(content, layout))
    if values is None:
        raise DamagedStreamError("the JPEG 2000 stream cannot be decoded")
    if not _fill_their_bytes(mismatches, layout, len(content)):
        raise DamagedStreamError("code blocks of the JPEG 2000 stream do not fill their bytes")
    for tile in sorted({tile for tile, _, _ in layout.parts})[:_MOST_TILES]:
        shorter = (_shortened(content, layout, tile, share) for share in _CUTS)
        if all(cut is not None and _decoded(cut)[0] is not None for cut in shorter):
            raise DamagedStreamError("packets of the JPEG 2000 stream do not fill their tile")
    return values


def _layout(content: bytes) -> _Layout:
    place, layout = 2, _Layout(0, len(content))
    rows, columns, sides = 0, 0, (1, 1)
    while True:
        marker, length = struct.unpack_from(">HH", content, place)
        if marker == _SIZ:
            right, bottom, left, top, across, down, first, above = struct.unpack_from(">8L", content, place + 6)
            layout.tiles = -(-(right - first) // across) * -(-(bottom - above) // down)
            sides = bottom - top, right - left
            rows, columns = min(sides[0], down), min(sides[1], across)
            layout.bits = sides[0] * sides[1] * ((content[place + 40] & 0x7F) + 1)
        elif marker == _SOT:
            tile, size = struct.unpack_from(">HL", content, place + 4)
            layout.begin = layout.begin or place
            layout.end = place + size if size else content.rfind(b"\xff\xd9")
            layout.parts.append((tile, place, layout.end))
        elif marker == _COD:
            _count(layout, content, place, (rows, columns), sides)
        elif marker == _COC:
            layout.styles.append(place + 9)
        if marker != _SOD:
            place += 2 + length
        elif layout.end <= place:
            raise IndexError
        elif content[layout.end : layout.end + 2] == b"\xff\x90":
            place = layout.end
        else:
            return layout


def _count(layout: _Layout, content: bytes, place: int, tile: tuple[int, int], sides: tuple[int, int]) -> None:
    """Take the style and what packets and code blocks there are from a COD segment."""
    style, _, layers, _, levels, wide, high, _, _ = struct.unpack_from(">BBHBBBBBB", content, place + 4)
    layout.styles.append(place + 12)
    layout.empty = 8
    marked = 10 if style & 6 else 2  # start and end of packets may be marked
    for level in range(levels + 1):
        size = content[place + 14 + levels - level] if style & 1 else 0xFF
        across = -(-tile[1] >> level >> (size & 15)) + 1
        down = -(-tile[0] >> level >> (size >> 4)) + 1
        layout.empty += marked * layers * (across * down if style & 1 else 1)
    layout.blocks = sides[0] * sides[1] >> (wide + high + 4)


def _fill_their_bytes(mismatches: list[int], layout: _Layout, size: int) -> bool:
    """True when code blocks end where their bytes do, but for what sound streams show."""
    large = [count for count in mismatches if count > _READ_BEYOND]
    heavily = layout.bits > 8 * _HIGH_RATIO * size
    allowed, most = (1.0, _OFTEN_BEYOND) if heavily else (0.0, _SELDOM_BEYOND)
    return len(large) <= max(allowed, _SELDOM * layout.blocks) and max(large, default=0) <= most


def _with_predictable_ends(content: bytes, layout: _Layout) -> bytes:
    """The same codestream, its blocks said to end predictably; not those of HTJ2K, which end otherwise."""
    changed = bytearray(content)
    for place in layout.styles:
        if not changed[place] & _HIGH_THROUGHPUT:
            changed[place] |= _PREDICTABLE
    return bytes(changed)


def _shortened(content: bytes, layout: _Layout, tile: int, share: float) -> bytes | None:
    """The codestream with a tile first whose last bytes are gone; None where it has hardly more.

    More bytes go than packets at its end can have that hold nothing.
    """
    away = round(share * layout.empty)
    first = [content[begin:end] for number, begin, end in layout.parts if number == tile]
    if len(first[-1]) < 2 * away:
        return None
    last = bytearray(first[-1][:-away])
    last[6:10] = struct.pack(">L", len(last))
    others = [content[begin:end] for number, begin, end in layout.parts if number != tile]
    return b"".join([content[: layout.begin], *first[:-1], bytes(last), *others, b"\xff\xd9"])


class _Component(ctypes.Structure):
    """``opj_image_comp_t``."""

    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("dx", "dy", "w", "h", "x0", "y0", "prec", "bpp", "sgnd")),
        ("resno_decoded", ctypes.c_uint32),
        ("factor", ctypes.c_uint32),
        ("data", ctypes.POINTER(ctypes.c_int32)),
        ("alpha", ctypes.c_uint16),
    )


class _Image(ctypes.Structure):
    """``opj_image_t``, as far as it is needed."""

    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("x0", "y0", "x1", "y1", "numcomps")),
        ("color_space", ctypes.c_int),
        ("comps", ctypes.POINTER(_Component)),
    )


_READ = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
_SKIP = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
_SEEK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int64, ctypes.c_void_p)
_SAY = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_void_p)
_PARAMETER_BYTES = 1 << 16  # opj_dparameters_t has some 8,000
_BUFFER_BYTES = 1 << 20
_LIBRARY: list[Any] = []


def _library() -> Any:
    """OpenJPEG with the types of the functions used here."""
    if not _LIBRARY:
        library = ctypes.CDLL(import_module("_openjpeg").__file__)
        pointer, number = ctypes.c_void_p, ctypes.c_uint64
        for name, result, arguments in (
            ("opj_create_decompress", pointer, [ctypes.c_int]),
            ("opj_stream_create", pointer, [ctypes.c_size_t, ctypes.c_int]),
            ("opj_set_default_decoder_parameters", None, [pointer]),
            ("opj_setup_decoder", ctypes.c_int, [pointer, pointer]),
            ("opj_set_warning_handler", ctypes.c_int, [pointer, _SAY, pointer]),
            ("opj_stream_set_user_data", None, [pointer, pointer, pointer]),
            ("opj_stream_set_user_data_length", None, [pointer, number]),
            ("opj_stream_set_read_function", None, [pointer, _READ]),
            ("opj_stream_set_skip_function", None, [pointer, _SKIP]),
            ("opj_stream_set_seek_function", None, [pointer, _SEEK]),
            ("opj_read_header", ctypes.c_int, [pointer, pointer, pointer]),
            ("opj_decode", ctypes.c_int, [pointer, pointer, pointer]),
            ("opj_end_decompress", ctypes.c_int, [pointer, pointer]),
            ("opj_destroy_codec", None, [pointer]),
            ("opj_stream_destroy", None, [pointer]),
            ("opj_image_destroy", None, [pointer]),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        _LIBRARY.append(library)
    return _LIBRARY[0]


def _decoded(content: bytes) -> tuple[NDArray[np.uint16] | None, list[int]]:
    """Values, or None where OpenJPEG refuses; by how many bytes code blocks end too soon or too late."""
    library, memory = _library(), _Memory(content)
    mismatches = []

    def heed(message: bytes, _: object) -> None:
        if mismatch := _MISMATCH.match(message):
            mismatches.append(int(mismatch[1]))

    handler, parameters = _SAY(heed), ctypes.create_string_buffer(_PARAMETER_BYTES)
    codec, image = library.opj_create_decompress(0), ctypes.POINTER(_Image)()
    stream = library.opj_stream_create(_BUFFER_BYTES, 1)
    try:
        library.opj_set_default_decoder_parameters(parameters)
        library.opj_setup_decoder(codec, parameters)
        library.opj_set_warning_handler(codec, handler, None)
        memory.attach(library, stream)
        read = library.opj_read_header(stream, codec, ctypes.byref(image)) and library.opj_decode(codec, stream, image)
        done = read and library.opj_end_decompress(codec, stream)
        return (_values(image.contents) if done else None), mismatches
    finally:
        if image:
            library.opj_image_destroy(image)
        library.opj_stream_destroy(stream)
        library.opj_destroy_codec(codec)


class _Memory:
    """Bytes as an input stream of OpenJPEG."""

    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, 0
        self.functions = _READ(self._read), _SKIP(self._skip), _SEEK(self._seek)

    def attach(self, library: Any, stream: int) -> None:
        """Make it the source of a stream; it must live as long."""
        read, skip, seek = self.functions
        library.opj_stream_set_user_data_length(stream, len(self.content))
        library.opj_stream_set_read_function(stream, read)
        library.opj_stream_set_skip_function(stream, skip)
        library.opj_stream_set_seek_function(stream, seek)

    def _read(self, target: int, size: int, _: object) -> int:
        piece = self.content[self.place : self.place + size]
        ctypes.memmove(target, piece, len(piece))
        self.place += len(piece)
        return len(piece) or ctypes.c_size_t(-1).value or 0

    def _skip(self, size: int, _: object) -> int:
        moved = min(size, len(self.content) - self.place)
        self.place += moved
        return moved or -1

    def _seek(self, place: int, _: object) -> int:
        self.place = min(place, len(self.content))
        return int(self.place == place)


def _values(image: _Image) -> NDArray[np.uint16] | None:
    """The components side by side; None where they differ in size, as those of colour images may."""
    components = [image.comps[number] for number in range(image.numcomps)]
    shapes = {(component.h, component.w) for component in components}
    if len(shapes) != 1 or not all(component.data for component in components):
        return None
    [shape] = shapes
    mask = (1 << min(component.prec for component in components)) - 1
    arrays = [np.ctypeslib.as_array(component.data, shape) & mask for component in components]
    cells = np.stack(arrays, axis=2) if len(arrays) > 1 else arrays[0]
    return np.ascontiguousarray(cells.astype(np.uint16))
