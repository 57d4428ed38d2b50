"""From the bytes of the pixels to stored values.

Decoders run in processes of their own, because those written in C abort on some damaged streams: an abort, a hang or a
demand for too much memory costs the damaged file, not the run. The processes are kept for later images, one for each
thread that decodes at a time, and end with this one. A pool of ``concurrent.futures`` does not serve: it cannot end a
process that hangs, fails as a whole when a process aborts, and imports the user's main program in each.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammodensity.data.dicom.codes import JPEG_BASELINE, JPEG_EXTENDED, JPEG_LOSSLESS, MAY_LOSE, PLUGINS, RLE
from mammodensity.data.dicom.grey_scale import padding_range
from mammodensity.data.dicom.header import Codestream, Header, quiet
from mammodensity.data.dicom.pixel_data import is_complete, pixels_of, read_pixel_bytes
from mammodensity.data.jpeg_codes import DamagedJpegError
from mammodensity.data.jpeg_stream import fills_lossless_stream, require_sound_jpeg
from mammodensity.data.row_damage import folding, row_damage
from mammodensity.errors import DicomError, one_line

_PROGRAM = Path(__file__).with_name("decoder_process.py")
_PATIENCE_S = 120.0
_PIPE_BYTES = 1 << 20  # of a pipe, so that both sides wait for each other less often
_MOST_ANSWER_BYTES = 1_000_000_000


class _Worker:
    """One decoding process, and the connections to it."""

    def __init__(self) -> None:
        requests, self.requests = Pipe(duplex=False)
        self.answers, answers = Pipe(duplex=False)
        with requests, answers:  # the other process's ends
            for end in (requests, answers):
                with suppress(OSError, AttributeError):  # more than this user may have, or a system without
                    fcntl.fcntl(end.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            self.process = subprocess.Popen(
                [sys.executable, str(_PROGRAM), str(requests.fileno()), str(answers.fileno())],
                pass_fds=(requests.fileno(), answers.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for us; the process ends when its requests do
            )

    def ask(self, request: dict[str, Any], codestream: bytes) -> tuple[dict[str, Any], bytes]:
        """Send a request and wait for the answer; ``OSError`` or ``EOFError`` when the process has ended."""
        self.requests.send_bytes(json.dumps(request).encode())
        self.requests.send_bytes(codestream)
        if not self.answers.poll(_PATIENCE_S):
            raise TimeoutError
        answer = json.loads(self.answers.recv_bytes(_MOST_ANSWER_BYTES))
        return answer, self.answers.recv_bytes(_MOST_ANSWER_BYTES)

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        self.requests.close()
        self.answers.close()


_lock = threading.Lock()
_idle: list[_Worker] = []
_slots = threading.BoundedSemaphore(os.cpu_count() or 1)  # more at a time would only take memory
_owner = os.getpid()


def _take() -> _Worker:
    global _owner  # noqa: PLW0603  (processes belong to the process that started them, not to a fork of it)
    with _lock:
        if _owner != os.getpid():
            _idle.clear()
            _owner = os.getpid()
        return _idle.pop() if _idle else _Worker()


@atexit.register
def close_decoders() -> None:
    """End all idle decoding processes; new ones start when needed."""
    with _lock:
        if _owner == os.getpid():
            for worker in _idle:
                worker.close()
        _idle.clear()


def decode_apart(path: Path, request: dict[str, Any], codestream: bytes) -> NDArray[Any]:
    """Decode a codestream in another process.

    Raises
    ------
    DicomError
        The decoder refuses it, aborts, or takes longer than anybody waits.
    """
    with _slots:
        answer, content = _asked(path, request, codestream)
    if "error" in answer:
        raise DicomError(f"{path} has damaged pixels ({_short(answer['error'])}); copy it again", "damaged")
    return np.frombuffer(content, answer["dtype"]).reshape(answer["shape"])


def _asked(path: Path, request: dict[str, Any], codestream: bytes) -> tuple[dict[str, Any], bytes]:
    worker = _take()
    try:
        answer, content = worker.ask(request, codestream)
    except (EOFError, OSError, ValueError) as error:
        worker.close()
        what = "takes too long" if isinstance(error, TimeoutError) else "fails"
        raise DicomError(f"{path} has damaged pixels (the decoder {what}); copy it again", "damaged") from error
    except BaseException:
        worker.close()  # interrupted half-way: its answer would be taken for that of the next image
        raise
    with _lock:
        _idle.append(worker)
    return answer, content


def _short(text: str) -> str:
    """The decoder's message without pydicom's words around it."""
    if "NoneType" in text:  # GDCM gives nothing, and pydicom stumbles over it
        return "the decoder gives up"
    return text.rpartition("all available plugins: ")[2][:120]


def read_stored_values(header: Header) -> NDArray[np.int32]:
    """Decode the pixels of a header that ``require_decodable`` accepts.

    Returns
    -------
    Stored values (H, W), sign extended where they are signed. Padding whose number needs more bits than Bits Stored
    keeps that number.

    Raises
    ------
    DicomError
        The pixels cannot be decoded, or are not whole.
    """
    pixels, data = pixels_of(header), read_pixel_bytes(header)
    try:
        with quiet():
            if pixels.encapsulated:
                raw, width = _decoded(header, pixels.codestream, data)
            else:
                raw, width = _native(header, data, pixels.vr), header.whole("BitsAllocated") or 16
    except DicomError:
        raise
    except (KeyboardInterrupt, SystemExit):
        raise
    except MemoryError as error:
        raise DicomError(f"{header.path} needs more memory than there is", "absurd-size") from error
    except BaseException as error:  # decoders raise whatever they like; those in Rust panic beside Exception
        raise DicomError(f"{header.path} has damaged pixels ({one_line(error)}); copy it again", "damaged") from error
    values = _stored_bits(header, _one_channel(header, raw), width)
    damage = row_damage(values) if not pixels.encapsulated or header.syntax in RLE else folding(values)
    if damage:
        raise DicomError(f"{header.path} has damaged pixels: its rows {damage}; copy it again", "damaged")
    return values


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


def _decoded(header: Header, stream: Codestream | None, codestream: bytes) -> tuple[NDArray[Any], int]:
    """Decompressed cells (H, W) or (H, W, 3), and the number of bits of each.

    A codestream states the depth of its cells: the stored values alone, or all of Bits Allocated with the bits next to
    them. The decoder gets that depth and no sign, so that it neither masks nor extends.
    """
    if not is_complete(header, codestream):
        raise DicomError(f"{header.path} is cut short in its pixels; copy it again", "damaged")
    syntax = header.syntax
    if syntax in JPEG_BASELINE or syntax in JPEG_EXTENDED:
        _require_sound(header, codestream)
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
        if not fills_lossless_stream(codestream, unsigned):
            _require_sound(header, codestream)
    return pixels, width


def _require_sound(header: Header, codestream: bytes) -> None:
    try:
        require_sound_jpeg(codestream)
    except DamagedJpegError as error:
        raise DicomError(f"{header.path} has damaged pixels (JPEG: {error}); copy it again", "damaged") from error


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
    """Clip values that lossy compression made slightly larger than the largest."""
    largest = (1 << bits) - 1
    return np.where((cells > largest) & (cells <= largest + (largest >> 4)), largest, cells)
