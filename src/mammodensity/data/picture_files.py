"""Grey pictures of mammograms (PNG, PGM, TIFF and JPEG of 8 or 16 bit), and what their file names say.

A name may state the projection and the exam.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from mammodensity.data.picture_damage import is_uncompressed, require_whole
from mammodensity.data.row_damage import folding, row_damage
from mammodensity.errors import ImageError, one_line
from mammodensity.exam import Mammogram
from mammodensity.terms import Projection

_SIDE = r"(?:RIGHT|LEFT|R|L)"
_VIEW = r"(?:CC|MLO)"
_PROJECTION = re.compile(
    rf"(?<![A-Z])(?:(?P<side1>{_SIDE})[ _.-]?(?:DM_)?(?P<view1>{_VIEW})|"
    rf"(?P<view2>{_VIEW})[ _.-]?(?P<side2>{_SIDE}))(?![A-Z])",
    re.IGNORECASE,
)
"""Between side and view, CDD-CESM writes DM for low-energy images, and CM for subtracted ones, which are not read."""
_SEPARATORS = " _.-"
INBREAST_STEM = re.compile(
    r"(?P<image>\d+)_(?P<patient>[^_]+)_MG_(?P<side>[RL])_(?P<view>[A-Z]+)(?:_.*)?", re.IGNORECASE
)
"""Names of INbreast's images, ``20586908_6c613a14b80a8591_MG_R_ML_ANON``; its adapter says that ML is MLO there."""
_INFN_STEM = re.compile(r"(?P<subject>[^_]*\d[^_]*)_(?P<number>\d+)")


def projection_in_name(stem: str) -> Projection | None:
    """The projection a file name states, in any of the usual spellings; None when it states none or two.

    >>> [str(projection_in_name(s)) for s in ("145_1_C_CC_R", "L-MLO", "A_0018_1.RIGHT_CC", "scan", "RCC_LCC")]
    ['CC_R', 'MLO_L', 'CC_R', 'None', 'None']
    >>> str(projection_in_name("P108_L_DM_CC")), str(projection_in_name("P108_L_CM_CC"))
    ('CC_L', 'None')
    >>> str(projection_in_name("20586908_6c613a14b80a8591_MG_R_ML_ANON")), str(projection_in_name("exam_R_ML"))
    ('MLO_R', 'None')
    """
    if (of_inbreast := INBREAST_STEM.fullmatch(stem)) and of_inbreast["view"].upper() == "ML":
        return Projection(f"MLO_{of_inbreast['side'].upper()}")
    stated = set()
    for match in _PROJECTION.finditer(stem):
        side = (match["side1"] or match["side2"])[0].upper()
        view = (match["view1"] or match["view2"]).upper()
        stated.add(Projection(f"{view}_{side}"))
    return stated.pop() if len(stated) == 1 else None


def exam_in_name(stem: str, category: str = "") -> str:
    """The exam in a file name: the rest of it without the projection and the ``category`` before that.

    >>> [exam_in_name(stem) for stem in ("A_0018_1.LEFT_CC", "P108_L_DM_CC", "L-CC")], exam_in_name("145_1_C_CC_R", "C")
    (['A_0018_1', 'P108', ''], '145_1')
    """
    rest = _PROJECTION.sub("", stem).strip(_SEPARATORS)
    if category and rest[-2:-1] in tuple(_SEPARATORS) and rest[-1:].upper() == category:
        rest = rest[:-2].strip(_SEPARATORS)
    return rest


def patient_in_exam(exam_id: str) -> str:
    """The subject in an exam named ``<subject>_<number>`` as INFN's files are; otherwise the exam itself.

    >>> [patient_in_exam(exam) for exam in ("145_1", "exam7", "img_001")]
    ['145', 'exam7', 'img_001']
    """
    match = _INFN_STEM.fullmatch(exam_id)
    return match["subject"] if match else exam_id


PICTURE_SUFFIXES = (".png", ".pgm", ".tif", ".tiff", ".jpg", ".jpeg")

_ORIENTATION, _ROWS_ARE_COLUMNS = 274, (5, 6, 7, 8)  # TIFF 6.0
SMALLEST_SIDE_PX = 16
MOST_PIXELS = 60_000_000  # three times the largest detector; film scanned at 43.5 um has up to 38 million


