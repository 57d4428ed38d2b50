"""Make the inputs of the measurements, once: phantoms as DICOM files and pictures, and networks of random weights.

Arguments: the folder, and the rows of the images. A folder that is there is whole and stays as it is.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import torch
from imagecodecs import ljpeg_encode
from openjpeg.utils import encode_pixel_data
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEG2000Lossless, JPEGLossless

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from archive_figures import stored_values, write_exam
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
            for path in write_exam(exams / f"plain{ending}", stored_values(rows, 1, air=not ending)):
                _compress(path, JPEGLossless, exams / f"jpeg{ending}" / path.name)
                _compress(path, JPEG2000Lossless, exams / f"j2k{ending}" / path.name)
        _write_pictures(folder, rows)
        for name in ("small", "origin"):
            _write_model(folder / "models" / name, find_recipe(name))


def _compress(path: Path, syntax: UID, out: Path) -> None:
    """Write the same image in JPEG Lossless (process 14) or in JPEG 2000 lossless."""
    ds = dcmread(path)
    if syntax == JPEGLossless:
        values = np.frombuffer(ds.PixelData, np.uint16).reshape(ds.Rows, ds.Columns)
        frame = ljpeg_encode(values, bitspersample=ds.BitsStored)
    else:
        options = {"rows": ds.Rows, "columns": ds.Columns, "samples_per_pixel": 1, "bits_stored": ds.BitsStored}
        options |= {"photometric_interpretation": 2, "lossless": True, "pixel_representation": 0}
        frame = bytes(encode_pixel_data(ds.PixelData, **options))
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = syntax
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
