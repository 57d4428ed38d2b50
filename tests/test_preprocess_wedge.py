"""The view in the pixels against the view in the label."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from dicom_samples import mammogram, save
from mammodensity import segment
from mammodensity.anatomy.outline import find_outline
from mammodensity.anatomy.read_view import ReadView
from mammodensity.anatomy.wedge import is_dome, view_flags, wedge_sureness
from mammodensity.data.csv_rows import read_csv
from mammodensity.data.picture_files import projection_in_name, read_picture
from mammodensity.errors import ImageError
from mammodensity.exam import Exam, Mammogram
from mammodensity.models.trained import load_model
from mammodensity.phantom.exams import PhantomSpec, make_exam
from mammodensity.results.result import exam_result
from mammodensity.results.rules import Rules
from mammodensity.terms import Projection
from mammodensity.workflows.check import check_path

ROWS, COLUMNS = 192, 128
Y, X = np.mgrid[:ROWS, :COLUMNS]
BREAST = (X / 100) ** 2 + ((Y - 96) / 90) ** 2 < 1
HALF_BLIND = 0.5  # sureness of what is flagged and not refused


def sureness(muscle: np.ndarray, score: float = 0.99) -> float:
    return wedge_sureness(muscle, np.where(muscle, score, 0.01), BREAST | muscle)


def oblique(width: float, length: float) -> np.ndarray:
    """A straight wedge in the upper corner."""
    return width * (1 - Y / length) > X


def test_a_wedge_is_told_from_bands_masses_and_slivers():
    assert sureness(oblique(50, 120)) == sureness(oblique(40, 150)) == 1
    band = BREAST & (X < 14)
    half_moon = BREAST & ((X / 25) ** 2 + ((Y - 96) / 60) ** 2 < 1)
    mass = BREAST & ((X - 15) ** 2 + (Y - 50) ** 2 < 22**2)
    for muscle in (band, half_moon, mass, np.zeros_like(BREAST), BREAST & (X < 2) & (Y < 12)):
        assert sureness(muscle) == 0
    assert sureness(oblique(12, 150)) == 0, "too thin"
    assert sureness(oblique(60, 30)) == 0, "too short"


def test_sureness_falls_with_the_scores():
    found = [sureness(oblique(50, 120), score) for score in (0.97, 0.93, 0.88)]
    assert found[0] == 1
    assert found[1] == pytest.approx(HALF_BLIND)
    assert found[2] == 0


@pytest.mark.parametrize("shape", ["dome", "neck", "wide top"])
def test_the_skin_line_of_a_cc_is_a_dome(shape):
    dome = 1 - ((Y - 96) / 90) ** 2 > X / 100
    breast = {"dome": dome, "neck": dome | ((X < 30) & (Y < 60)), "wide top": dome | ((X < 60) & (Y < 96))}[shape]
    grey = np.where(breast, 0.5, 0.05) + 0.01 * np.sin(X)
    assert is_dome(grey, breast) == (shape == "dome")
    assert is_dome(grey, dome) == (shape == "dome"), "the network may cut off what leads to the armpit"
    codes = {flag.code for flag in view_flags(Projection.MLO_L, 0.0, is_dome(grey, breast))}
    assert codes == ({"doubtful-view"} if shape == "dome" else set())
    assert view_flags(Projection.MLO_L, 0.1, True) == view_flags(Projection.CC_L, 0.0, True) == ()


@pytest.fixture(scope="module")
def views():
    return make_exam(PhantomSpec(rows=256, seed=4), 1).views


def relabelled(view: Projection) -> Projection:
    return Projection(f"{'MLO' if view.view_position == 'CC' else 'CC'}_{view.laterality}")


def test_an_oblique_view_called_cc_is_refused(views):
    for view, phantom in views.items():
        assert find_outline(Mammogram(phantom.image, view)).wedge == (view.view_position == "MLO")
        if view.view_position == "MLO":
            with pytest.raises(ImageError, match=r"MLO\) is in plain view") as caught:
                find_outline(Mammogram(phantom.image, relabelled(view)))
            assert caught.value.code == "contradictory-view"


def test_phantoms_of_both_views_pass_at_all_sizes():
    for rows in (96, 160):
        for view, phantom in make_exam(PhantomSpec(rows=rows, seed=6), 0).views.items():
            assert all(flag.code != "doubtful-view" for flag in ReadView(Mammogram(phantom.image), view).flags)


@pytest.mark.parametrize("kind", ["default", "trained"])
def test_every_model_refuses_or_flags_another_view(views, request, kind, monkeypatch):
    model = load_model() if kind == "default" else load_model(request.getfixturevalue("tiny_model"))
    images = {view: phantom.image for view, phantom in views.items()}
    exam = {view: Mammogram(image, view) for view, image in images.items()}
    assert all(
        flag.code != "doubtful-view" for flags in model.score(Exam("e", exam)).view_flags.values() for flag in flags
    )
    wrong = {**exam, Projection.CC_L: replace(exam[Projection.MLO_L], projection=Projection.CC_L)}
    assert set(model.score(Exam("e", wrong)).refused) == {Projection.CC_L}
    monkeypatch.setattr("mammodensity.anatomy.outline.wedge_sureness", lambda *_: HALF_BLIND)
    scores = model.score(Exam("e", wrong), allow_missing=True)
    doubted = {view for view, flags in scores.view_flags.items() if "doubtful-view" in {flag.code for flag in flags}}
    assert doubted == {Projection.CC_L}
    result = exam_result(scores)
    assert "doubtful-view" in {flag.code for flag in result.flags}
    assert "doubtful-view" not in {flag.code for flag in result.abstained_for}
    strict = exam_result(scores, rules=Rules(abstain_on=("doubtful-view",)))
    assert {flag.code for flag in strict.abstained_for} == {"doubtful-view"}


def test_a_cc_called_mlo_is_flagged(views, tmp_path):
    for view, phantom in views.items():
        flags = ReadView(Mammogram(phantom.image), relabelled(view)).flags if view.view_position == "CC" else ()
        assert ("doubtful-view" in {flag.code for flag in flags}) == (view.view_position == "CC")
    Image.fromarray(views[Projection.CC_L].image).save(tmp_path / "L_MLO.png")
    [finding] = [finding for finding in check_path(tmp_path).findings() if finding.code == "doubtful-view"]
    assert finding.kind == "note"
    assert "outline of a CC" in finding.texts[0]


def test_check_and_segment_say_it(views, tmp_path, monkeypatch):
    stored = (views[Projection.MLO_L].image.astype(np.uint16) << 4).astype(np.uint16)
    path = save(mammogram(Projection.CC_L, stored), tmp_path / "dicom" / "image")
    [verdict] = check_path(path).files
    assert [reason.code for reason in verdict.reasons] == ["contradictory-view"]
    picture = tmp_path / "L_CC.png"
    Image.fromarray(views[Projection.MLO_L].image).save(picture)
    with pytest.raises(ImageError, match="plain view"):
        ReadView(read_picture(picture), Projection.CC_L).flags  # noqa: B018
    assert "plain view" in segment(picture, tmp_path / "refused").refused[0]
    monkeypatch.setattr("mammodensity.anatomy.outline.wedge_sureness", lambda *_: HALF_BLIND)
    assert "sureness 0.50" in segment(picture, tmp_path / "flagged").doubts[0]


def test_real_views(shared_data):
    """No CC has a wedge; nearly all MLO views have one, and most surely. Most CC views are domes, and no MLO is."""
    files = [*(shared_data / "origin").rglob("*.png"), *(shared_data / "exams").rglob("*_*.jpg")]
    files += [*(shared_data / "exams").rglob("*.png"), *sorted((shared_data / "ddsm_tissue" / "images").glob("*"))[::4]]
    labelled = {file: projection_in_name(file.stem) for file in files}
    for row in read_csv(shared_data / "cesm" / "labels.csv"):
        labelled[shared_data / "cesm" / "images" / row["file"]] = Projection(f"{row['view']}_{row['laterality']}")
    wedges: dict[str, list[float]] = {"CC": [], "MLO": []}
    domes: dict[str, list[bool]] = {"CC": [], "MLO": []}
    for file, view in labelled.items():
        assert view is not None
        outline = find_outline(read_picture(file, view))
        wedges[view.view_position].append(outline.wedge)
        domes[view.view_position].append(outline.dome)
    assert len(wedges["CC"]) >= 24
    assert max(wedges["CC"]) == 0
    assert not any(domes["MLO"])
    assert np.mean(domes["CC"]) > 0.75
    assert np.mean(np.array(wedges["MLO"]) > 0) > 0.85
    assert np.mean(np.array(wedges["MLO"]) == 1) > 0.5


def test_blurred_masses_in_the_corner_of_a_cc_are_not_refused(views):
    image = views[Projection.CC_L].image.astype(np.float64)
    rows, columns = np.flatnonzero((image > 20).any(1)), np.flatnonzero((image > 20).any(0))
    y, x = np.indices(image.shape)
    for radius in (0.08, 0.12):
        centre = rows[0] + 0.2 * len(rows), columns[0] + 0.15 * len(columns)
        spot = np.hypot(y - centre[0], x - centre[1]) < radius * len(rows)
        bright = np.maximum(image, gaussian_filter(spot * 250.0, 2))
        find_outline(Mammogram(np.clip(bright, 0, 255).astype(np.uint8), Projection.CC_L))