def read_picture(path: Path | str, projection: Projection | None = None) -> Mammogram:
    """Read one picture.

    A colour picture is accepted when its three channels are equal, as some programs save grey as colour. A picture is
    turned or mirrored as its EXIF or TIFF orientation (tag 274) says.

    Raises
    ------
    ImageError
        Not readable, truncated, in colour, of an absurd size, or all of one value.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # opening a pipe would wait for its writer
        raise ImageError(f"{path} is no ordinary file; expected a PNG, PGM, TIFF or JPEG image")
    try:
        with warnings.catch_warnings():
            # Pillow warns on sizes that are checked here, and on oddities in tags that are not used here.
            warnings.simplefilter("ignore")
            # A stream, as Pillow maps files of a name into memory, and then garbles TIFFs that are stored turned.
            with path.open("rb") as stream, Image.open(stream) as picture:
                _require_sane_size(path, picture.size)
                pixels = _grey_pixels(path, picture, stream)
    except FileNotFoundError as error:
        raise ImageError(f"{path} not found") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path} has too many pixels; no mammogram is that large", "size") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{path} is not a readable PNG, PGM, TIFF or JPEG image; export it again") from error
    except ImageError:
        raise
    except Exception as error:  # a decoder may raise anything on damaged bytes
        raise ImageError(f"{path} is damaged or truncated ({one_line(error)}); export it again") from error
    return Mammogram(pixels, projection, path=path)


def _require_sane_size(path: Path, size: tuple[int, int]) -> None:
    columns, rows = size
    if min(size) < SMALLEST_SIDE_PX:
        raise ImageError(f"{path} is {rows} x {columns} pixels; expected at least {SMALLEST_SIDE_PX} a side", "size")
    if rows * columns > MOST_PIXELS:
        raise ImageError(f"{path} is {rows} x {columns} pixels; no mammogram is that large", "size")


def _grey_pixels(path: Path, picture: Image.Image, stream: BinaryIO) -> NDArray[np.uint8] | NDArray[np.uint16]:
    if getattr(picture, "n_frames", 1) > 1:
        raise ImageError(f"{path} holds several pictures; save each projection as its own file", "several")
    if _deep_colour(path, picture):
        raise ImageError(f"{path} holds 16-bit grey in a colour picture; export it as plain 16-bit grey", "depth")
    require_whole(picture, stream)
    turned = picture.getexif().get(_ORIENTATION, 1) in _ROWS_ARE_COLUMNS
    plain = is_uncompressed(picture)
    picture.load()  # turns a TIFF, and then forgets its orientation
    ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode in ("LA", "RGBA", "PA", "P", "CMYK", "YCbCr"):
        picture = picture.convert("RGB")
    pixels = np.asarray(picture)
    if pixels.ndim == 3:
        if not (pixels[..., 0] == pixels[..., 1]).all() or not (pixels[..., 0] == pixels[..., 2]).all():
            raise ImageError(f"{path} is a colour picture; expected grey, export it without colours or marks", "colour")
        pixels = pixels[..., 0]
    if pixels.dtype == np.int32 and pixels.min() >= 0 and pixels.max() <= np.iinfo(np.uint16).max:
        pixels = pixels.astype(np.uint16)  # Pillow reads some 16-bit files as 32-bit integers
    if pixels.dtype == np.dtype(">u2"):
        pixels = pixels.astype(np.uint16)
    stored = pixels.T if turned else pixels
    if damage := row_damage(stored.astype(np.int32), picture=True) if plain else folding(stored):
        raise ImageError(f"{path} is damaged: its rows {damage}; export it again")
    if pixels.dtype == np.uint16:
        pixels = _scaled(pixels)
        if _white_is_zero(picture):
            pixels = np.iinfo(np.uint16).max - pixels  # Pillow turns 8-bit pictures itself, but not these
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{path} has pixels of type {pixels.dtype}; expected 8- or 16-bit grey values", "depth")
    return np.ascontiguousarray(pixels)


def _scaled(pixels: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Values of 8, 10, 12 or 14 bits scaled to 16, which a file of 16 bits cannot say of them."""
    largest = int(pixels.max())
    used = next((bits for bits in (8, 10, 12, 14) if largest < 1 << bits), 16)
    top = (1 << used) - 1
    return pixels if used == 16 else ((pixels.astype(np.uint32) * 0xFFFF + top // 2) // top).astype(np.uint16)


def _white_is_zero(picture: Image.Image) -> bool:
    """True for a TIFF whose photometric interpretation is WhiteIsZero (TIFF 6.0, tag 262)."""
    tags = getattr(picture, "tag_v2", None)
    return tags is not None and tags.get(262) == 0


def _deep_colour(path: Path, picture: Image.Image) -> bool:
    """True for a PNG of 16 bit in several channels, which Pillow would cut to 8 bit."""
    if picture.format != "PNG":
        return False
    with path.open("rb") as stream:
        depth, colour_type = stream.read(26)[24:]  # PNG, 11.2.1: IHDR comes first
    return depth == 16 and colour_type != 0
