"""Appearances of phantom breasts that networks are trained on, and their labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mammodensity.phantom.appearance import Look, render, with_masses
from mammodensity.phantom.disturbances import Disturbance, disturb
from mammodensity.phantom.exams import PhantomSpec, trace_breast
from mammodensity.phantom.projection import LABELS

PLAIN = Look(amount=False, muscle=False, implants=False, paddle=False, beam=False, vendors=False)
READERS = replace(PLAIN, readers=True)
DENSE = LABELS["fibroglandular"]


@pytest.fixture(scope="module")
def oblique():
    """An MLO view of a breast, and where it is neither muscle nor near the skin."""
    paths = trace_breast(PhantomSpec(rows=192, seed=3, ducts=True), 0, "L")["MLO"]
    return paths, paths.breast & (paths.distance > 10)


def of_shares(oblique, core, around):
    """The breast with gland in a round core and around it, with these shares of the path."""
    paths, inside = oblique
    rows, columns = np.indices(inside.shape)
    row, column = (int(np.median(axis)) for axis in np.nonzero(inside))
    near = np.hypot(rows - row, columns - column)
    glandular = np.where(near < 10, core, np.where(near < 34, around, 0.0)).astype(np.float32)
    zero = np.zeros_like(glandular)
    return replace(paths, glandular=glandular, ducts=zero, fibrous=zero), near


def outlined(paths, where, seed):
    """Share of a place that a reader labels dense."""
    _, labels = render(paths, np.random.default_rng(seed), film=False, look=READERS)
    return (labels[where] == DENSE).mean()


def test_readers_leave_faint_tissue_out_only_beside_a_bright_core(oblique):
    for core, around, expected in ((0.6, 0.12, 0.0), (0.2, 0.2, 1.0)):
        paths, near = of_shares(oblique, core, around)
        ring = (near > 22) & (near < 26) & oblique[1]
        for seed in range(6):
            assert outlined(paths, near < 5, seed) == 1
            assert outlined(paths, ring, seed) == pytest.approx(expected, abs=0.05)


def test_readers_differ_in_how_faint_tissue_they_outline(oblique):
    paths, near = of_shares(oblique, 0.11, 0.11)
    shares = [outlined(paths, (near < 20) & oblique[1], seed) for seed in range(12)]
    assert min(shares) < 0.05
    assert max(shares) > 0.95


def test_readers_see_nothing_dense_in_fat(oblique):
    paths, _ = of_shares(oblique, 0.05, 0.04)
    for seed in range(6):
        assert outlined(paths, paths.labels > 0, seed) == 0


def test_gland_of_an_involuted_breast_is_thin(oblique, monkeypatch):
    paths, _ = oblique
    monkeypatch.setattr("mammodensity.phantom.appearance._INVOLUTED", 1.0)
    dense = {}
    for involution in (False, True):
        look = replace(PLAIN, amount=True, involution=involution)
        labels = [render(paths, np.random.default_rng(seed), film=False, look=look)[1] for seed in range(12)]
        dense[involution] = np.mean(np.array(labels) == DENSE)
    assert 0 < dense[True] < 0.6 * dense[False]


def test_masses_are_small_and_large_and_lie_within_the_breast(oblique):
    paths, _ = oblique
    fat = replace(paths, glandular=np.zeros_like(paths.glandular), ducts=np.zeros_like(paths.ducts))
    most = []
    for seed in range(8):
        changed = with_masses(fat, np.random.default_rng(seed))
        most.append(changed.glandular.max())
        assert not changed.glandular[paths.tissue == 0].any()
        assert np.array_equal(changed.labels, paths.labels)  # a rule labels dense tissue later
    assert 0 < min(most) < 0.2  # small ones
    assert 0.4 < max(most) <= 1


def test_a_mass_leaves_other_tissue_dense(oblique, monkeypatch):
    """The limit follows the gland: readers recognise a mass even if it is the brightest part."""
    paths, near = of_shares(oblique, 0.3, 0.16)
    monkeypatch.setattr("mammodensity.phantom.appearance._MASSES", 1.0)
    for seed in range(8):
        _, labels = render(paths, np.random.default_rng(seed), film=False, look=replace(READERS, masses=True))
        assert (labels[near < 12] == DENSE).mean() > 0.95


def test_folds_below_the_breast_change_the_image_but_no_label(oblique, monkeypatch):
    paths, _ = oblique
    changes = Disturbance(look=PLAIN, film=0, geometry=False, tone=False, objects=False, lower_folds=True)
    images = {}
    for share in (0.0, 1.0):
        monkeypatch.setattr("mammodensity.phantom.disturbances._LOWER_FOLDS", share)
        monkeypatch.setattr("mammodensity.phantom.disturbances._folded_or_filled", lambda image, labels, rng: image)
        images[share] = disturb(paths, (128, 96), np.random.default_rng(5), replace(changes, muscle=True))
    monkeypatch.undo()
    (without, labels), (folded, same) = images[0.0], images[1.0]
    assert np.array_equal(labels, same)
    changed = np.abs(folded - without) > 0.02
    assert changed.any()
    assert not changed[:40].any()  # the axilla
    assert not changed[:, 60:].any()
    assert not changed[labels == 0].any()
