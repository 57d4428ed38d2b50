"""DICOM pixels: every transfer syntax by independent encoders, and the grey-scale pipeline by hand arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dicom_samples import TOMO, dcmtk, lut, mammogram, phantom, save
from mammodensity.data.dicom.decoding import read_stored_values
from mammodensity.data.dicom.gatekeeper import read_header
from mammodensity.data.dicom.grey_scale import rendered, window
from mammodensity.data.dicom.read import read_with_warnings
from mammodensity.data.images import read_image
from mammodensity.errors import DicomError
from mammodensity.terms import Projection

LINEAR = np.floor(np.round(np.clip((np.arange(4096) - 2047.5) / 4095 + 0.5, 0, 1) * 65535, 4) + 0.5).astype(np.uint16)


def stored(path):
    return read_stored_values(read_header(path))


def pixels(tmp_path, **changes) -> np.ndarray:
    return read_image(save(mammogram(**changes), tmp_path / "a.dcm")).pixels


# --- transfer syntaxes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", ["implicit", "explicit", "big", "deflated"])
@pytest.mark.parametrize("signed", [False, True])
def test_uncompressed_syntaxes(tmp_path, syntax, signed):
    values = phantom().astype(np.int16) - (700 if signed else 0)
    ds = mammogram(stored=values, PixelRepresentation=int(signed), BitsStored=16, HighBit=15)
    if syntax == "implicit":
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    elif syntax == "big":
        ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        ds.PixelData = values.astype(">i2").tobytes()
    elif syntax == "deflated":
        ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    assert np.array_equal(stored(save(ds, tmp_path / "a")), values)


DCMTK = {
    "lossless process 14, predictor 6": ("dcmcjpeg", "+el", "+sv", "6"),
    "lossless SV1": ("dcmcjpeg", "+e1"),
    "JPEG-LS": ("dcmcjpls", "+el"),
    "RLE": ("dcmcrle",),
}


@pytest.mark.parametrize("encoder", DCMTK)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_dcmtk_as_encoder(tmp_path, encoder, photometric):
    values = phantom() if photometric == "MONOCHROME2" else 4095 - phantom()
    save(mammogram(stored=values, PhotometricInterpretation=photometric), tmp_path / "plain")
    program, *options = DCMTK[encoder]
    dcmtk(program, *options, tmp_path / "plain", tmp_path / "packed")
    assert np.array_equal(stored(tmp_path / "packed"), values)


@pytest.mark.parametrize(
    ("syntax", "signed"),
    [
        (JPEG2000Lossless, False),
        (JPEG2000Lossless, True),
        (JPEGLSLossless, False),
        (RLELossless, False),
        (RLELossless, True),
    ],
)  # JPEG-LS has no signed values
def test_pydicoms_encoders(tmp_path, syntax, signed):
    values = phantom().astype(np.int16) - (700 if signed else 0)
    ds = mammogram(stored=values, PixelRepresentation=int(signed), BitsStored=16, HighBit=15)
    ds.compress(syntax, generate_instance_uid=False)
    assert np.array_equal(stored(save(ds, tmp_path / "a")), values)


@pytest.mark.parametrize("option", ["--jpeg", "--j2k", "--jpegls", "--rle"])
def test_gdcm_as_encoder(tmp_path, option):
    import gdcm

    kinds = {
        "--jpeg": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
        "--j2k": gdcm.TransferSyntax.JPEG2000Lossless,
        "--jpegls": gdcm.TransferSyntax.JPEGLSLossless,
        "--rle": gdcm.TransferSyntax.RLELossless,
    }
    save(mammogram(), tmp_path / "plain")
    reader = gdcm.ImageReader()
    reader.SetFileName(str(tmp_path / "plain"))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(kinds[option]))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(tmp_path / "packed"))
    assert writer.Write()
    assert dcmread(tmp_path / "packed").file_meta.TransferSyntaxUID.is_compressed
    assert np.array_equal(stored(tmp_path / "packed"), phantom())


@pytest.mark.parametrize("uid", ["1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"])
@pytest.mark.parametrize("signed", [False, True])
def test_high_throughput_jpeg_2000(tmp_path, uid, signed):
    """OpenJPH encodes, OpenJPEG decodes."""
    codecs = pytest.importorskip("imagecodecs", reason="the extra jpeg12 is not installed")
    values = phantom().astype(np.int16) - (700 if signed else 0)
    ds = mammogram(stored=values, PixelRepresentation=int(signed), BitsStored=16, HighBit=15)
    stream = codecs.htj2k_encode(values if signed else values.astype(np.uint16), reversible=True)
    ds.file_meta.TransferSyntaxUID = uid
    ds.PixelData = encapsulate([stream])
    ds["PixelData"].VR = "OB"
    assert np.array_equal(stored(save(ds, tmp_path / "a")), values)
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:-200])
    with pytest.raises(DicomError):
        stored(tmp_path / "a")


def test_jpeg_baseline_is_close(tmp_path):
    grey = (phantom() >> 4).astype(np.uint8)
    plain = save(mammogram(stored=grey, BitsAllocated=8, BitsStored=8, HighBit=7), tmp_path / "plain")
    dcmtk("dcmcjpeg", "+eb", "+q", "95", plain, tmp_path / "packed")
    found = stored(tmp_path / "packed")
    assert abs(found - grey.astype(int)).max() < 16


def test_twelve_bit_extended_jpeg_names_the_extra(tmp_path, monkeypatch):
    save(mammogram(), tmp_path / "plain")
    dcmtk("dcmcjpeg", "+ee", "+q", "95", "--bits-force-12", tmp_path / "plain", tmp_path / "packed")
    monkeypatch.setattr("mammodensity.data.dicom.pixel_data.has_jpeg12", lambda: False)
    with pytest.raises(DicomError, match=r"pip install 'mammodensity\[jpeg12\]'") as caught:
        read_image(tmp_path / "packed")
    assert caught.value.code == "unsupported-syntax"


def test_twelve_bit_extended_jpeg_with_the_extra(tmp_path):
    pytest.importorskip("imagecodecs", reason="the extra jpeg12 is not installed")
    save(mammogram(), tmp_path / "plain")
    dcmtk("dcmcjpeg", "+ee", "+q", "95", "--bits-force-12", tmp_path / "plain", tmp_path / "packed")
    assert abs(stored(tmp_path / "packed") - phantom().astype(int)).max() < 256


def test_eight_bits_in_big_endian_words(tmp_path):
    grey = (phantom() >> 4).astype(np.uint8)
    ds = mammogram(stored=grey, BitsAllocated=8, BitsStored=8, HighBit=7)
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    ds.PixelData = grey.reshape(-1, 2)[:, ::-1].tobytes()
    ds["PixelData"].VR = "OW"
    assert np.array_equal(stored(save(ds, tmp_path / "a")), grey)


def packed(tmp_path, encoder, ds):
    """A data set written, and packed by a program of dcmtk; None: as it is."""
    path = save(ds, tmp_path / "unpacked")
    if encoder is None:
        return path
    program, *options = DCMTK[encoder]
    dcmtk(program, *options, path, tmp_path / "packed")
    return tmp_path / "packed"


def plane(position):
    """An overlay plane in the bits of the pixel cells (PS3.5 8.1.2)."""
    ds = Dataset()
    ds.add_new(0x60000100, "US", 16)
    ds.add_new(0x60000102, "US", position)
    return ds


def cells_with_a_high_high_bit():
    return mammogram(stored=phantom() << 4, HighBit=15), phantom()


def cells_with_an_overlay():
    values = phantom().copy()
    values[20:40, 20:40] |= 0x1000
    ds = mammogram(stored=values)
    ds.update(plane(12))
    return ds, phantom()


def cells_signed_but_not_extended():
    values = phantom().astype(np.int32) - 2048
    return mammogram(stored=(values & 0xFFF).astype(np.uint16), PixelRepresentation=1), values


def cells_signed_and_extended():
    values = phantom().astype(np.int16) - 2048
    return mammogram(stored=values, PixelRepresentation=1), values


def cells_signed_with_an_overlay():
    values = phantom().astype(np.int16) - 2048
    drawn = values.copy()
    drawn[20:40, 20:40] ^= 0x2000
    ds = mammogram(stored=drawn, PixelRepresentation=1)
    ds.update(plane(13))
    return ds, values


@pytest.mark.parametrize("encoder", [None, *DCMTK])
@pytest.mark.parametrize(
    "make",
    [
        cells_with_a_high_high_bit,
        cells_with_an_overlay,
        cells_signed_but_not_extended,
        cells_signed_and_extended,
        cells_signed_with_an_overlay,
    ],
)
def test_what_lies_beside_the_stored_bits(tmp_path, encoder, make):
    ds, expected = make()
    assert np.array_equal(stored(packed(tmp_path, encoder, ds)), expected)


@pytest.mark.parametrize("encoder", [None, *DCMTK])
@pytest.mark.parametrize("changes", [{"BitsStored": 10, "HighBit": 9}, {"BitsStored": 8, "HighBit": 7}])
def test_values_above_the_stored_bits_are_refused(tmp_path, encoder, changes):
    with pytest.raises(DicomError, match="bits of its Bits Stored") as caught:
        stored(packed(tmp_path, encoder, mammogram(**changes)))
    assert caught.value.code == "depth"


def test_loss_above_the_largest_value_is_cut_off(tmp_path):
    values = np.random.default_rng(1).integers(4000, 4096, phantom().shape).astype(np.uint16)
    path = save(mammogram(stored=values), tmp_path / "a")
    dcmtk("dcmcjpls", "+en", "+md", "9", path, tmp_path / "b")
    found = stored(tmp_path / "b")
    assert found.max() == 4095
    assert abs(found - values.astype(int)).max() <= 9


def test_several_fragments(tmp_path):
    ds = mammogram()
    ds.compress(JPEG2000Lossless)
    from pydicom.encaps import generate_frames

    [stream] = generate_frames(ds.PixelData, number_of_frames=1)
    ds.PixelData = encapsulate([stream], fragments_per_frame=3, has_bot=True)
    ds["PixelData"].is_undefined_length = True
    assert np.array_equal(stored(save(ds, tmp_path / "a")), phantom())


def test_grey_saved_as_colour_is_grey_and_colour_is_refused(tmp_path):
    grey = (phantom() >> 4).astype(np.uint8)
    rgb = np.repeat(grey[..., None], 3, axis=2)
    changes = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "SamplesPerPixel": 3, "PlanarConfiguration": 0}
    ds = mammogram(stored=rgb, PhotometricInterpretation="RGB", **changes)
    assert np.array_equal(stored(save(ds, tmp_path / "a")), grey)
    rgb[40, 40] = (255, 0, 0)
    with pytest.raises(DicomError) as caught:
        stored(save(mammogram(stored=rgb, PhotometricInterpretation="RGB", **changes), tmp_path / "b"))
    assert caught.value.code == "colour"


# --- grey scale -----------------------------------------------------------------------------------------------------


def test_a_linear_window_by_hand(tmp_path):
    assert np.array_equal(pixels(tmp_path), LINEAR[phantom()])
    # C.11.2.1.2.1: c = 2048, w = 4096 runs from 0 to 4095; c = 2048, w = 1 is a step; c = 0, w = 100 from -50 to 49
    assert window(np.array([2047.0, 2048.0]), 2048, 1, "LINEAR").tolist() == [0, 1]
    ends = window(np.array([-51.0, -50.0, 0.0, 49.0, 50.0]), 0, 100, "LINEAR")
    assert np.allclose(ends, [0, 0, 0.5 / 99 + 0.5, 1, 1])


def test_window_functions_by_hand(tmp_path):
    exact = np.clip((phantom().astype(float) - 2000) / 1000 + 0.5, 0, 1) * 65535
    found = pixels(tmp_path, WindowCenter=2000, WindowWidth=1000, VOILUTFunction="LINEAR_EXACT")
    assert abs(found - exact).max() <= 0.5
    sigmoid = 65535 / (1 + np.exp(-4 * (phantom().astype(float) - 2000) / 1000))
    found = pixels(tmp_path, WindowCenter=2000, WindowWidth=1000, VOILUTFunction="SIGMOID")
    assert abs(found - sigmoid).max() <= 0.5


def dark(values, case):
    """12-bit values written so that a header states 16 bits, or a window or table for 16."""
    sixteen = {"BitsStored": 16, "HighBit": 15, "WindowCenter": None, "WindowWidth": None}
    changes = {
        "native": sixteen,
        "window": {**sixteen, "WindowCenter": 32768, "WindowWidth": 65536},
        "table": {"VOILUTSequence": lut(0, list(range(4096)), 16)},
        "rescaled": {**sixteen, "RescaleSlope": 2, "RescaleIntercept": -50},
    }[case]
    return mammogram(stored=values, **changes)


@pytest.mark.parametrize("case", ["native", "window", "table", "rescaled"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_range_that_the_pixels_hardly_use_is_scaled(tmp_path, case, photometric):
    values = phantom() if photometric == "MONOCHROME2" else 4095 - phantom()
    ds = dark(values, case)
    ds.PhotometricInterpretation = photometric
    image, warnings = read_with_warnings(save(ds, tmp_path / "a"))
    assert abs(image.pixels - phantom() / 4095 * 65535).max() <= (20 if case == "window" else 1)
    assert "range-in-use" in [warning.code for warning in warnings]


def test_markers_do_not_hide_a_dark_image(tmp_path):
    values = phantom().copy()
    values[2:6, 60:66] = 65535
    image, _ = read_with_warnings(save(dark(values, "native"), tmp_path / "a"))
    expected = np.minimum(values, 4095) / 4095 * 65535
    assert abs(image.pixels - expected).max() <= 1


def test_signed_values_of_fewer_bits_than_stated(tmp_path):
    ds = dark((phantom().astype(np.int16) - 2048), "native")
    ds.PixelRepresentation = 1
    image, _ = read_with_warnings(save(ds, tmp_path / "a"))
    assert abs(image.pixels - phantom() / 4095 * 65535).max() <= 20


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_a_codestream_with_fewer_bits_than_the_header_gives_the_range(tmp_path, bits):
    from openjpeg.utils import encode_array

    values = phantom() >> (12 - bits)
    values = values.astype(np.uint8) if bits == 8 else values
    ds = mammogram(stored=phantom(), BitsStored=16, HighBit=15, WindowCenter=None, WindowWidth=None)
    ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
    ds.PixelData = encapsulate([bytes(encode_array(values, bits_stored=bits, photometric_interpretation=2))])
    ds["PixelData"].VR = "OB"
    image, warnings = read_with_warnings(save(ds, tmp_path / "a"))
    assert abs(image.pixels - values / ((1 << bits) - 1) * 65535).max() <= 0.5
    assert "range-in-use" not in [warning.code for warning in warnings]


def test_the_first_of_several_windows_counts(tmp_path):
    several = pixels(tmp_path, WindowCenter=[2048, 1000], WindowWidth=[4096, 100])
    assert np.array_equal(several, LINEAR[phantom()])


def test_rescale_comes_before_the_window(tmp_path):
    found = pixels(tmp_path, RescaleSlope=2, RescaleIntercept=-100, WindowCenter=3996, WindowWidth=8191)
    expected = np.clip((phantom() * 2.0 - 100 - 3995.5) / 8190 + 0.5, 0, 1) * 65535
    assert abs(found - expected).max() <= 0.5


def test_look_up_tables(tmp_path):
    table = [min(4095, 3 * value) for value in range(2000)]
    found = pixels(tmp_path, VOILUTSequence=lut(500, table, 12))
    places = np.clip(phantom().astype(int) - 500, 0, 1999)
    assert abs(found - np.array(table)[places] / 4095 * 65535).max() <= 0.5
    modality = [4095 - value for value in range(4096)]
    found = pixels(tmp_path, ModalityLUTSequence=lut(0, modality, 12))
    assert np.array_equal(found, LINEAR[4095 - phantom()])


def test_without_window_the_stored_range_is_the_grey_range(tmp_path):
    found = pixels(tmp_path, WindowCenter=None, WindowWidth=None)
    assert abs(found - phantom() / 4095 * 65535).max() <= 0.5


def test_padding_is_background_and_a_range_of_it(tmp_path):
    values = phantom().copy()
    values[:10] = 4000
    values[10:20] = 4090
    found = pixels(tmp_path, stored=values, PixelPaddingValue=4000, PixelPaddingRangeLimit=4095)
    assert (found[:20] == 0).all()
    assert np.array_equal(found[20:], np.where(values[20:] >= 4000, 0, LINEAR[values[20:]]))
    found = pixels(tmp_path, stored=4095 - values, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=95)
    assert (found[:10] == 0).all()
    assert (found[10:20] > 60000).all()


@pytest.mark.parametrize("encoder", [None, *DCMTK])
@pytest.mark.parametrize("cell", [4095, 65535])
def test_padding_whose_number_needs_more_bits_is_background(tmp_path, encoder, cell):
    values = phantom().copy()
    values[:10] = cell
    path = packed(tmp_path, encoder, mammogram(stored=values, PixelPaddingValue=65535))
    found = read_image(path).pixels
    assert (found[:10] == 0).all()
    assert np.array_equal(found[10:], LINEAR[phantom()[10:]])


def test_signed_padding_whose_number_needs_more_bits(tmp_path):
    values = phantom().astype(np.int16) - 2048
    values[:10] = -32768
    window = {"WindowCenter": 0, "PixelRepresentation": 1}
    ds = mammogram(stored=values, **window)
    ds.add_new(0x00280120, "SS", -32768)
    found = read_image(save(ds, tmp_path / "a")).pixels
    assert (found[:10] == 0).all()
    assert np.array_equal(found[10:], LINEAR[phantom()[10:]])  # 0, its lower bits, is tissue


def test_a_function_repeated_for_each_window_is_one_function(tmp_path):
    windows = {"WindowCenter": [2000, 1000], "WindowWidth": [1000, 500]}
    for function in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        single = pixels(tmp_path, **windows, VOILUTFunction=function)
        assert np.array_equal(pixels(tmp_path, **windows, VOILUTFunction=[function, function]), single)
    with pytest.raises(DicomError, match="or several"):
        pixels(tmp_path, **windows, VOILUTFunction=["LINEAR", "SIGMOID"])


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_monochrome_twins_are_equal(tmp_path, function):
    """The same breast, once bright and once dark where dense: inverted after the VOI, equal to the last bit."""
    centre, width = 1900, 1537
    mirrored = 4095 - centre + (1 if function == "LINEAR" else 0)
    two = pixels(tmp_path, WindowCenter=centre, WindowWidth=width, VOILUTFunction=function)
    for shape in (None, "INVERSE", "IDENTITY"):
        one = pixels(
            tmp_path,
            stored=4095 - phantom(),
            PhotometricInterpretation="MONOCHROME1",
            PresentationLUTShape=shape,
            WindowCenter=mirrored,
            WindowWidth=width,
            VOILUTFunction=function,
        )
        assert np.array_equal(one, two)


def test_presentation_lut_shape_inverts_once(tmp_path):
    found = pixels(tmp_path, stored=4095 - phantom(), PresentationLUTShape="INVERSE")
    assert np.array_equal(found, pixels(tmp_path))


@pytest.mark.parametrize(
    "changes",
    [
        {"WindowWidth": 0},
        {"WindowCenter": [2048, 1000]},
        {"WindowWidth": [4096, 100, 50]},
        {"WindowWidth": -5},
        {"VOILUTFunction": "CUBIC"},
        {"RescaleSlope": 0},
        {"VOILUTSequence": lut(0, [1, 2], 99)},
    ],
)
def test_grey_scales_without_sense_are_refused(tmp_path, changes):
    with pytest.raises(DicomError) as caught:
        pixels(tmp_path, **changes)
    assert caught.value.code == "grey-scale"


def with_text(path, keyword, text, **changes):
    """A file with an element whose text no writer lets pass."""
    marker = {"WindowCenter": "20.48", "WindowWidth": "40.96", "RescaleSlope": "1.234", "RescaleIntercept": "5.678"}
    ds = mammogram(**{keyword: marker[keyword], **changes})
    content = save(ds, path).read_bytes()
    value = (
        ds[keyword].original_string.encode() if hasattr(ds[keyword], "original_string") else marker[keyword].encode()
    )
    assert content.count(value) == 1
    path.write_bytes(content.replace(value, text.encode().ljust(len(value))))
    return path


@pytest.mark.parametrize(
    ("keyword", "text"),
    [
        ("WindowWidth", "9OO"),
        ("WindowCenter", "26,8"),
        ("WindowCenter", "nan"),
        ("RescaleSlope", "abc"),
        ("RescaleIntercept", "abc"),
    ],
)
def test_numbers_of_the_grey_scale_that_are_none_are_refused(tmp_path, keyword, text):
    with pytest.raises(DicomError, match="that is no number; export it again") as caught:
        read_image(with_text(tmp_path / "a", keyword, text))
    assert caught.value.code == "grey-scale"


@pytest.mark.parametrize("missing", ["WindowCenter", "WindowWidth"])
@pytest.mark.parametrize("empty", [None, ""])
def test_half_a_window_is_refused(tmp_path, missing, empty):
    with pytest.raises(DicomError, match=r"has a Window \w+ without a Window") as caught:
        pixels(tmp_path, **{missing: empty})
    assert caught.value.code == "grey-scale"


def test_a_damaged_look_up_table_is_not_passed_over(tmp_path):
    path = save(mammogram(), tmp_path / "a")
    content = path.read_bytes()
    place = content.index(b"\x54\x00\x20\x02SQ")  # the next element in order
    broken = b"\x28\x00\x10\x30SQ\0\0\x04\0\0\0\x01\x02\x03\x04"
    path.write_bytes(content[:place] + broken + content[place:])
    with pytest.raises(DicomError, match="VOI LUT Sequence that cannot be read") as caught:
        read_image(path)
    assert caught.value.code == "grey-scale"


@pytest.mark.parametrize("where", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
def test_the_window_of_a_synthetic_image_in_functional_groups(tmp_path, where):
    def item(**values):
        made = Dataset()
        for keyword, value in values.items():
            setattr(made, keyword, value)
        return Sequence([made])

    window = item(WindowCenter=3996, WindowWidth=8191, VOILUTFunction="LINEAR")
    rescale = item(RescaleSlope=2, RescaleIntercept=-100, RescaleType="US")
    other = item(WindowCenter=1, WindowWidth=2)
    groups = {where: item(FrameVOILUTSequence=window, PixelValueTransformationSequence=rescale)}
    if where.startswith("Per"):
        groups["SharedFunctionalGroupsSequence"] = item(FrameVOILUTSequence=other)
    ds = mammogram(
        SOPClassUID=TOMO,
        ImageType=["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"],
        NumberOfFrames=1,
        WindowCenter=None,
        WindowWidth=None,
        **groups,
    )
    found = read_image(save(ds, tmp_path / "a"), synthetic=True).pixels
    plain = {"RescaleSlope": 2, "RescaleIntercept": -100, "WindowCenter": 3996, "WindowWidth": 8191}
    assert np.array_equal(found, pixels(tmp_path, **plain))
    header = read_header(save(ds, tmp_path / "a"))
    before = str(header.dataset)
    rendered(header, read_stored_values(header))
    assert str(header.dataset) == before


def test_spacing(tmp_path):
    def spacing(**changes):
        return read_image(save(mammogram(**changes), tmp_path / "a")).spacing_mm

    assert spacing(ImagerPixelSpacing=[0.9, 0.9], EstimatedRadiographicMagnificationFactor=1.125) == pytest.approx(0.8)
    assert spacing(ImagerPixelSpacing=None, PixelSpacing=[0.07, 0.07]) == 0.07
    assert spacing(ImagerPixelSpacing=None) is None
    assert spacing(ImagerPixelSpacing=[0.9, 0.7]) is None


def test_pixels_lie_as_stored(tmp_path):
    for projection in Projection:
        mammo = read_image(save(mammogram(projection), tmp_path / "a"))
        assert mammo.projection == projection
        assert np.array_equal(mammo.pixels, LINEAR[phantom(projection)])
