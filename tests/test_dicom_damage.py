"""Files cut short, padded, inflated or with lengths that lie: what they cost, and what is said of them."""

from __future__ import annotations

import os
import struct
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from dicom_samples import deflated, mammogram, modified, phantom, save
from mammodensity.data.dicom.file_checks import FileCheck
from mammodensity.data.dicom.gatekeeper import judge_file
from mammodensity.data.dicom.header_parsing import looks_like_dicom
from mammodensity.data.images import read_image


def codes(found: FileCheck) -> set[str]:
    return {reason.code for reason in found.reasons}


@contextmanager
def no_more_than(most: int) -> Iterator[None]:
    """Peak memory taken inside, in bytes."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < most


def meta_and_data(path: Path) -> tuple[bytes, bytes]:
    """Preamble, prefix and file meta information of a file; the data set after them."""
    content = path.read_bytes()
    after = 132 + 12 + int.from_bytes(content[140:144], "little")
    return content[:after], content[after:]


def deflated_file(path: Path, ds: Dataset, before: bytes = b"", after: bytes = b"") -> Path:
    """The data set between some bytes, deflated."""
    plain = meta_and_data(save(ds, path))[1]
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    meta, _ = meta_and_data(save(ds, path))
    place = plain.index(b"\x28\x00\x02\x00US")
    path.write_bytes(meta + deflated(plain[:place] + before + plain[place:] + after))
    return path


# --- lengths --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{"Rows": 48}, {"Columns": 40}, {"PixelData": phantom().tobytes() * 2}])
@pytest.mark.parametrize("squeezed", [False, True])
def test_more_pixels_than_rows_and_columns_hold(tmp_path, changes, squeezed):
    ds = mammogram(**changes)
    path = deflated_file(tmp_path / "a", ds) if squeezed else save(ds, tmp_path / "a")
    found = judge_file(path)
    assert codes(found) == {"damaged"}
    assert "bytes of pixels where its Rows and Columns need" in found.reasons[0].text


def test_padding_after_the_pixels_is_legal(tmp_path):
    expected = read_image(save(mammogram(), tmp_path / "a")).pixels
    for count in (1, 2, 8):
        padded = save(mammogram(PixelData=phantom().tobytes() + bytes(count)), tmp_path / "b")
        assert np.array_equal(read_image(padded).pixels, expected)
    odd = (phantom()[:91, :51] >> 4).astype(np.uint8)
    ds = mammogram(stored=odd, BitsAllocated=8, BitsStored=8, HighBit=7, PixelData=odd.tobytes() + b"\0")
    assert codes(judge_file(save(ds, tmp_path / "c"))) == set()


def test_a_sparse_file_with_far_too_many_pixels(tmp_path):
    path = save(mammogram(), tmp_path / "a")
    content = path.read_bytes()
    place = content.rindex(b"\xe0\x7f\x10\x00OW") + 8
    path.write_bytes(content[:place] + struct.pack("<L", 1_900_000_000) + content[place + 4 :])
    os.truncate(path, 1_900_000_000)
    with no_more_than(20_000_000):
        assert codes(judge_file(path)) == {"damaged"}


def test_a_sparse_file_with_far_too_long_a_codestream(tmp_path):
    ds = mammogram()
    ds.compress(RLELossless)
    path = save(ds, tmp_path / "a")
    content = path.read_bytes()
    place = content.index(b"\xfe\xff\x00\xe0", content.rindex(b"\xe0\x7f\x10\x00OB") + 20) + 4
    path.write_bytes(content[:place] + struct.pack("<L", 1_900_000_000) + content[place + 4 :])
    os.truncate(path, 1_900_000_000 + place + 4)
    with path.open("ab") as stream:
        stream.write(b"\xfe\xff\xdd\xe0\0\0\0\0")
    with no_more_than(20_000_000):
        found = judge_file(path)
    assert codes(found) == {"damaged"}
    assert "bytes of compressed pixels" in found.reasons[0].text


def test_lengths_that_lie_cost_no_memory(tmp_path):
    content = save(mammogram(), tmp_path / "a").read_bytes()
    place = content.index(b"\x08\x00\x60\x00CS")
    lie = b"\x08\x00\x2a\x21UN\0\0" + (0xFFFFFFF0).to_bytes(4, "little")
    (tmp_path / "a").write_bytes(content[:place] + lie + content[place:])
    with no_more_than(20_000_000):
        assert codes(judge_file(tmp_path / "a")) == {"damaged"}


# --- deflated -------------------------------------------------------------------------------------------------------


def test_bytes_like_a_tag_of_pixel_data_in_a_deflated_header(tmp_path):
    expected = read_image(save(mammogram(), tmp_path / "a")).pixels
    private = b"\x09\x00\x10\x10UN\0\0" + struct.pack("<L", 12) + b"\xe0\x7f\x10\x00OW\0\0\x04\0\0\0"
    plain = meta_and_data(save(mammogram(), tmp_path / "b"))[1]
    ds = mammogram()
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    meta, _ = meta_and_data(save(ds, tmp_path / "b"))
    place = plain.index(b"\x10\x00\x10\x00PN")
    (tmp_path / "b").write_bytes(meta + deflated(plain[:place] + private + plain[place:]))
    assert np.array_equal(read_image(tmp_path / "b").pixels, expected)


def test_a_long_deflated_header_is_followed(tmp_path):
    """Longer than what is kept of inflated content at a time."""
    expected = read_image(save(mammogram(), tmp_path / "a")).pixels
    private = b"\x27\x00\x10\x10UN\0\0" + struct.pack("<L", 3_000_000) + bytes(3_000_000)
    path = deflated_file(tmp_path / "b", mammogram(), private)
    assert np.array_equal(read_image(path).pixels, expected)


def test_a_deflated_bomb_costs_no_memory(tmp_path):
    long = b"\x27\x00\x10\x10UN\0\0" + struct.pack("<L", 70_000_000) + bytes(70_000_000)
    in_header = deflated_file(tmp_path / "a", mammogram(), before=long)
    in_pixels = deflated_file(tmp_path / "b", mammogram(PixelData=bytes(40_000_000)))
    behind = deflated_file(tmp_path / "c", mammogram(), after=b"\xfc\xff\xfc\xffOB\0\0" + long[8:])
    with no_more_than(20_000_000):
        assert codes(judge_file(in_header)) == {"damaged"}
        assert codes(judge_file(in_pixels)) == {"damaged"}
        read_image(behind)  # padding after the data set (PS3.10 7.2) is never inflated


def test_a_large_image_packed_to_almost_nothing_is_never_decoded(tmp_path, monkeypatch):
    """A few hundred bytes of JPEG 2000 or deflate hold a black image of any size."""
    side = 5600
    black = np.zeros((side, side), np.uint16)
    ds = mammogram(stored=black[:96, :96].copy(), BitsStored=16, HighBit=15)
    ds.compress(JPEG2000Lossless)
    stream = next(generate_frames(ds.PixelData, number_of_frames=1))
    head = stream.index(b"\xff\x51") + 6  # ISO/IEC 15444-1, A.5.1: size of the image, then (16 bytes on) of its tiles
    size = struct.pack(">LL", side, side)
    stream = stream[:head] + size + stream[head + 8 : head + 16] + size + stream[head + 24 :]
    ds = mammogram(Rows=side, Columns=side, ImagerPixelSpacing=[0.05, 0.05], BitsStored=16, HighBit=15)
    ds.PixelData = encapsulate([stream])
    ds["PixelData"].VR = "OB"
    ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
    packed = save(ds, tmp_path / "a")
    squeezed = deflated_file(tmp_path / "b", mammogram(stored=black, ImagerPixelSpacing=[0.05, 0.05]))
    monkeypatch.setattr("mammodensity.data.dicom.decoding._asked", None)
    with no_more_than(20_000_000):
        assert codes(judge_file(packed)) == codes(judge_file(squeezed)) == {"absurd-size"}


def test_a_deflated_file_cut_short(tmp_path):
    path = deflated_file(tmp_path / "a", mammogram())
    content = path.read_bytes()
    for share in (0.1, 0.5, 0.9):
        path.write_bytes(content[: int(len(content) * share)])
        assert codes(judge_file(path)) == {"damaged"}


# --- headers --------------------------------------------------------------------------------------------------------


def test_a_header_of_too_many_elements_is_refused_soon(tmp_path):
    path = save(mammogram(), tmp_path / "a")
    content = path.read_bytes()
    place = content.index(b"\x10\x00\x20\x00LO")
    many = b"".join(b"\x09\x00" + struct.pack("<H", 0x1000 + n % 4096) + b"LO\0\0" for n in range(150_000))
    path.write_bytes(content[:place] + many + content[place:])
    begin = time.process_time()
    found = judge_file(path)
    assert time.process_time() - begin < 5
    assert codes(found) == {"damaged"}
    assert "more than 100000 elements" in found.reasons[0].text


def test_a_sequence_larger_than_any_is_not_parsed(tmp_path):
    path = save(mammogram(ViewCodeSequence=None), tmp_path / "a")
    content = path.read_bytes()
    place = content.index(b"\xe0\x7f\x10\x00OW")
    item = b"\x09\x00\x10\x10LO\0\0" * 300_000
    item = b"\xfe\xff\x00\xe0" + struct.pack("<L", len(item)) + item
    views = b"\x54\x00\x20\x02SQ\0\0" + struct.pack("<L", len(item)) + item
    path.write_bytes(content[:place] + views + content[place:])
    found = judge_file(path)
    assert codes(found) == {"damaged"}
    assert "(0054,0220) is larger than in any header" in found.reasons[0].text


def test_every_cut_inside_the_header_is_called_damaged(tmp_path):
    path = save(mammogram(), tmp_path / "a")
    meta, data = meta_and_data(path)
    content = meta + data
    boundaries, place = {len(meta)}, len(meta)
    while data[place - len(meta) :][:4] != b"\xe0\x7f\x10\x00":
        wide = content[place + 4 : place + 6] in (b"SQ", b"OB", b"OW", b"UN")
        here, form = (place + 8, "<L") if wide else (place + 6, "<H")
        place = here + struct.calcsize(form) + struct.unpack_from(form, content, here)[0]
        boundaries.add(place)
    for cut in range(132, place + 8):
        path.write_bytes(content[:cut])
        found = judge_file(path)
        if cut not in boundaries or cut == len(meta):
            assert codes(found) == {"damaged"}, cut
        else:  # nothing is seen to be missing but what is needed
            assert not found.accepted
    path.write_bytes(content[:place])
    assert codes(judge_file(path)) == {"no-pixels"}
    assert "cut off before its pixels" in judge_file(path).reasons[0].text


REFUSED_BY = {
    "spot": {"ViewCodeSequence": modified("CC", "R-102D7")},
    "magnified": {"EstimatedRadiographicMagnificationFactor": "1.8"},
    "partial": {"PartialView": "YES"},
    "several": {"NumberOfFrames": 5},
    "other side": {"Laterality": "L"},
}
BROKEN = {
    "spot": [
        (b"SRT T\0\x22\x02SQ", b"SRT T\0\x22\x02 Q"),  # an unknown kind of element in the item
        (b"\x02\x01SH\x04\0SRT ", b"\x02\x01SH\x20\0SRT "),  # one that takes in those after it
        (b"\x02\x01SH\x04\0SRT ", b"\x02\x01SH\x00\0SRT "),  # one after which nothing can be read
        (b"T\0\x22\x02SQ", b"\0\0\x22\x02SQ"),  # another element, out of order
        (b"\x54\0\x20\x02SQ", b"\x20\0\x20\x02SQ"),
    ],
    "magnified": [
        (b"\x18\0\x14\x11DS", b"\x18\0\x14\0DS"),
        (b"\x14\x11DS", b"\x14\x11D\xff"),
        (b"1.8 ", b"1\x008 "),
        (b"DS\x04\x001.8 ", b"DS\x04\x001Z8 "),
    ],
    "partial": [(b"YES ", b"\xe9ES "), (b"YES ", b"YFS "), (b"\x50\x13CS", b"\x50\x13C\0")],
    "several": [(b"\x08\0IS", b"\x08\0I "), (b"\x08\0IS\x02\x005 ", b"\x08\0IS\x02\0\x85 ")],
    "other side": [(b"\x20\0\x60\0CS", b"\x20\xff\x60\0CS"), (b"\x60\0CS\x02\0L ", b"\x60\0CS\x02\0\x7f ")],
}


@pytest.mark.parametrize(("fault", "change"), [(name, one) for name, several in BROKEN.items() for one in several])
def test_what_speaks_against_an_image_does_not_go_unread(tmp_path, fault, change):
    path = save(mammogram(**REFUSED_BY[fault]), tmp_path / "a")
    content = path.read_bytes()
    assert judge_file(path).reasons
    before, found, after = content.rpartition(change[0])
    assert found
    path.write_bytes(before + change[1] + after)
    assert judge_file(path).reasons


def test_odd_texts_of_sound_files_are_no_damage(tmp_path):
    path = save(mammogram(SeriesDescription="R CC xyz", BodyPartExamined="BREAST XY"), tmp_path / "a")
    content = path.read_bytes().replace(b"xyz", b"\0\xe9z").replace(b"BREAST XY", b"BREAST \xe9Y")
    path.write_bytes(content)
    assert not judge_file(path).reasons


def test_a_prefix_before_random_bytes_is_damaged(tmp_path):
    rng = np.random.default_rng(3)
    for _ in range(20):
        (tmp_path / "a").write_bytes(bytes(128) + b"DICM" + rng.bytes(3000))
        assert codes(judge_file(tmp_path / "a")) == {"damaged"}


def test_a_file_that_begins_with_the_prefix(tmp_path):
    path = save(mammogram(), tmp_path / "a")
    expected = read_image(path).pixels
    path.write_bytes(path.read_bytes()[128:])
    assert looks_like_dicom(path)
    assert judge_file(path).marks == {"header-leniency"}
    assert np.array_equal(read_image(path).pixels, expected)
    path = deflated_file(path, mammogram())
    path.write_bytes(path.read_bytes()[132:])
    assert np.array_equal(read_image(path).pixels, expected)
