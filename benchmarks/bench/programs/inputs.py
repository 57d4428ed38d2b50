"""Make what is measured on, once: phantoms as DICOM files and pictures, and networks of random weights.

Arguments: the folder, and the rows of the images. A folder that is there is whole and stays as it is.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import torch
from imagecodecs import ljpeg_encode
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLossless

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from archive_figures import compressed, stored_values, write_exam
from mammodensity.models.checkpoint import Checkpoint, save_checkpoint
from mammodensity.models.network import NetworkSpec, ResidualNetwork
from mammodensity.outputs import atomic_folder
from mammodensity.terms import PROJECTIONS
from mammodensity.training.recipes import Recipe, find_recipe

_DISTINCT = 2
_EXAMS = (1, 2, 4, 16, 32)


def main() -> None:
    """Make all of it, or nothing."""
    target, rows = Path(sys.argv[1]), int(sys.argv[2])
    if target.exists():
        return
    with atomic_folder(target) as folder:
        exams = folder / "exams"
        for ending in ("", "-cut"):
            for kind in ("plain", "jpeg", "j2k"):
                (exams / f"{kind}{ending}").mkdir(parents=True)
            for path in write_exam(exams / f"plain{ending}", rows, 1, air=not ending):
                _jpeg_lossless(path, exams / f"jpeg{ending}" / path.name)
                compressed(path, "j2k").replace(exams / f"j2k{ending}" / path.name)
        _write_pictures(folder, rows)
        for name in ("small", "origin"):
            _write_model(folder / "models" / name, find_recipe(name))


def _jpeg_lossless(path: Path, out: Path) -> None:
    """The same image in JPEG Lossless (process 14)."""
    ds = dcmread(path)
    values = np.frombuffer(ds.PixelData, np.uint16).reshape(ds.Rows, ds.Columns)
    ds.PixelData = encapsulate([ljpeg_encode(values, bitspersample=ds.BitsStored)])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = JPEGLossless
    ds.save_as(out, enforce_file_format=True)


def _write_pictures(folder: Path, rows: int) -> None:
    """Pictures of 16 bit, and folders of many exams that are links to them."""
    pictures = folder / "pictures"
    pictures.mkdir()
    for number in range(_DISTINCT):
        for projection, values in stored_values(rows, number).items():
            name = f"{number}_{projection.laterality}-{projection.view_position}.png"
            Image.fromarray(values << 2).save(pictures / name)
    for count in _EXAMS:
        for exam in range(count):
            place = folder / "folders" / str(count) / f"exam_{exam:03d}"
            place.mkdir(parents=True)
            for projection in PROJECTIONS:
                name = f"{projection.laterality}-{projection.view_position}.png"
                os.link(pictures / f"{exam % _DISTINCT}_{name}", place / name)


def _write_model(folder: Path, recipe: Recipe) -> None:
    """Four networks of random weights, which take as long as trained ones."""
    for projection in PROJECTIONS:
        torch.manual_seed(1)
        network = ResidualNetwork(NetworkSpec(**recipe.to_dict()["network"])).eval()
        save_checkpoint(folder / projection.value, Checkpoint(network, projection, recipe.preprocess))


if __name__ == "__main__":
    main()
