"""JPEG streams, in DICOM files and pictures: sound ones of all kinds are accepted, cut and damaged ones refused."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLosslessSV1

from dicom_samples import dcmtk, mammogram, phantom, save
from mammodensity.data.dicom.read import read_dicom
from mammodensity.data.images import read_image
from mammodensity.data.jpeg_codes import DamagedJpegError
from mammodensity.data.jpeg_stream import require_sound_jpeg
from mammodensity.errors import DicomError, ImageError


def grey(rows: int = 160) -> np.ndarray:
    return (phantom(rows=rows) >> 4).astype(np.uint8)


def jpeg(pixels: np.ndarray, mode: str = "L", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, "JPEG", **options)
    return stream.getvalue()


def refused(stream: bytes) -> bool:
    try:
        require_sound_jpeg(stream)
    except DamagedJpegError:
        return True
    return False


def entropy_coded(stream: bytes) -> int:
    """Offset of the first entropy-coded byte."""
    place = stream.index(b"\xff\xda")
    return place + 2 + int.from_bytes(stream[place + 2 : place + 4])


RESTARTS: tuple[dict[str, int], ...] = ({}, {"restart_marker_rows": 1}, {"restart_marker_blocks": 7})
KINDS = [
    {"mode": mode, "progressive": progressive, **restart}
    for mode, progressive, restart in itertools.product(("L", "RGB"), (False, True), RESTARTS)
]


@pytest.mark.parametrize("kind", KINDS)
def test_sound_streams_are_followed_to_their_end(kind):
    pixels = grey()[7:, :93]  # no whole number of blocks
    for quality, optimize in ((3, False), (75, True), (100, False)):
        require_sound_jpeg(jpeg(pixels, quality=quality, optimize=optimize, **kind))
    if kind["mode"] == "RGB":
        for subsampling in (0, 1, 2):
            require_sound_jpeg(jpeg(pixels, subsampling=subsampling, **kind))


@pytest.mark.parametrize("kind", KINDS)
def test_streams_cut_before_their_end_marker(kind):
    stream = jpeg(grey(), quality=80, **kind)
    begin = entropy_coded(stream)
    for cut in np.linspace(begin, len(stream) - 4, 25).astype(int):
        assert refused(stream[:cut] + b"\xff\xd9"), cut


def test_bytes_lost_and_inserted():
    stream = jpeg(grey(), quality=85)
    rng = np.random.default_rng(1)
    places = rng.integers(entropy_coded(stream), len(stream) - 8, 50)
    assert sum(refused(stream[:place] + stream[place + 3 :]) for place in places) >= 30
    assert sum(refused(stream[:place] + b"\x5a\xa5\x3c" + stream[place:]) for place in places) >= 30


def test_overwritten_bytes():
    """A few of them leave the number of blocks as it is."""
    stream = jpeg(grey(), quality=85)
    rng = np.random.default_rng(2)
    places = rng.integers(entropy_coded(stream), len(stream) - 12, 100)
    assert sum(refused(stream[:place] + rng.bytes(8) + stream[place + 8 :]) for place in places) >= 80


@pytest.mark.parametrize("rows", [8, 80, 168, 320])
def test_a_false_height(rows):
    stream = jpeg(grey())
    place = stream.index(b"\xff\xc0") + 5
    assert stream[place : place + 2] == struct.pack(">H", 160)
    assert refused(stream[:place] + struct.pack(">H", rows) + stream[place + 2 :])


def test_restart_markers_out_of_order():
    stream = jpeg(grey(), restart_marker_rows=2)
    assert refused(stream.replace(b"\xff\xd1", b"\xff\xd3", 1))


def test_the_last_byte_may_be_padded_in_any_way():
    """Ones, zeros, and fill bytes (ISO/IEC 10918-1, B.1.1.2 and B.1.1.5)."""
    stream = jpeg(grey())
    require_sound_jpeg(stream[:-2] + b"\xff\xff\xff\xd9")
    require_sound_jpeg(stream + bytes(3))
    assert refused(stream[:-2] + b"\x00\xff\xd9")


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGExtended12Bit])
def test_cut_streams_in_dicom(tmp_path, syntax):
    if syntax == JPEGBaseline8Bit:
        options = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "WindowCenter": 128, "WindowWidth": 256}
        ds, stream = mammogram(stored=grey(), **options), jpeg(grey())
    else:
        stored = phantom(rows=160)
        encode = pytest.importorskip("imagecodecs").jpeg8_encode
        ds, stream = mammogram(stored=stored), encode(stored, bitspersample=12)
    ds.file_meta.TransferSyntaxUID = syntax

    def path(content: bytes):
        ds.PixelData = encapsulate([content])
        ds["PixelData"].VR = "OB"
        return save(ds, tmp_path / "a")

    assert read_dicom(path(stream)).pixels.shape == grey().shape
    for share in (0.5, 0.8, 0.99):
        with pytest.raises(DicomError, match="damaged pixels"):
            read_dicom(path(stream[: int(share * len(stream))] + b"\xff\xd9"))


# --- JPEG Lossless --------------------------------------------------------------------------------------------------


def lossless(pixels: np.ndarray, precision: int, wrap_above: int | None = None, restart_rows: int = 0) -> bytes:
    """Predictor 1, codes of 5 bits; differences above a limit are written modulo 2^precision as negative ones."""
    values = pixels.astype(np.int64)
    differences = np.diff(values, axis=1, prepend=0)
    differences[1:, 0] = np.diff(values[:, 0])
    begins = slice(0, 1) if not restart_rows else slice(None, None, restart_rows)
    differences[begins, 0] = values[begins, 0] - (1 << (precision - 1))
    if wrap_above is not None:
        differences[differences > wrap_above] -= 1 << precision
    parts = []
    for begin in range(0, len(values), restart_rows or len(values)):
        words = []
        for difference in differences[begin : begin + (restart_rows or len(values))].ravel().tolist():
            category = abs(difference).bit_length()
            words.append(f"{category:05b}")
            if category:
                words.append(f"{difference if difference > 0 else difference + (1 << category) - 1:0{category}b}")
        bits = "".join(words)
        bits += "1" * (-len(bits) % 8)
        parts.append(int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\x00"))
    rows, columns = values.shape
    counts = bytes(4) + bytes([17]) + bytes(11)
    head = b"\xff\xd8\xff\xc3" + struct.pack(">HBHHB3B", 11, precision, rows, columns, 1, 1, 0x11, 0)
    head += b"\xff\xc4" + struct.pack(">HB", 36, 0) + counts + bytes(range(17))
    if restart_rows:
        head += b"\xff\xdd" + struct.pack(">HH", 4, restart_rows * columns)
    content = b"".join(part + bytes([0xFF, 0xD0 + n % 8]) for n, part in enumerate(parts[:-1])) + parts[-1]
    return head + b"\xff\xda" + struct.pack(">HB5B", 8, 1, 1, 0, 1, 0, 0) + content + b"\xff\xd9"


@pytest.mark.parametrize(("precision", "wrap_above"), [(12, None), (12, 60), (12, 0), (8, 40), (8, 127)])
@pytest.mark.parametrize("restart_rows", [0, 8])
def test_lossless_differences_modulo_the_range(tmp_path, precision, wrap_above, restart_rows):
    stored = phantom() >> (12 - precision)
    options = {"BitsStored": precision, "HighBit": precision - 1, "WindowWidth": 1 << precision}
    options |= {"BitsAllocated": 8 if precision == 8 else 16, "WindowCenter": 1 << (precision - 1)}
    ds = mammogram(stored=stored.astype(np.uint8 if precision == 8 else np.uint16), **options)
    expected = read_dicom(save(ds, tmp_path / "a")).pixels
    stream = lossless(stored, precision, wrap_above, restart_rows)
    ds.file_meta.TransferSyntaxUID = JPEGLosslessSV1

    def path(content: bytes):
        ds.PixelData = encapsulate([content])
        ds["PixelData"].VR = "OB"
        return save(ds, tmp_path / "b")

    assert np.array_equal(read_dicom(path(stream)).pixels, expected)
    for share in (0.6, 0.9, 0.99):
        with pytest.raises(DicomError, match="damaged pixels"):
            read_dicom(path(stream[: int(share * len(stream))] + b"\xff\xd9"))
    place = len(stream) // 2
    with pytest.raises(DicomError, match="damaged pixels"):
        read_dicom(path(stream[:place] + stream[place + 5 :]))


@pytest.mark.parametrize("options", [("+e1",), ("+el", "+sv", "6"), ("+eb",), ("+ee",)])
def test_streams_of_dcmtk(tmp_path, options):
    ds = mammogram()
    if options == ("+eb",):
        eight = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "WindowCenter": 128, "WindowWidth": 256}
        ds = mammogram(stored=grey(96), **eight)
    dcmtk("dcmcjpeg", *options, save(ds, tmp_path / "a"), tmp_path / "b")
    packed = dcmread(tmp_path / "b")
    stream = next(generate_frames(packed.PixelData, number_of_frames=1)).rstrip(b"\0")
    require_sound_jpeg(stream)
    assert read_dicom(tmp_path / "b").pixels.shape == (ds.Rows, ds.Columns)
    for share in (0.5, 0.9):
        assert refused(stream[: int(share * len(stream))] + b"\xff\xd9")


# --- pictures -------------------------------------------------------------------------------------------------------

PICTURES = {
    "a.jpg": {"quality": 90},
    "b.jpg": {"progressive": True},
    "a.tif": {"compression": "tiff_adobe_deflate"},
    "b.tif": {"compression": "tiff_lzw"},
    "c.tif": {"compression": "tiff_lzw", "tiffinfo": {278: 16}},
    "d.tif": {"compression": "packbits"},
    "e.tif": {"compression": "jpeg"},
    "a.png": {},
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("bits", [8, 16])
def test_damaged_pictures_are_refused(tmp_path, name, bits):
    if bits == 16 and (name.endswith("jpg") or name == "e.tif"):
        pytest.skip("JPEG has 8 bits")
    pixels = grey() if bits == 8 else phantom(rows=160) << 4
    path = tmp_path / name
    Image.fromarray(pixels).save(path, **PICTURES[name])
    read = read_image(path).pixels.astype(int)
    assert np.abs(read - pixels).max() < (60 if name in ("a.jpg", "b.jpg", "e.tif") else 1)
    content = path.read_bytes()
    begin, end = len(content) // 4, 3 * len(content) // 4
    if name.endswith("tif"):
        with Image.open(path) as picture:
            offsets, lengths = picture.tag_v2[273], picture.tag_v2[279]
        begin, end = offsets[0] + 8, offsets[0] + lengths[0] - 40
    rng = np.random.default_rng(4)
    for place in rng.integers(begin, end, 8):
        path.write_bytes(content[:place] + rng.bytes(32) + content[place + 32 :])
        try:
            damaged = read_image(path).pixels.astype(int)
        except ImageError as error:
            assert "damaged" in str(error)
        else:  # the bytes came by chance to the same number of values
            assert name in ("b.tif", "c.tif", "d.tif", "e.tif")
            assert (np.abs(damaged - read) > 0.02 * (1 << bits)).mean() < 0.01


def test_a_png_without_one_of_its_chunks(tmp_path):
    rng = np.random.default_rng(5)
    noise = rng.integers(0, 255, (400, 400)).astype(np.uint8)  # larger than one chunk
    Image.fromarray(noise).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    read_image(tmp_path / "a.png")
    place = content.rindex(b"IDAT") - 4
    (tmp_path / "a.png").write_bytes(content[:place] + content[content.index(b"IEND") - 4 :])
    with pytest.raises(ImageError, match="damaged"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("mode", ["L", "I;16", "LA", "P", "1", "RGB"])
def test_a_picture_of_another_height_than_its_pixels_have(tmp_path, mode):
    """Pillow shows the upper part; sound pictures of every mode are read, or refused for their colours."""
    pixels = np.ascontiguousarray(grey()[:, -51:])
    picture = (
        Image.fromarray(pixels.astype(np.uint16) << 8) if mode == "I;16" else Image.fromarray(pixels).convert(mode)
    )
    for name in ("a.png", "a.pgm") if mode in ("L", "I;16", "RGB") else ("a.png",):
        path = tmp_path / name
        picture.save(path, "PPM" if name == "a.pgm" else "PNG")
        content = path.read_bytes()
        try:
            read_image(path)
        except ImageError as error:
            assert mode in ("1", "P")
            assert "damaged" not in str(error)
        rows, columns = pixels.shape
        head = struct.pack(">4sLL", b"IHDR", columns, rows - 30) + content[24:29]
        lower = content[:12] + head + struct.pack(">L", zlib.crc32(head)) + content[33:]
        if name == "a.pgm":
            lower = content.replace(f"{columns} {rows}".encode(), f"{columns} {rows - 30}".encode(), 1)
        path.write_bytes(lower)
        with pytest.raises(ImageError, match="damaged"):
            read_image(path)


# --- uncompressed pictures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.tif", "b.tif", "a.pgm"])
@pytest.mark.parametrize("bits", [8, 16])
def test_bytes_lost_or_inserted_in_uncompressed_pictures(tmp_path, name, bits):
    pixels = grey(rows=320) if bits == 8 else phantom(rows=320) << 4
    path = tmp_path / name
    Image.fromarray(pixels).save(path, **({"tiffinfo": {278: 32}} if name == "b.tif" else {}))
    assert np.array_equal(read_image(path).pixels, pixels)
    content = path.read_bytes()
    place = len(content) // 3
    for changed in (
        content[:place] + bytes(61) + content[place:-61],
        content[:place] + content[place + 61 :] + bytes(61),
    ):
        path.write_bytes(changed)
        with pytest.raises(ImageError, match="damaged"):
            read_image(path)


def test_strips_hold_as_many_bytes_as_their_rows(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(grey()).save(path, tiffinfo={278: 64})  # 160 rows: two whole strips, and half of one
    content = path.read_bytes()
    with Image.open(path) as picture:
        lengths = picture.tag_v2[279]
    table = struct.pack("<3L", *lengths)
    assert content.count(table) == 1
    first, _, last = lengths
    read_image(path)
    for stated in ((first, first, first), (first - 1, first, last), (first, 2, last)):
        path.write_bytes(content.replace(table, struct.pack("<3L", *stated)))
        with pytest.raises(ImageError, match="damaged"):
            read_image(path)
    path.write_bytes(content.replace(table, struct.pack("<3L", first, first, first)) + bytes(first))
    assert np.array_equal(read_image(path).pixels, grey()), "some writers fill the last strip"


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_values_of_fewer_bits_than_the_file(tmp_path, name, bits):
    pixels = (phantom(rows=160).astype(np.uint32) << 4 >> (16 - bits)).astype(np.uint16)
    pixels[0, 0] = (1 << bits) - 1
    Image.fromarray(pixels).save(tmp_path / name)
    expected = np.floor(pixels / ((1 << bits) - 1) * 65535 + 0.5)
    assert np.array_equal(read_image(tmp_path / name).pixels, expected)
