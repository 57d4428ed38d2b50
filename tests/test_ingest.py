"""Files to exams: pictures, names, the origin's folders, exam folders, manifests."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

import mammodensity
from mammodensity.data.dataset import read_manifest, reference_categories, write_manifest
from mammodensity.data.find import find_images
from mammodensity.data.picture_files import projection_in_name, read_picture
from mammodensity.errors import ImageError, LayoutError
from mammodensity.terms import CATEGORIES, PROJECTIONS, Projection
from samples import broken_pictures, gradient, write_blobs


@pytest.mark.parametrize("name", ["a.png", "a.pgm", "a.tif", "a.tiff"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_lossless_pictures_keep_every_value(tmp_path, name, dtype):
    pixels = gradient(dtype, np.iinfo(dtype).max)
    Image.fromarray(pixels).save(tmp_path / name)
    mammogram = read_picture(tmp_path / name)
    assert mammogram.pixels.dtype == dtype
    assert np.array_equal(mammogram.pixels, pixels)


def test_jpeg_and_grey_saved_as_colour(tmp_path):
    Image.fromarray(gradient()).save(tmp_path / "a.jpg")
    assert abs(read_picture(tmp_path / "a.jpg").pixels.astype(int) - gradient()).max() < 8
    for mode in ("RGB", "RGBA", "P", "LA"):
        Image.fromarray(gradient()).convert(mode).save(tmp_path / "c.png")
        assert np.array_equal(read_picture(tmp_path / "c.png").pixels, gradient())


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_pictures_are_turned_as_their_orientation_says(tmp_path, name):
    """EXIF orientation, each value by hand: what is stored, and how a viewer shows it."""
    shown = np.kron(np.array([[20, 90, 160], [230, 60, 130]], np.uint8), np.ones((16, 16), np.uint8))
    stored = {
        1: shown, 2: shown[:, ::-1], 3: shown[::-1, ::-1], 4: shown[::-1], 5: shown.T,
        6: np.rot90(shown), 7: shown[::-1, ::-1].T, 8: np.rot90(shown, -1),
    }  # fmt: skip
    for orientation, pixels in stored.items():
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / name, exif=exif)
        read = read_picture(tmp_path / name).pixels
        assert read.shape == shown.shape, orientation
        assert np.abs(read.astype(int) - shown).max() < 12, orientation  # JPEG is lossy


def test_bad_pictures_are_refused_with_their_reason(tmp_path):
    for name, message in broken_pictures(tmp_path).items():
        with pytest.raises(ImageError, match=message) as caught:
            read_picture(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_sixteen_bit_tiffs_with_white_as_zero_are_turned(tmp_path):
    pixels = gradient(np.uint16, 60_000)
    Image.fromarray(65535 - pixels).save(tmp_path / "a.tif", tiffinfo={262: 0})
    assert np.array_equal(read_picture(tmp_path / "a.tif").pixels, pixels)


def test_sixteen_bit_grey_in_a_colour_png_is_refused(tmp_path):
    header = struct.pack(">IIBBBBB", 20, 24, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + np.repeat(row.astype(">u2"), 3).tobytes() for row in gradient(np.uint16, 3000))
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError, match="export it as plain 16-bit grey"):
        read_picture(tmp_path / "a.png")


def test_pictures_that_lie_too_deep_are_not_left_out(tmp_path):
    data = write_blobs(tmp_path / "data", 4)
    exams = tmp_path / "exams" / "e1" / "s1" / "s2"
    exams.mkdir(parents=True)
    inner = data / "CC_R" / "A" / "sub"
    inner.mkdir()
    next((data / "CC_R" / "A").glob("*.png")).rename(inner / "R-CC.png")
    (exams / "L-CC.png").write_bytes((inner / "R-CC.png").read_bytes())
    (tmp_path / "exams" / "e1" / "R-CC.png").write_bytes((inner / "R-CC.png").read_bytes())
    for folder in (data, tmp_path / "exams"):
        with pytest.raises(LayoutError, match="lies too deep"):
            find_images(folder)


def test_a_picture_of_absurd_size_is_refused_before_it_is_decoded(tmp_path):
    header = Image.new("1", (30_000, 30_000))
    header.save(tmp_path / "huge.png")
    with pytest.raises(ImageError, match="no mammogram is that large"):
        read_picture(tmp_path / "huge.png")


@pytest.mark.parametrize("spelling", ["{v}_{s}", "{s}_{v}", "{s}{v}", "{v}{s}", "{s}-{v}", "7_1_{v}_{s}", "x.{w}_{v}"])
def test_names_in_every_spelling(spelling):
    for projection in PROJECTIONS:
        side, view = projection.laterality, projection.view_position
        word = {"R": "RIGHT", "L": "LEFT"}[side]
        name = spelling.format(s=side, v=view, w=word)
        assert projection_in_name(name) == projection
        assert projection_in_name(name.lower()) == projection
    assert projection_in_name("MLR_accession") is None


def test_origin_layout_with_and_without_splits(tmp_path):
    plain = find_images(write_blobs(tmp_path / "plain", 4))
    split = find_images(write_blobs(tmp_path / "split", 4, split_level=True))
    assert len(plain.records) == len(split.records) == 16
    assert {record.split for record in plain.records} == {None}
    assert {record.split for record in split.records} == {"train"}
    exams = plain.exams()
    assert list(exams) == ["100_1", "101_1", "102_1", "103_1"]
    assert all(tuple(sorted(views)) == tuple(sorted(PROJECTIONS)) for views in exams.values())
    assert plain.records[0].patient_id == "100"
    assert [c.value for c in reference_categories(plain).values()] == ["A", "B", "C", "D"]


def test_exam_folders(tmp_path):
    for exam in ("one", "two"):
        (tmp_path / exam).mkdir()
        for name in ("L-CC", "R-CC", "L-MLO", "R-MLO"):
            Image.fromarray(gradient()).save(tmp_path / exam / f"{name}.png")
    assert list(find_images(tmp_path).exams()) == ["one", "two"]
    exam = mammodensity.read_exam(tmp_path / "one")
    assert exam.exam_id == "one"
    assert exam.missing == ()
    (tmp_path / "one" / "R-MLO.png").unlink()
    assert mammodensity.read_exam(tmp_path / "one").missing == (Projection.MLO_R,)
    assert mammodensity.read_exam(tmp_path / "one" / "L-CC.png").mammograms.keys() == {Projection.CC_L}
    with pytest.raises(LayoutError, match="holds 2 exams"):
        mammodensity.read_exam(tmp_path)


def test_folders_that_are_no_data_set(tmp_path):
    blobs = write_blobs(tmp_path / "blobs", 4)
    cases = {
        "absent": "not found",
        "empty": "holds no PNG",
        "unknown_projection": "unknown projection folder",
        "unknown_class": "unknown class folder",
        "unknown_inner_class": "unknown class folder",
        "unnamed": "does not tell the projection",
        "contradiction": "lies in the folder of CC_L",
        "doubled": "two CC_R images",
    }
    (tmp_path / "empty").mkdir()
    for name in cases.keys() - {"absent", "empty"}:
        write_blobs(tmp_path / name, 4)
    (tmp_path / "unknown_projection" / "XCC_R").mkdir()
    (tmp_path / "unknown_class" / "CC_R" / "E").mkdir()
    (tmp_path / "unknown_inner_class" / "CC_R" / "train" / "5").mkdir(parents=True)
    image = next((blobs / "CC_R" / "A").iterdir())
    for folder in list((tmp_path / "unnamed").iterdir()):
        folder.rename(folder.with_name(f"x{folder.name}"))
    (tmp_path / "unnamed" / "scan.png").write_bytes(image.read_bytes())
    (tmp_path / "contradiction" / "CC_L" / "A" / "9_1_A_CC_R.png").write_bytes(image.read_bytes())
    (tmp_path / "doubled" / "CC_R" / "A" / "100_1_A_CC_R.pgm").write_bytes(image.read_bytes())
    for name, message in cases.items():
        with pytest.raises(LayoutError, match=message):
            find_images(tmp_path / name).exams()


@pytest.mark.parametrize("name", ["CC_R/network.safetensors", "joint/network.safetensors", "calibration.json"])
def test_a_model_folder_is_no_data_set(tmp_path, blobs, name):
    model = tmp_path / "model"
    write_manifest(model / "manifest.csv", find_images(blobs).records)
    assert len(find_images(model).records) == 96
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).touch()
    with pytest.raises(LayoutError, match=r"is a model folder, .* give `.*model/manifest.csv --split test`"):
        find_images(model)
    assert len(find_images(model / "manifest.csv").records) == 96
    (model / "manifest.csv").unlink()
    with pytest.raises(LayoutError, match=r"is a model folder, .* the model as `--model .*model`"):
        find_images(model)


def test_manifest_round_trip(tmp_path, blobs):
    data = find_images(blobs)
    write_manifest(tmp_path / "m" / "manifest.csv", data.records)
    again = read_manifest(tmp_path / "m" / "manifest.csv")
    assert again.records == data.records
    assert find_images(tmp_path / "m").records == data.records


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("exam_id,", "exam,"), "line 1: missing column exam_id"),
        (("CC_R,", "CC_X,"), "line 2: unknown projection 'CC_X'"),
        ((",A,", ",E,"), "line 2: unknown density 'E'"),
        ((",A,", ",A,holdout"), "line 2: unknown split 'holdout'"),
        (("a.png", "b.png"), "line 2: image .*b.png not found"),
        (("7,7,CC_R", ",7,CC_R"), "line 2: found a blank exam_id"),
    ],
)
def test_bad_manifests(tmp_path, change, message):
    Image.fromarray(gradient()).save(tmp_path / "a.png")
    text = "exam_id,patient_id,projection,path,density,split\n7,7,CC_R,a.png,A,\n"
    (tmp_path / "manifest.csv").write_text(text)
    assert read_manifest(tmp_path / "manifest.csv").records[0].category == CATEGORIES[0]
    (tmp_path / "manifest.csv").write_text(text.replace(*change, 1))
    with pytest.raises(LayoutError, match=message):
        find_images(tmp_path)


def test_unreadable_and_empty_manifests(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00binary")
    (tmp_path / "b.csv").write_text("exam_id,projection,path\n")
    for name, message in (("a.csv", "not UTF-8"), ("b.csv", "no rows"), ("c.csv", "No such file")):
        with pytest.raises(LayoutError, match=message):
            read_manifest(tmp_path / name)


def test_real_layouts(shared_data):
    origin = find_images(shared_data / "origin" / "test_images")
    assert len(origin.records) == 16
    assert {record.split for record in origin.records} == {"test"}
    assert set(origin.exams()["145_1"]) == {Projection.CC_L, Projection.CC_R, Projection.MLO_R}
    assert mammodensity.read_exam(shared_data / "exams" / "nyu").missing == ()
    assert mammodensity.read_exam(shared_data / "exams" / "ddsm_A_0018_1").missing == ()


def test_images_of_two_folders_never_become_one_exam(tmp_path):
    names = ("IM0001_R-CC", "IM0002_L-CC", "IM0003_R-MLO", "IM0004_L-MLO")
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for name in names:
            Image.fromarray(gradient()).save(tmp_path / folder / f"{name}.png")
    exams = find_images(tmp_path).exams()
    assert len(exams) == 8
    for views in exams.values():
        assert len({record.path.parent for record in views.values()}) == 1
    assert list(find_images(tmp_path / "one").exams()) == ["IM0001", "IM0002", "IM0003", "IM0004"]
