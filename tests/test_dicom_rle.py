"""RLE Lossless: sound streams give their values, damaged ones are refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import RLELossless

from dicom_samples import mammogram, phantom, save
from mammodensity.data.dicom.read import read_dicom
from mammodensity.data.dicom.rle_decoder import DamagedRleError, decode
from mammodensity.errors import DicomError

EIGHT = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "WindowCenter": 128, "WindowWidth": 256}


def packed(values: bytes) -> bytes:
    """Code bytes as literal runs (PS3.5 G.3.1)."""
    pieces = [values[place : place + 128] for place in range(0, len(values), 128)]
    content = b"".join(bytes([len(piece) - 1]) + piece for piece in pieces)
    return content + bytes(len(content) % 2)


def framed(segments: list[bytes], number: int | None = None) -> bytes:
    offsets = np.cumsum([64, *map(len, segments[:-1])]).tolist()
    return struct.pack("<16L", number or len(segments), *offsets, *[0] * (15 - len(offsets))) + b"".join(segments)


@pytest.mark.parametrize(("samples", "bits"), [(1, 8), (1, 16), (3, 8)])
def test_segments_are_bytes_from_the_most_significant_one_on(samples, bits):
    values = np.random.default_rng(1).integers(1 << bits, size=(17, 23, samples)).astype(f"u{bits // 8}")
    planes = [
        (values[..., sample] >> shift & 255).astype(np.uint8).tobytes()
        for sample in range(samples)
        for shift in range(bits - 8, -1, -8)
    ]
    pixels = decode(framed([packed(plane) for plane in planes]), 17, 23, samples, bits)
    assert np.array_equal(pixels, values if samples == 3 else values[..., 0])


def test_segments_hold_exactly_their_bytes():
    planes = [bytes(range(200)), bytes(200)]
    sound = [packed(plane) for plane in planes]
    assert decode(framed(sound), 10, 20, 1, 16).shape == (10, 20)
    for wrong in (
        framed([packed(planes[0][:-1]), sound[1]]),
        framed([packed(planes[0] + b"\1"), sound[1]]),
        framed(sound)[:-4],
        framed(sound, number=1),
        framed(sound[:1]),
        framed(sound)[:60],
        b"",
    ):
        with pytest.raises(DamagedRleError):
            decode(wrong, 10, 20, 1, 16)


@pytest.mark.parametrize("options", [{}, EIGHT])
def test_damage_is_refused_or_hardly_seen(tmp_path, options):
    stored = phantom(rows=160)
    ds = mammogram(stored=(stored >> 4).astype(np.uint8) if options else stored, **options)
    ds.compress(RLELossless, generate_instance_uid=False)
    stream = next(generate_frames(ds.PixelData, number_of_frames=1))
    expected = read_dicom(save(ds, tmp_path / "a")).pixels.astype(int)
    rng = np.random.default_rng(2)
    refused = 0
    for place in rng.integers(70, len(stream) - 100, 40).tolist():
        for changed in (
            stream[:place] + rng.bytes(7) + stream[place:],
            stream[:place] + stream[place + 7 :],
            stream[:place] + rng.bytes(40) + stream[place + 40 :],
        ):
            ds.PixelData = encapsulate([changed])
            try:
                found = read_dicom(save(ds, tmp_path / "b")).pixels.astype(int)
            except DicomError as error:
                refused += error.code == "damaged"
            else:
                assert (np.abs(found - expected) > 0.02 * 65535).mean() < 0.02
    assert refused > 90
