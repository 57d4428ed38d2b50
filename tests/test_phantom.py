"""Synthetic exams: the truth they carry, their independence, and how they are written."""

from __future__ import annotations

import csv
import json
import multiprocessing
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation

from mammodensity.errors import OptionError, OutputError
from mammodensity.phantom import exams as exams_module
from mammodensity.phantom.breast import CATEGORY_FRACTION, draw_anatomy, draw_category, draw_fraction, stream
from mammodensity.phantom.compression import ball_to_disc, disc_to_ball, disc_to_image, image_to_disc
from mammodensity.phantom.exams import PhantomExam, PhantomSpec, make_exam, write_phantoms
from mammodensity.phantom.gland import Tissue, noise_cube
from mammodensity.phantom.projection import cast_rays, expose, present, project, solve_volume
from mammodensity.terms import CATEGORIES, PROJECTIONS, Projection

SPEC = PhantomSpec(rows=64, seed=11)


@cache
def exam(spec: PhantomSpec, index: int) -> PhantomExam:
    return make_exam(spec, index)


def cohort(count: int = 24) -> list[PhantomExam]:
    return [exam(SPEC, index) for index in range(count)]


def same(a: PhantomExam, b: PhantomExam) -> bool:
    return a.category is b.category and all(
        np.array_equal(a.views[p].image, b.views[p].image) and np.array_equal(a.views[p].labels, b.views[p].labels)
        for p in PROJECTIONS
    )


# Determinism


def test_an_exam_depends_on_seed_index_size_and_mix_alone():
    assert same(make_exam(SPEC, 3), exam(SPEC, 3))
    assert not same(make_exam(replace(SPEC, seed=12), 3), exam(SPEC, 3))
    assert not same(exam(SPEC, 2), exam(SPEC, 3))
    spec = PhantomSpec(rows=70)
    assert make_exam(spec, 0).views[Projection.MLO_L].image.shape == (70, 56) == (spec.rows, spec.cols)
    categories = [[draw_category(3, k, mix) for k in range(8)] for mix in ("balanced", "population")]
    assert categories[0] != categories[1]


def test_phantoms_stay_as_they_are():
    """The default networks learned from these images; a change of them would ask for new networks."""
    views = exam(SPEC, 3).views
    assert exam(SPEC, 3).category == "C"
    assert [view.percent_density for view in views.values()] == pytest.approx(
        [63.778, 58.862, 62.979, 64.775], rel=1e-3
    )
    assert [view.image.mean() for view in views.values()] == pytest.approx([50.231, 52.204, 62.426, 67.239], rel=1e-3)


# Shapes, orientation, labels


@pytest.mark.parametrize("index", range(8))
def test_images_and_labels_agree(index):
    for projection, view in exam(SPEC, index).views.items():
        assert view.image.shape == view.labels.shape == (SPEC.rows, SPEC.cols)
        assert view.image.dtype == view.labels.dtype == np.uint8
        assert view.spacing_mm == pytest.approx(240 / SPEC.rows)
        assert view.image[~binary_dilation(view.labels > 0)].max() == 0, projection
        assert np.median(view.image[view.breast]) > 30, projection
        assert 0.08 < view.breast.mean() < 0.95
        assert not (view.dense & view.pectoral).any()
        assert (view.dense <= view.breast).all()
        assert view.percent_density == pytest.approx(100 * view.dense.sum() / view.breast.sum())


