"""Sound inputs of the corpus: DICOM files in every syntax that is read, and pictures; all from phantoms.

Encoders: pydicom's, Pillow's, dcmtk's ``dcmcjpeg`` and imagecodecs'. What an encoder that is not installed would make
is left out, with the reason in ``left_out``.
"""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dicom_samples import mammogram, save
from mammodensity.outputs import atomic_file
from mammodensity.phantom.exams import PhantomSpec, make_exam
from mammodensity.terms import PROJECTIONS, Projection
from mutation.dicom_bytes import DicomBytes, parse

Grey = NDArray[np.uint16]

ROWS = 320
_UID = "1.2.826.0.1.3680043.8.498.7"


@cache
def phantom(projection: Projection, rows: int) -> Grey:
    """Grey values (H, W) of 12 bits."""
    return _exam(rows)[projection]


@cache
def _exam(rows: int) -> dict[Projection, Grey]:
    kept = _kept[0] / f"phantom-{rows}.npz" if _kept else None
    if kept is None or not kept.exists():
        exam = make_exam(PhantomSpec(rows=rows, bits=16), 2)
        views = {str(projection): (view.image >> 4).astype(np.uint16) for projection, view in exam.views.items()}
        if kept is None:
            return {projection: views[projection] for projection in PROJECTIONS}
        with atomic_file(kept) as stream:
            np.savez_compressed(stream, **views)  # type: ignore[arg-type]
    with np.load(kept) as views:
        return {projection: views[projection] for projection in PROJECTIONS}


_kept: list[Path] = []


def keep_phantoms(folder: Path) -> None:
    """Keep phantoms in a folder, which several processes may share; making them takes long."""
    _kept[:] = [folder]


@dataclass(frozen=True)
class Sound:
    """One sound image file."""

    name: str
    """Syntax or picture format, and the projection."""
    projection: Projection
    suffix: str
    content: bytes
    span: tuple[int, int]
    """Where the pixels lie in the content."""
    dicom: DicomBytes | None = None
    """The same file taken apart, for DICOM."""

    @property
    def file_name(self) -> str:
        """A name that states the projection for pictures, and nothing for DICOM."""
        return "IM0001" if self.dicom else f"145_1_{self.projection}{self.suffix}"


Encode = Callable[[Grey], bytes]


def _with_dcmtk(*options: str) -> Callable[[Dataset], bytes]:
    def encode(ds: Dataset) -> bytes:
        from pydicom import dcmread

        with TemporaryDirectory() as folder:
            plain, packed = Path(folder, "a"), Path(folder, "b")
            save(ds, plain)
            subprocess.run(["dcmcjpeg", *options, plain, packed], check=True, capture_output=True)
            return next(generate_frames(dcmread(packed).PixelData, number_of_frames=1))

    return encode


def _with_pydicom(syntax: Any, **options: Any) -> Callable[[Dataset], bytes]:
    def encode(ds: Dataset) -> bytes:
        ds.compress(syntax, generate_instance_uid=False, **options)
        return next(generate_frames(ds.PixelData, number_of_frames=1))

    return encode


def _with_pillow(form: str, **options: Any) -> Callable[[Dataset], bytes]:
    def encode(ds: Dataset) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(ds.pixel_array).save(stream, form, **options)
        return stream.getvalue()

    return encode


def _with_imagecodecs(name: str, **options: Any) -> Callable[[Dataset], bytes]:
    def encode(ds: Dataset) -> bytes:
        import imagecodecs

        return bytes(getattr(imagecodecs, name)(ds.pixel_array, **options))

    return encode


@dataclass(frozen=True)
class _Coder:
    syntax: str
    encode: Callable[[Dataset], bytes]
    needs: str = ""
    """A program or package that must be installed."""
    bits: int = 12


