"""Lengths and elements that lie: no exception but ours, and no wrong acceptance; test_mutations.py has the rest."""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import JPEG2000Lossless

from dicom_samples import mammogram, phantom, save
from mammodensity.data.dicom.file_checks import REASONS
from mammodensity.data.dicom.gatekeeper import judge_file
from mammodensity.data.dicom.header_parsing import looks_like_dicom
from mammodensity.data.dicom.read import read_dicom
from mammodensity.errors import DicomError
from mammodensity.terms import Projection


@cache
def whole(syntax) -> bytes:
    ds = mammogram(stored=phantom(Projection.CC_R, 48))
    if syntax:
        ds.compress(syntax)
    with TemporaryDirectory() as folder:
        return save(ds, Path(folder, "a")).read_bytes()


def survives(content: bytes) -> bool:
    """Judge and read; True when accepted. Only our errors may come."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "a")
        path.write_bytes(content)
        looks_like_dicom(path)
        verdict = judge_file(path)
        assert all(reason.code in REASONS for reason in verdict.reasons)
        try:
            mammogram_read = read_dicom(path)
        except DicomError as error:
            assert error.code in REASONS
            assert "\n" not in str(error)
            return False
        assert verdict.accepted
        assert mammogram_read.pixels.dtype == np.uint16
        return True


LENGTHS = (0, 1, 2, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)


@pytest.mark.parametrize("length", LENGTHS)
def test_lengths_of_elements(length):
    """Each element's length set to an odd value in turn."""
    content = whole(None)
    place = 132
    while place < len(content) - 12:
        vr = content[place + 4 : place + 6]
        wide = vr in (b"OB", b"OW", b"SQ", b"UN", b"UT")
        where, form, most = (place + 8, "<L", 0xFFFFFFFF) if wide else (place + 6, "<H", 0xFFFF)
        changed = bytearray(content)
        struct.pack_into(form, changed, where, min(length, most))
        survives(bytes(changed))
        if vr == b"OW":
            break
        now = struct.unpack_from(form, content, where)[0]
        place = where + (4 if wide else 2) + now


FAULTS = {
    "Modality": "CT",
    "PresentationIntentType": "FOR PROCESSING",
    "ViewPosition": "ML",
    "ImageLaterality": "B",
    "Laterality": "L",
    "PartialView": "YES",
    "NumberOfFrames": 5,
    "PhotometricInterpretation": "RGB",
    "BitsAllocated": 32,
    "Rows": 4000,
    "WindowWidth": 0,
    "EstimatedRadiographicMagnificationFactor": "1.8",
}
NOISE = {
    "Manufacturer": ["", "X" * 64, "\\".join("AB"), "Ünïcøde"],
    "SeriesDescription": ["", "screening", "\x00\x01"],
    "PatientOrientation": ["", ["P", "L"], ["X"]],
    "WindowCenterWidthExplanation": ["", ["A", "B"]],
    "PixelPaddingValue": [0, 65535],
    "InstanceNumber": ["", "7"],
    "BodyPartExamined": ["", "BREAST"],
}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.dictionaries(st.sampled_from(list(NOISE)), st.integers(0, 3)),
    st.none() | st.sampled_from(list(FAULTS)),
)
def test_a_fault_is_never_covered_by_other_changes(noise, fault):
    changes = {name: NOISE[name][number % len(NOISE[name])] for name, number in noise.items()}
    if fault:
        changes[fault] = FAULTS[fault]
    with TemporaryDirectory() as folder:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's, on the odd values written on purpose
            path = save(mammogram(stored=phantom(Projection.CC_R, 48), **changes), Path(folder, "a"))
        accepted = survives(path.read_bytes())
    assert accepted == (fault is None)


def test_a_decoder_that_dies_or_hangs_costs_one_file(tmp_path, monkeypatch):
    from mammodensity.data.dicom import decoding as isolation

    good = tmp_path / "good"
    good.write_bytes(whole(JPEG2000Lossless))
    expected = read_dicom(good).pixels
    isolation.close_decoders()
    for program, word in (("import os; os.abort()", "fails"), ("import time; time.sleep(60)", "takes too long")):
        (tmp_path / "decoder.py").write_text(program)
        with monkeypatch.context() as patch:
            patch.setattr(isolation, "_PROGRAM", tmp_path / "decoder.py")
            patch.setattr(isolation, "_PATIENCE_S", 1.0)
            with pytest.raises(DicomError, match=f"the decoder {word}"):
                read_dicom(good)
    assert np.array_equal(read_dicom(good).pixels, expected)