@pytest.mark.parametrize("index", range(8))
def test_the_chest_wall_is_lateral_and_the_muscle_lies_at_its_top_in_mlo_only(index):
    for projection, view in exam(SPEC, index).views.items():
        labels, pectoral = (
            image[:, ::-1] if projection.laterality == "R" else image for image in (view.labels, view.pectoral)
        )
        assert (labels[:, 0] > 0).mean() > 0.4
        assert (labels[:, -1] > 0).mean() < 0.1
        assert pectoral.any() == pectoral[0].any() == (projection.view_position == "MLO")
        if pectoral.any():
            rows, depth = np.nonzero(pectoral)
            assert pectoral[0].sum() > pectoral[SPEC.rows // 2].sum()
            assert rows.mean() < SPEC.rows / 2
            assert depth.mean() < SPEC.cols / 3


def test_outlines_differ_between_exams():
    areas = [e.views[Projection.CC_R].breast.mean() for e in cohort()]
    assert np.std(areas) > 0.03


# Density


def test_any_four_exams_of_a_block_hold_each_category():
    for seed in range(3):
        for block in range(5):
            assert {draw_category(seed, 4 * block + k, "balanced") for k in range(4)} == set(CATEGORIES)


def test_population_mix_is_mostly_b_and_c():
    drawn = [draw_category(5, k, "population").value for k in range(400)]
    shares = [drawn.count(c) / 400 for c in "ABCD"]
    assert shares == pytest.approx([0.1, 0.4, 0.4, 0.1], abs=0.07)


def test_bands_of_the_categories_touch_and_do_not_overlap():
    limits = [CATEGORY_FRACTION[c] for c in CATEGORIES]
    assert all(low < high for low, high in limits)
    assert all(a[1] == b[0] for a, b in pairwise(limits))
    for category, (low, high) in zip(CATEGORIES, limits, strict=True):
        drawn = [draw_fraction(stream(1, k), category) for k in range(200)]
        assert low < min(drawn) < max(drawn) < high


def test_measured_volumes_meet_their_target_and_category():
    for index, made in enumerate(cohort()):
        breasts = draw_anatomy(SPEC.seed, index, SPEC.mix).breasts
        for side, breast in breasts.items():
            assert made.volumetric_density[side] == pytest.approx(100 * breast.gland.fraction, rel=0.06, abs=0.3)
        low, high = CATEGORY_FRACTION[made.category]
        assert 100 * low <= np.mean(list(made.volumetric_density.values())) <= 100 * high


def test_projections_of_an_exam_agree_on_density():
    table = np.array([[e.views[p].percent_density for p in PROJECTIONS] for e in cohort()])
    assert np.corrcoef(table, rowvar=False).min() > 0.9
    volumes = np.array([[e.views[p].volumetric_density for p in PROJECTIONS] for e in cohort()])
    assert np.corrcoef(volumes, rowvar=False).min() > 0.95


def test_left_and_right_are_alike_but_not_equal():
    pairs = np.array([[e.volumetric_density["R"], e.volumetric_density["L"]] for e in cohort()])
    assert np.corrcoef(pairs, rowvar=False)[0, 1] > 0.95
    assert np.median(np.abs(pairs[:, 0] / pairs[:, 1] - 1)) > 0.01


def test_percent_density_rises_with_category():
    means = [
        np.mean([v.percent_density for e in cohort() if e.category is c for v in e.views.values()]) for c in CATEGORIES
    ]
    assert means == sorted(means)
    assert means[0] < 15
    assert means[3] > 60


def test_dense_pixels_are_brighter():
    for made in cohort(8):
        for view in made.views.values():
            if view.dense.sum() > 50 and (view.breast & ~view.dense).sum() > 50:
                assert view.image[view.dense].mean() > view.image[view.breast & ~view.dense].mean()


def test_mean_grey_does_not_decide_the_category():
    grey = {c: [] for c in CATEGORIES}
    for made in cohort():
        grey[made.category].append(np.mean([v.image[v.breast].mean() for v in made.views.values()]))
    assert max(grey["A"]) > min(grey["B"])
    assert max(grey["B"]) > min(grey["C"])


def test_a_larger_size_gives_the_same_breast():
    small, large = (make_exam(PhantomSpec(rows=rows, seed=2), 3) for rows in (128, 256))
    assert small.category is large.category
    for p in PROJECTIONS:
        assert small.views[p].percent_density == pytest.approx(large.views[p].percent_density, abs=4)
        assert small.views[p].breast.mean() == pytest.approx(large.views[p].breast.mean(), abs=0.01)


# Geometry and tissue


@pytest.mark.parametrize("position", ["CC", "MLO"])
def test_material_points_return_to_their_place_in_the_image(position):
    shape = draw_anatomy(4, 0, "balanced").breasts["R"].shapes[position]
    x, y = np.meshgrid(np.linspace(5, 60, 9), np.linspace(60, 180, 11))
    u, q = image_to_disc(shape, x, y)
    assert np.all(q * q < 1)
    _, v, w = disc_to_ball(shape, u, q, 0.3)
    assert ball_to_disc(shape, v, w) == pytest.approx(q, abs=1e-9)
    back_x, back_y = disc_to_image(shape, u, q)
    assert back_x == pytest.approx(x, abs=1e-6)
    assert back_y == pytest.approx(y, abs=1e-6)


def test_a_finer_noise_cube_only_adds_detail():
    def white(level):
        return stream(3, level).standard_normal((level,) * 3, dtype=np.float32)

    coarse, fine = (noise_cube(white, edge, lambda k: k**-1.7) for edge in (32, 64))
    spectra = [np.fft.rfftn(c) / c.size for c in (coarse, fine)]
    low = np.s_[:8, :8, :8]
    assert np.allclose(spectra[0][low], spectra[1][low], atol=1e-5)
    assert fine[::2, ::2, ::2].std() == pytest.approx(1, abs=0.15)


def test_texture_of_the_image_follows_a_power_law():
    """Exponent of the power spectrum in squares of 30 mm inside the breast; mammograms have about 3 (Burgess, 1999)."""
    spec = PhantomSpec(rows=384, seed=2)
    slopes = []
    for view in make_exam(spec, 0).views.values():
        for top in range(0, spec.rows - 48, 24):
            for left in range(0, spec.cols - 48, 24):
                window = np.s_[top : top + 48, left : left + 48]
                if view.breast[window].all():
                    slopes.append(spectrum_slope(view.image[window].astype(float), spec.spacing_mm))
    assert len(slopes) >= 50
    assert 2.6 < np.mean(slopes) < 3.7


def spectrum_slope(patch: np.ndarray, spacing_mm: float) -> float:
    taper = np.outer(np.hanning(len(patch)), np.hanning(len(patch)))
    power = np.abs(np.fft.fft2((patch - patch.mean()) * taper)) ** 2
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(len(patch), spacing_mm)] * 2))
    band = (frequency > 0.12) & (frequency < 0.7)
    return -np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)[0]