CODERS = {
    "rle": _Coder(RLELossless, _with_pydicom(RLELossless)),
    "jpeg": _Coder("1.2.840.10008.1.2.4.50", _with_pillow("JPEG", quality=95), bits=8),
    "jpeg restart": _Coder(
        "1.2.840.10008.1.2.4.50", _with_pillow("JPEG", quality=90, restart_marker_rows=1, optimize=True), bits=8
    ),
    "jpeg extended": _Coder("1.2.840.10008.1.2.4.51", _with_dcmtk("+ee", "+q", "95", "--bits-force-12"), "dcmcjpeg"),
    "jpeg lossless 14": _Coder("1.2.840.10008.1.2.4.57", _with_dcmtk("+el", "+sv", "6"), "dcmcjpeg"),
    "jpeg lossless": _Coder("1.2.840.10008.1.2.4.70", _with_dcmtk("+e1"), "dcmcjpeg"),
    "jpeg-ls": _Coder(JPEGLSLossless, _with_pydicom(JPEGLSLossless)),
    "jpeg-ls near": _Coder(JPEGLSNearLossless, _with_pydicom(JPEGLSNearLossless, jls_error=2)),
    "jpeg 2000": _Coder(JPEG2000Lossless, _with_pydicom(JPEG2000Lossless)),
    "jpeg 2000 tiled": _Coder(
        JPEG2000Lossless,
        _with_pillow("JPEG2000", no_jp2=True, tile_size=(128, 128), quality_layers=[8, 1], progression="RPCL"),
        bits=8,  # Pillow garbles tiles of 16 bits
    ),
    "jpeg 2000 lossy": _Coder(
        "1.2.840.10008.1.2.4.91", _with_pillow("JPEG2000", no_jp2=True, irreversible=True, quality_layers=[8]), bits=16
    ),
    "htj2k": _Coder(
        "1.2.840.10008.1.2.4.201", _with_imagecodecs("htj2k_encode", reversible=True), "imagecodecs", bits=16
    ),
}
_NATIVE = {
    "explicit": "",
    "implicit": ImplicitVRLittleEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
}
_PICTURES: dict[str, tuple[str, str, int, dict[str, Any]]] = {
    "png 8": (".png", "PNG", 8, {}),
    "png 16": (".png", "PNG", 16, {}),
    "tiff": (".tif", "TIFF", 16, {}),
    "tiff deflate": (".tif", "TIFF", 16, {"compression": "tiff_adobe_deflate"}),
    "tiff lzw": (".tif", "TIFF", 8, {"compression": "tiff_lzw"}),
    "jpeg picture": (".jpg", "JPEG", 8, {"quality": 95}),
    "progressive jpeg picture": (".jpg", "JPEG", 8, {"quality": 90, "progressive": True}),
    "pgm": (".pgm", "PPM", 16, {}),
}
DICOM_NAMES = (*_NATIVE, *CODERS)
PICTURE_NAMES = tuple(_PICTURES)


def left_out() -> dict[str, str]:
    """Inputs that cannot be made here, and why."""
    return {
        name: f"{coder.needs} is not installed"
        for name, coder in CODERS.items()
        if coder.needs and not (shutil.which(coder.needs) or find_spec(coder.needs))
    }


@cache
def sound_image(name: str, projection: Projection, rows: int = ROWS, polarity: str = "MONOCHROME2") -> Sound:
    """A sound file of the kind ``name``, one of ``DICOM_NAMES`` and ``PICTURE_NAMES``."""
    called = f"{name} {projection}" + (" MONOCHROME1" if polarity == "MONOCHROME1" else "")
    grey = phantom(projection, rows)
    if name in _PICTURES:
        suffix, form, bits, options = _PICTURES[name]
        stream = io.BytesIO()
        Image.fromarray((grey >> 4).astype(np.uint8) if bits == 8 else grey << 4).save(stream, form, **options)
        content = stream.getvalue()
        return Sound(called, projection, suffix, content, _picture_span(form, content))
    dicom = _dicom(name, projection, grey, polarity)
    return Sound(called, projection, "", dicom.content(), dicom.span(), dicom)


def _dicom(name: str, projection: Projection, grey: Grey, polarity: str) -> DicomBytes:
    coder = CODERS.get(name)
    bits = coder.bits if coder else 12
    top = (1 << bits) - 1
    stored = grey << 4 if bits == 16 else grey >> (12 - bits)
    stored = top - stored if polarity == "MONOCHROME1" else stored
    allocated = 8 if bits == 8 else 16
    uid = f"{_UID}.{PROJECTIONS.index(projection) + 1}"
    changes = {"BitsAllocated": allocated, "BitsStored": bits, "HighBit": bits - 1}
    window = {"WindowCenter": (top + 1) // 2, "WindowWidth": top + 1}
    pixels = stored.astype("u1" if allocated == 8 else "<u2")
    if name == "big endian":
        changes["PixelData"] = pixels.astype(">u2").tobytes()
    ds = mammogram(projection, pixels, PhotometricInterpretation=polarity, **changes, **window)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid
    ds.SeriesInstanceUID = f"{_UID}.9"
    stream = None
    if coder:
        stream = coder.encode(ds)
        ds.file_meta.TransferSyntaxUID = coder.syntax
        ds.PixelData = encapsulate([stream])
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True
        if "near" in name or "lossy" in name or name in ("jpeg", "jpeg restart", "jpeg extended"):
            ds.LossyImageCompression = "01"
    elif _NATIVE[name]:
        ds.file_meta.TransferSyntaxUID = _NATIVE[name]
    with TemporaryDirectory() as folder:
        return parse(save(ds, Path(folder, "a")).read_bytes(), stream)


def _picture_span(form: str, content: bytes) -> tuple[int, int]:
    """The bytes of the pixels: after the header of a format that begins with one, before the end marker."""
    begin = {"PNG": content.find(b"IDAT") + 4, "JPEG": content.find(b"\xff\xda") + 12, "PPM": 20, "TIFF": 8}[form]
    return begin, len(content) - {"PNG": 16, "JPEG": 2}.get(form, 0)
