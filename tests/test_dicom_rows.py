"""Uncompressed pixels of which bytes are lost, inserted or overwritten; and sound images that resemble them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dicom_samples import mammogram, phantom, save
from mammodensity.data.dicom.decoding import read_stored_values
from mammodensity.data.dicom.gatekeeper import read_header
from mammodensity.data.picture_files import read_picture
from mammodensity.data.row_damage import folding, row_damage
from mammodensity.errors import DicomError, ImageError
from mammodensity.terms import Projection

CASES = [(projection, bits, monochrome) for projection in Projection for bits in (8, 12) for monochrome in (1, 2)]


def values_of(projection: Projection, bits: int, monochrome: int) -> np.ndarray:
    values = (phantom(projection).astype(np.int32) >> 12 - bits).repeat(2, axis=0).repeat(2, axis=1)
    return values if monochrome == 2 else (1 << bits) - 1 - values


def from_bytes(content: bytes, like: np.ndarray, bits: int) -> np.ndarray:
    kind = "u1" if bits == 8 else "<u2"
    size = like.size * np.dtype(kind).itemsize
    return np.frombuffer(content[:size].ljust(size, b"\0"), kind).reshape(like.shape).astype(np.int32)


def bytes_of(values: np.ndarray, bits: int) -> bytes:
    return values.astype("u1" if bits == 8 else "<u2").tobytes()


@pytest.mark.parametrize(("projection", "bits", "monochrome"), CASES)
@pytest.mark.parametrize("pixels", [31, -31, 60])
def test_lost_and_inserted_bytes_shift_the_rows(projection, bits, monochrome, pixels):
    values = values_of(projection, bits, monochrome)
    assert not row_damage(values)
    content, size = bytes_of(values, bits), abs(pixels) * (1 if bits == 8 else 2)
    place = len(content) // 2 + 18
    if pixels > 0:
        content = content[:place] + content[place + size :] + content[-size:]
    else:
        content = content[:place] + bytes(size) + content[place:]
    assert "shifted" in row_damage(from_bytes(content, values, bits))


@pytest.mark.parametrize(("projection", "bits", "monochrome"), CASES)
@pytest.mark.parametrize("pixels", [4, -6])
def test_rows_that_move_by_few_pixels(projection, bits, monochrome, pixels):
    values = values_of(projection, bits, monochrome)
    content, size = bytes_of(values, bits), abs(pixels) * (1 if bits == 8 else 2)
    place = round(0.45 * len(content)) // 2 * 2
    changed = content[:place] + (content[place + size :] if pixels > 0 else bytes(size) + content[place:])
    assert "shifted" in row_damage(from_bytes(changed, values, bits))


def beside_air(projection: Projection, monochrome: int) -> tuple[np.ndarray, int]:
    """Make an image with rows and columns of air around the breast, and the sign of columns away from the wall."""
    values = values_of(projection, 12, monochrome)
    outward = 1 if projection.laterality == "L" else -1
    columns = (0, values.shape[1] // 2)[::outward]
    air = 0 if monochrome == 2 else 4095
    return np.pad(values, ((40, 40), columns), constant_values=air), outward


@pytest.mark.parametrize("monochrome", [1, 2])
@pytest.mark.parametrize("projection", [Projection.CC_L, Projection.CC_R])
@pytest.mark.parametrize("share", [0.2, 0.3])
def test_a_shift_above_the_breast_tears_it_or_moves_it_off_the_wall(projection, monochrome, share):
    values, outward = beside_air(projection, monochrome)
    assert not row_damage(values)
    columns = round(share * values.shape[1])
    for by, damaged in ((-outward * columns, True), (outward * round(1.4 * columns), share > 0.2)):
        moved = np.roll(values.ravel(), by).reshape(values.shape)
        assert bool(row_damage(moved)) == damaged, by


@pytest.mark.parametrize("projection", [Projection.CC_L, Projection.CC_R])
def test_an_image_brought_to_a_size_lies_off_the_wall_and_is_sound(projection):
    values, _ = beside_air(projection, 2)
    width = values.shape[1] // 3
    noise = np.random.default_rng(2).integers(0, 9, values.shape)
    for image in (np.pad(values, ((0, 0), (width, width))), np.pad(values + noise, ((0, 0), (width, width)))):
        assert not row_damage(image)


@pytest.mark.parametrize(("projection", "bits", "monochrome"), CASES)
@pytest.mark.parametrize("share", [0.4, 0.61])
def test_a_tail_of_zeros(projection, bits, monochrome, share):
    values = values_of(projection, bits, monochrome)
    content = bytes_of(values, bits)
    place = round(share * len(content)) + 42
    assert row_damage(from_bytes(content[:place], values, bits))


@pytest.mark.parametrize("projection", Projection)
def test_an_odd_number_of_bytes(projection):
    values = phantom(projection).astype(np.int32) << 4
    content = values.astype("<u2").tobytes()
    assert "noise" in row_damage(from_bytes(content[:4001] + content[4002:], values, 16))


@pytest.mark.parametrize("monochrome", [1, 2])
@pytest.mark.parametrize("projection", Projection)
def test_sound_images_with_bands_borders_and_markers(projection, monochrome):
    values = values_of(projection, 12, monochrome)
    noise = np.random.default_rng(2).integers(0, 30, values.shape)
    rows, columns = values.shape
    for fill in (0, 4095):
        for base in (values, np.clip(values + noise, 0, 4095)):
            band, frame, marked, padded = (base.copy() for _ in range(4))
            band[:8] = band[-8:] = fill
            frame[:6] = frame[-6:] = fill
            frame[:, :6] = frame[:, -6:] = fill
            marked[10:26, columns // 2 : columns // 2 + 20] = fill
            padded = np.pad(padded, ((0, 0), (20, 20)), constant_values=fill)
            cut = base[: rows * 3 // 4]
            for image in (band, frame, marked, padded, cut):
                assert not row_damage(image)


@pytest.mark.parametrize(("projection", "bits", "monochrome"), CASES)
@pytest.mark.parametrize("count", [2, 4])
def test_rows_of_a_false_length(projection, bits, monochrome, count):
    values = values_of(projection, bits, monochrome)
    assert not folding(values)
    rows = len(values) // (8 * count) * 8 * count
    assert "side by side" in folding(values[:rows].reshape(rows // count, -1))
    blocks = values[:rows].reshape(rows // 8 // count, count, 8, -1)  # as a decoder of JPEG places blocks
    assert "side by side" in folding(blocks.transpose(0, 2, 1, 3).reshape(rows // count, -1))


@pytest.mark.parametrize("name", ["a.tif", "a.pgm"])
@pytest.mark.parametrize("lost", [80, -80, 81])
def test_uncompressed_pictures(tmp_path, name, lost):
    path = tmp_path / name
    Image.fromarray(phantom(Projection.MLO_L).astype(np.uint16) << 4).save(path)
    content = path.read_bytes()
    read_picture(path)
    place = len(content) // 2
    if lost > 0:
        path.write_bytes(content[:place] + content[place + lost :] + bytes(lost))
    else:
        path.write_bytes((content[:place] + content[place + lost : place] + content[place:])[: len(content)])
    with pytest.raises(ImageError, match="damaged: its rows are"):
        read_picture(path)


def test_a_damaged_file_is_refused_in_one_line(tmp_path):
    values = values_of(Projection.MLO_L, 12, 2).astype(np.uint16)
    content = values.tobytes()
    ds = mammogram(Projection.MLO_L, stored=values, PixelData=content[:20_001] + bytes(200) + content[20_201:])
    assert read_stored_values(read_header(save(ds, tmp_path / "a"))).shape == values.shape  # less than a row
    ds = mammogram(Projection.MLO_L, stored=values, PixelData=content[:20_000] + content[20_080:] + content[-80:])
    with pytest.raises(DicomError, match=r"its rows are shifted.*copy it again") as caught:
        read_stored_values(read_header(save(ds, tmp_path / "a")))
    assert caught.value.code == "damaged"
    assert "\n" not in str(caught.value)