# Every drawn value that shapes an image must change it


@cache
def _parts():
    anatomy = draw_anatomy(7, 1, "balanced")
    return anatomy, anatomy.breasts["R"]


PROCESSING = {
    **{"photons_per_mm2": 50.0, "scatter": 0.9, "equalisation": 0.2, "sharpening": 1.5},
    **{"fat_level": 0.6, "gain": 0.2, "gamma": 2.0},
}
GLAND = {
    **{"fraction": 0.7, "centre": (0.2, -0.3, 0.3), "spread": (0.2, 0.2, 0.2), "patchiness": 6.0, "retroareolar": 6.0},
    **{"lacing": 5.0, "exponent": 1.0, "stretch": 1.5, "convergence": 2.0, "softness": 1.0, "subcutaneous": 0.6},
}


@pytest.mark.parametrize(("name", "value"), PROCESSING.items())
def test_each_part_of_the_processing_changes_the_image(name, value):
    anatomy, breast = _parts()
    tissue = Tissue(breast.gland, 7, 1, "R", 64)
    rays = cast_rays(breast.shapes["CC"], 64, 51)
    solve_volume(tissue, [rays])
    paths = project(rays, tissue, {}, (64, 51), 0)

    def image(processing):
        return present(expose(paths, processing, stream(1, "test")), paths, processing, 8)

    plain, changed = image(anatomy.processing), image(replace(anatomy.processing, **{name: value}))
    assert not np.array_equal(plain, changed)


@pytest.mark.parametrize(("name", "value"), GLAND.items())
def test_each_part_of_the_gland_changes_its_share(name, value):
    _, breast = _parts()
    rays = cast_rays(breast.shapes["MLO"], 48, 38)

    def share(gland):
        tissue = Tissue(gland, 7, 1, "R", 48)
        solve_volume(tissue, [rays])
        return project(rays, tissue, {}, (48, 38), 0).glandular

    assert np.abs(share(breast.gland) - share(replace(breast.gland, **{name: value}))).max() > 0.02


