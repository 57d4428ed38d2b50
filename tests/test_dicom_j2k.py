"""Damaged JPEG 2000: exchanged, overwritten and left-over packets are refused, sound streams of all kinds accepted."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from openjpeg.utils import encode_array
from pydicom.encaps import encapsulate

from dicom_samples import mammogram, phantom, save
from mammodensity.data.dicom.decoding import read_stored_values
from mammodensity.data.dicom.gatekeeper import read_header
from mammodensity.errors import DicomError

LOSSLESS, LOSSY = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"
ENCODERS = {
    "lossless": (LOSSLESS, {}),
    "one layer": (LOSSY, {"compression_ratios": [8]}),
    "three layers": (LOSSY, {"compression_ratios": [40, 20, 10]}),
    "by noise": (LOSSY, {"signal_noise_ratios": [45]}),
    "lossless, lengths of packets": (LOSSLESS, {"add_plt": True, "add_tlm": True}),
}


def encoded(name, values):
    return bytes(encode_array(values, bits_stored=12, photometric_interpretation=2, **ENCODERS[name][1]))


def decoded(tmp_path, stream, syntax):
    ds = mammogram(stored=phantom())
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([stream])
    ds["PixelData"].VR = "OB"
    return read_stored_values(read_header(save(ds, tmp_path / "a")))


def overwritten(data, rng):
    size = int(rng.integers(8, 64))
    place = int(rng.integers(len(data) - size))
    return data[:place] + rng.bytes(size) + data[place + size :]


def exchanged(data, rng):
    size = len(data) // 8
    first = int(rng.integers(len(data) // 2 - size))
    second = int(rng.integers(len(data) // 2, len(data) - size))
    between = data[first + size : second]
    return data[:first] + data[second : second + size] + between + data[first : first + size] + data[second + size :]


@pytest.mark.parametrize("monochrome", [1, 2])
@pytest.mark.parametrize("name", ENCODERS)
def test_sound_streams_are_accepted(tmp_path, name, monochrome):
    values = phantom() if monochrome == 2 else 4095 - phantom()
    result = decoded(tmp_path, encoded(name, values), ENCODERS[name][0])
    assert abs(result - values.astype(int)).max() < (1 if ENCODERS[name][0] == LOSSLESS else 300)


@pytest.mark.parametrize("damage", [overwritten, exchanged])
@pytest.mark.parametrize("name", ENCODERS)
def test_damaged_packets_are_refused_where_the_image_changes(tmp_path, name, damage):
    stream = encoded(name, phantom())
    expected = decoded(tmp_path, stream, ENCODERS[name][0])
    begin = stream.index(b"\xff\x93") + 2
    rng = np.random.default_rng(4)
    refused = missed = 0
    for _ in range(12):
        damaged = stream[:begin] + damage(stream[begin:-2], rng) + stream[-2:]
        try:
            result = decoded(tmp_path, damaged, ENCODERS[name][0])
        except DicomError as error:
            assert error.code == "damaged"
            refused += 1
        else:
            missed += (abs(result - expected) > 0.02 * 4096).mean() > 0.01
    assert refused > 3
    assert missed <= (0 if ENCODERS[name][0] == LOSSLESS else 1)  # cut blocks are known to a few bytes only


def test_a_tile_with_more_bytes_than_its_packets_is_refused(tmp_path):
    """So is one of whose packets some count as empty, by a damaged bit."""
    stream = bytearray(encoded("lossless", phantom()))
    place = stream.index(b"\xff\x90\x00\x0a") + 6
    size = struct.unpack_from(">L", stream, place)[0]
    stream[place : place + 4] = struct.pack(">L", size + 400)
    with pytest.raises(DicomError, match="do not fill their tile") as caught:
        decoded(tmp_path, bytes(stream[:-2]) + bytes(400) + b"\xff\xd9", LOSSLESS)
    assert caught.value.code == "damaged"


def test_high_throughput_blocks_overwritten(tmp_path):
    codecs = pytest.importorskip("imagecodecs", reason="the extra jpeg12 is not installed")
    stream = bytes(codecs.htj2k_encode(phantom(), reversible=True))
    begin, syntax = stream.index(b"\xff\x93") + 2, "1.2.840.10008.1.2.4.201"
    assert np.array_equal(decoded(tmp_path, stream, syntax), phantom())
    with pytest.raises(DicomError):
        decoded(tmp_path, stream[:begin] + exchanged(stream[begin:-2], np.random.default_rng(1)) + stream[-2:], syntax)


@pytest.mark.parametrize("more", [1, 100])
def test_a_size_of_more_tiles_than_there_are_is_refused(tmp_path, more):
    stream = encoded("lossless", phantom())
    rows, columns = phantom().shape
    size = struct.pack(">LL", columns, rows)
    taller = stream.replace(size, struct.pack(">LL", columns, rows + more), 1)
    assert taller.count(size) == 1  # the tile keeps its size
    ds = mammogram(stored=np.pad(phantom(), ((0, more), (0, 0))))
    ds.file_meta.TransferSyntaxUID = LOSSLESS
    ds.PixelData = encapsulate([taller])
    ds["PixelData"].VR = "OB"
    with pytest.raises(DicomError, match="tiles of the JPEG 2000 stream are missing"):
        read_stored_values(read_header(save(ds, tmp_path / "a")))