def test_sixteen_bits_hold_more_grey_levels():
    wide = make_exam(replace(SPEC, bits=16), 3)
    for p, view in wide.views.items():
        assert view.image.dtype == np.uint16
        assert len(np.unique(view.image)) > 300
        assert np.abs(view.image / 65535 - exam(SPEC, 3).views[p].image / 255).max() < 1 / 255


@pytest.mark.parametrize(
    "values", [{"rows": 31}, {"rows": 4097}, {"mix": "odd"}, {"bits": 12}, {"seed": -1}, {"rows": 64.0}], ids=str
)
def test_specs_out_of_range_are_refused(values):
    with pytest.raises(OptionError, match=f"^{next(iter(values))} must be .* Got {next(iter(values.values()))!r}"):
        PhantomSpec(**values)


def test_a_negative_exam_is_refused():
    with pytest.raises(OptionError, match="index must not be negative"):
        make_exam(SPEC, -1)


# On disk


def _content(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("bits", [8, 16])
def test_layout_and_manifest(tmp_path, bits):
    spec = PhantomSpec(rows=48, seed=11, bits=bits)
    calls = []
    manifest = write_phantoms(spec, 2, tmp_path / "set", progress=lambda done, total: calls.append((done, total)))
    assert manifest == tmp_path / "set" / "manifest.csv"
    assert calls == [(1, 2), (2, 2)]
    rows = list(csv.DictReader(manifest.read_text().splitlines()))
    assert list(rows[0]) == list(exams_module.MANIFEST_COLUMNS)
    assert len(rows) == 8
    for row in rows:
        number = int(row["patient_id"]) - 1
        view = exam(spec, number).views[Projection(row["projection"])]
        category = exam(spec, number).category.value
        assert (row["density"], row["split"], row["exam_id"]) == (category, "", f"{row['patient_id']}_1")
        name = f"{row['patient_id']}_1_{category}_{row['projection']}.png"
        assert row["path"] == f"{row['projection']}/{category}/{name}"
        assert row["mask"] == f"masks/{row['path']}"
        assert np.array_equal(np.asarray(Image.open(manifest.parent / row["path"])), view.image)
        assert np.array_equal(np.asarray(Image.open(manifest.parent / row["mask"])), view.labels)
        assert float(row["percent_density"]) == pytest.approx(view.percent_density, abs=0.006)
        assert float(row["volumetric_density"]) == pytest.approx(view.volumetric_density, abs=0.006)
        assert float(row["spacing_mm"]) == pytest.approx(view.spacing_mm, abs=1e-4)
    receipt = json.loads((manifest.parent / "receipt.json").read_text())
    assert (receipt["command"], receipt["exams"], receipt["spec"]["seed"]) == ("phantom", 2, 11)


def test_workers_and_exam_count_do_not_change_an_exam(tmp_path):
    spec = PhantomSpec(rows=32, seed=1)
    write_phantoms(spec, 2, tmp_path / "few")
    write_phantoms(spec, 5, tmp_path / "many", workers=2)
    few, many = _content(tmp_path / "few"), _content(tmp_path / "many")
    assert len([name for name in many if name.endswith(".png")]) == 40
    for name, content in few.items():
        if name.endswith(".png"):
            assert many[name] == content
    assert many["manifest.csv"].startswith(few["manifest.csv"])


@pytest.mark.parametrize("exams", [1, 6])
def test_ctrl_c_leaves_nothing(tmp_path, exams):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantoms(PhantomSpec(rows=32), exams, tmp_path / "set", workers=2, progress=interrupt)
    assert list(tmp_path.iterdir()) == []
    assert multiprocessing.active_children() == []


def test_a_failing_exam_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exams_module, "write_exam", fail)
    with pytest.raises(OutputError, match="No space left on device; nothing was left behind"):
        write_phantoms(PhantomSpec(rows=32), 1, tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="already holds files"):
        write_phantoms(PhantomSpec(rows=32), 1, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(("exams", "workers"), [(0, None), (1, 0)])
def test_counts_below_one_are_refused(tmp_path, exams, workers):
    with pytest.raises(OptionError, match=r"must be at least 1\. Got 0 instead"):
        write_phantoms(PhantomSpec(rows=32), exams, tmp_path / "set", workers=workers)
    assert list(tmp_path.iterdir()) == []
