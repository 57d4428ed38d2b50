"""Mutations of image files by kind: bytes, streams, headers and names."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mammodensity.terms import PROJECTIONS, Projection
from mutation.dicom_bytes import DEFLATED
from mutation.sound import DICOM_NAMES, PICTURE_NAMES, Sound, left_out, sound_image

Random = np.random.Generator
JPEG_NAMES = ("jpeg", "jpeg restart", "jpeg extended", "jpeg lossless 14", "jpeg lossless", "jpeg-ls", "jpeg-ls near")
J2K_NAMES = ("jpeg 2000", "jpeg 2000 tiled", "jpeg 2000 lossy", "htj2k")
_DICOM_SHARE = 0.7


@dataclass(frozen=True)
class Mutant:
    """A mutated image file, and the sound one it was made of."""

    sound: Sound
    file_name: str
    content: bytes
    change: str
    """The change, in words."""


def choose(rng: Random, options: Sequence[str]) -> str:
    """One of the options."""
    return options[int(rng.integers(len(options)))]


def _sound(rng: Random, rows: int, names: Sequence[str] | None = None) -> Sound:
    if names is None:
        names = DICOM_NAMES if rng.random() < _DICOM_SHARE else PICTURE_NAMES
    name = choose(rng, names)
    if name in left_out():  # another one, so that all other cases stay as they are
        name = next(name for name in (*names, "explicit") if name not in left_out())
    projection = PROJECTIONS[int(rng.integers(4))]
    dark_is_bright = name in DICOM_NAMES and rng.random() < 0.3
    return sound_image(name, projection, rows, "MONOCHROME1" if dark_is_bright else "MONOCHROME2")


# --- bytes ----------------------------------------------------------------------------------------------------------


def _stretch(rng: Random, content: bytes, span: tuple[int, int], longest: int) -> tuple[int, int]:
    """Begin and end of a random stretch, most often within the pixels."""
    begin, end = span if rng.random() < 0.7 else (0, len(content))
    length = int(min(longest, end - begin, np.exp(rng.uniform(0, np.log(longest)))))
    start = int(rng.integers(begin, max(begin + 1, end - length + 1)))
    return start, start + max(1, length)


def bits_flipped(rng: Random, content: bytes, span: tuple[int, int]) -> tuple[bytes, str]:
    """One to eight bits."""
    changed = bytearray(content)
    places = [_stretch(rng, content, span, 1)[0] for _ in range(int(rng.integers(1, 9)))]
    for place in places:
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed), f"bits flipped at {places}"


def bytes_overwritten(rng: Random, content: bytes, span: tuple[int, int]) -> tuple[bytes, str]:
    """One to three stretches of random bytes, or of one value."""
    changed, places = bytearray(content), []
    for _ in range(int(rng.integers(1, 4))):
        start, end = _stretch(rng, content, span, 2000)
        fill = rng.bytes(end - start) if rng.random() < 0.7 else bytes([int(rng.integers(256))]) * (end - start)
        changed[start:end] = fill[: len(changed[start:end])]
        places.append((start, end))
    return bytes(changed), f"overwritten at {places}"


def bytes_lost(rng: Random, content: bytes, span: tuple[int, int]) -> tuple[bytes, str]:
    """A stretch is missing."""
    start, end = _stretch(rng, content, span, 4000)
    return content[:start] + content[end:], f"bytes {start} to {end} lost"


def bytes_inserted(rng: Random, content: bytes, span: tuple[int, int]) -> tuple[bytes, str]:
    """A stretch of random bytes, or a stretch of the file doubled."""
    start, end = _stretch(rng, content, span, 4000)
    more = rng.bytes(end - start) if rng.random() < 0.5 else content[start:end]
    return content[:start] + more + content[start:], f"{len(more)} bytes inserted at {start}"


def bytes_exchanged(rng: Random, content: bytes, span: tuple[int, int]) -> tuple[bytes, str]:
    """Two stretches of one length in each other's place."""
    length = int(np.exp(rng.uniform(np.log(2), np.log(max(3, (span[1] - span[0]) // 3)))))
    first, second = sorted(int(place) for place in rng.integers(span[0], max(span[0] + 1, span[1] - length), 2))
    second = max(second, first + length)
    if second + length > span[1]:
        return bytes_overwritten(rng, content, span)
    parts = content[:first], content[first : first + length], content[first + length : second]
    swapped = parts[0] + content[second : second + length] + parts[2] + parts[1] + content[second + length :]
    return swapped, f"{length} bytes at {first} and {second} exchanged"


def cut(rng: Random, content: bytes, _span: tuple[int, int]) -> tuple[bytes, str]:
    """The rest of the file is missing."""
    end = int(len(content) * rng.uniform(0.3, 1)) if rng.random() < 0.8 else len(content) - int(rng.integers(1, 40))
    return content[:end], f"cut to {end} of {len(content)} bytes"


def zero_tail(rng: Random, content: bytes, span: tuple[int, int]) -> tuple[bytes, str]:
    """The last part of the pixels is zeros; what follows the pixels stays."""
    begin, end = span
    start = int(begin + (end - begin) * rng.uniform(0.4, 0.99))
    return content[:start] + bytes(end - start) + content[end:], f"zeros from {start} to {end}"


Change = Callable[[Random, bytes, tuple[int, int]], tuple[bytes, str]]


def in_file(change: Change, rng: Random, rows: int) -> Mutant:
    """Change the bytes of a file as they come, lengths in its header included."""
    sound = _sound(rng, rows)
    content, words = change(rng, sound.content, sound.span)
    return Mutant(sound, sound.file_name, content, words)


def in_stream(change: Change, rng: Random, rows: int) -> Mutant:
    """Change the pixels of a DICOM file and write it anew, so that only they are wrong; native ones keep their size."""
    sound = _sound(rng, rows, DICOM_NAMES)
    assert sound.dicom is not None
    stream = sound.dicom.stream
    head = 0 if sound.dicom.is_native else min(len(stream) // 4, 1000)
    changed, words = change(rng, stream, (head, len(stream) - 2))
    if sound.dicom.is_native:
        changed = changed[: len(stream)].ljust(len(stream), b"\0")
    return Mutant(sound, sound.file_name, replace(sound.dicom, stream=changed).content(), f"pixels: {words}")


def cut_with_end(rng: Random, rows: int) -> Mutant:
    """Pixels cut short in a file that is whole otherwise, end marker and lengths included."""
    names = ("rle", *JPEG_NAMES, *J2K_NAMES, "deflated", "jpeg picture", "progressive jpeg picture", "png 8", "png 16")
    sound = _sound(rng, rows, names)
    share = rng.uniform(0.5, 0.995)
    words = f"pixels cut to {share:.1%}, end kept"
    if sound.dicom is None and sound.suffix == ".png":
        return Mutant(sound, sound.file_name, _cut_png(sound.content, share), words)
    if sound.dicom is None:
        begin, end = sound.span
        content = sound.content[: int(begin + (end - begin) * share)] + b"\xff\xd9"
        return Mutant(sound, sound.file_name, content, words)
    stream = sound.dicom.stream
    end_marker = b"\xff\xd9" if sound.dicom.syntax != DEFLATED and "rle" not in sound.name else b""
    stream = stream[: int(len(stream) * share)] + end_marker
    if sound.dicom.is_native:
        stream = stream.ljust(len(sound.dicom.stream), b"\0")
    return Mutant(sound, sound.file_name, replace(sound.dicom, stream=stream).content(), words)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">L", len(body)) + name + body + struct.pack(">L", zlib.crc32(name + body))


def _cut_png(content: bytes, share: float) -> bytes:
    packed = zlib.decompress(_png_data(content))
    body = zlib.compress(packed[: int(len(packed) * share)])
    return content[:33] + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _png_data(content: bytes) -> bytes:
    place, data = 8, b""
    while place < len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        if content[place + 4 : place + 8] == b"IDAT":
            data += content[place + 8 : place + 8 + length]
        place += 12 + length
    return data


# --- headers --------------------------------------------------------------------------------------------------------


def false_size(rng: Random, rows: int) -> Mutant:
    """Rows and columns that are not those of the pixels, in the header, the codestream or both."""
    if rng.random() < 0.3:
        sound = _sound(rng, rows, ("png 8", "png 16", "jpeg picture", "pgm"))
        return Mutant(sound, sound.file_name, *_resized_picture(rng, sound))
    sound = _sound(rng, rows, ("explicit", "implicit", "rle", *JPEG_NAMES, *J2K_NAMES))
    dicom = sound.dicom
    assert dicom is not None
    height, width = (int.from_bytes(dicom.value(name) or b"", "little") for name in ("Rows", "Columns"))
    taller, wider = _other_size(rng, height, width)
    if rng.random() < 0.7 or dicom.is_native:
        dicom = dicom.whole_number("Rows", taller).whole_number("Columns", wider)
    if not dicom.is_native:
        dicom = replace(dicom, stream=_resized_stream(dicom.stream, (height, width), (taller, wider)))
    return Mutant(sound, sound.file_name, dicom.content(), f"{height} x {width} called {taller} x {wider}")


def _other_size(rng: Random, rows: int, columns: int) -> tuple[int, int]:
    kind = rng.integers(4)
    if kind == 0:
        return columns, rows
    if kind == 1:
        return rows - int(rng.integers(1, rows // 2)), columns
    if kind == 2:
        return rows + int(rng.integers(1, rows)), columns
    return rows // 2, columns * 2


def _resized_stream(stream: bytes, old: tuple[int, int], new: tuple[int, int]) -> bytes:
    """Another size in the frame header of a JPEG, or the SIZ segment of a JPEG 2000 stream."""
    if stream[:4] == b"\xff\x4f\xff\x51":
        size = struct.pack(">LL", old[1], old[0])
        return stream[:8] + stream[8:].replace(size, struct.pack(">LL", new[1], new[0]), 1)
    return stream.replace(struct.pack(">HH", *old), struct.pack(">HH", *new), 1)


def _resized_picture(rng: Random, sound: Sound) -> tuple[bytes, str]:
    rows, columns = sound_shape(sound)
    taller, wider = _other_size(rng, rows, columns)
    content = sound.content
    if sound.suffix == ".png":
        head = struct.pack(">LL", wider, taller) + content[24:29]
        content = content[:8] + _chunk(b"IHDR", head) + content[33:]
    elif sound.suffix == ".jpg":
        content = _resized_stream(content, (rows, columns), (taller, wider))
    else:
        content = content.replace(f"{columns} {rows}".encode(), f"{wider} {taller}".encode(), 1)
    return content, f"{rows} x {columns} called {taller} x {wider}"


def sound_shape(sound: Sound) -> tuple[int, int]:
    """Rows and columns of a picture."""
    import io

    from PIL import Image

    with Image.open(io.BytesIO(sound.content)) as picture:
        return picture.height, picture.width


_WRONG: dict[str, tuple[str, ...]] = {
    "Modality": ("CT", "", "MG\\CT", "mg "),
    "PresentationIntentType": ("FOR PROCESSING", "", "PRESENTATION"),
    "ViewPosition": ("ML", "XCCL", "", "CC\\MLO", "AT", "SPOT"),
    "ImageLaterality": ("B", "", "X", "L\\R", "U"),
    "PhotometricInterpretation": ("RGB", "PALETTE COLOR", "", "YBR_FULL", "MONOCHROME", "OTHER POLARITY"),
    "VOILUTFunction": ("LINEAR\\LINEAR", "XYZ", "LINEAR ", "LINEAR_EXACT\\SIGMOID"),
    "PresentationLUTShape": ("INVERSE", "IDENTITY\\INVERSE", "X"),
    "PartialView": ("YES", "Y", "NO\\YES"),
    "NumberOfFrames": ("5", "0", "-1", "1\\2", "1,0"),
    "BurnedInAnnotation": ("YES", "?"),
    "BreastImplantPresent": ("YES", "?"),
    "ImageType": ("DERIVED\\SECONDARY", "DERIVED\\PRIMARY\\TOMOSYNTHESIS\\GENERATED_2D", "", "ORIGINAL"),
    "PatientOrientation": ("P", "", "X\\Y", "A\\L\\F", "L\\P", "H\\F"),
    "BodyPartExamined": ("CHEST", "", "HEAD"),
    "SOPClassUID": ("1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.2", "1.2.3", ""),
    "StudyInstanceUID": ("", "1..2", "x" * 64),
    "LossyImageCompression": ("01", "99", ""),
    "ViewCodeSequence": ("", "damaged item"),
    "CompressionForce": ("abc",),
}
_WRONG_NUMBERS: dict[str, tuple[int, ...]] = {
    "BitsStored": (1, 8, 10, 13, 15, 16, 0),
    "HighBit": (0, 7, 10, 12, 15, 40),
    "BitsAllocated": (8, 12, 32, 1, 0),
    "SamplesPerPixel": (0, 2, 3),
    "PixelRepresentation": (1, 2),
    "PlanarConfiguration": (1, 7),
}


def tag_changed(rng: Random, rows: int) -> Mutant:
    """An element that holds what it must not, or what the pixels contradict."""
    sound = _sound(rng, rows, DICOM_NAMES)
    dicom = sound.dicom
    assert dicom is not None
    keyword = choose(rng, (*_WRONG, *_WRONG_NUMBERS, "TransferSyntaxUID"))
    if keyword == "TransferSyntaxUID":
        other = choose(rng, [name for name in DICOM_NAMES if name not in left_out() and name != sound.name])
        return _in_other_syntax(sound, other)
    if keyword in _WRONG_NUMBERS:
        number = _WRONG_NUMBERS[keyword][int(rng.integers(len(_WRONG_NUMBERS[keyword])))]
        return Mutant(sound, sound.file_name, dicom.whole_number(keyword, number).content(), f"{keyword} {number}")
    text = choose(rng, _WRONG[keyword])
    if text == "OTHER POLARITY":
        text = "MONOCHROME2" if (dicom.value(keyword) or b"").startswith(b"MONOCHROME1") else "MONOCHROME1"
    return Mutant(sound, sound.file_name, dicom.changed(keyword, text).content(), f"{keyword} {text!r}")


def _in_other_syntax(sound: Sound, other: str) -> Mutant:
    """The transfer syntax of another file in the file meta information."""
    assert sound.dicom is not None
    donor = sound_image(other, sound.projection).dicom
    assert donor is not None
    content = donor.before + sound.content[len(sound.dicom.before) :]
    return Mutant(sound, sound.file_name, content, f"called {other}")


def tag_removed(rng: Random, rows: int) -> Mutant:
    """One to three elements are missing."""
    sound = _sound(rng, rows, DICOM_NAMES)
    assert sound.dicom is not None
    elements = sound.dicom.elements
    gone = {int(place) for place in rng.integers(0, len(elements), int(rng.integers(1, 4)))}
    kept = tuple(element for place, element in enumerate(elements) if place not in gone)
    words = ", ".join(f"{elements[place].tag:08x}" for place in sorted(gone))
    return Mutant(sound, sound.file_name, replace(sound.dicom, elements=kept).content(), f"without {words}")


_DECIDING: dict[str, str] = {
    "WindowCenter": "{} ",
    "WindowWidth": "{} ",
    "RescaleSlope": "{}",
    "RescaleIntercept": "{}",
    "ImagerPixelSpacing": "{}\\{}",
    "PixelSpacing": "{}\\{}",
    "EstimatedRadiographicMagnificationFactor": "{}",
    "DistanceSourceToDetector": "{}",
    "DistanceSourceToPatient": "{}",
    "FieldOfViewDimensions": "{}\\{}",
}
_NO_NUMBERS = (
    *("1,8", "nan", "NaN", "inf", "-inf", "1e400", "abc", "", "--3", "1.8.2", "0x10", "1_0", "1 8", "1.8mm", "1;8"),
    *("\\", "1\\2\\3", "\xb2", "1e", "+-1", "2048,5"),
)
_EXTREME = ("1e300", "-1e300", "1e-300", "1e30", "-1", "0", "9" * 16, "1e16", "-0.0")


def number_changed(rng: Random, rows: int) -> Mutant:
    """A number that decides something and is none, or one that no mammogram has."""
    sound = _sound(rng, rows, DICOM_NAMES)
    assert sound.dicom is not None
    keyword = choose(rng, tuple(_DECIDING))
    text = choose(rng, _NO_NUMBERS if rng.random() < 0.6 else _EXTREME)
    dicom = sound.dicom.changed(keyword, _DECIDING[keyword].format(text, text))
    if keyword.startswith("Distance") and rng.random() < 0.5:  # a magnified view, could the number be read
        dicom = dicom.changed("DistanceSourceToDetector", "650,0" if "Det" in keyword else "650")
        dicom = dicom.changed("DistanceSourceToPatient", "361,0" if "Pat" in keyword else "361")
    if keyword == "FieldOfViewDimensions" and rng.random() < 0.5:
        dicom = dicom.changed(keyword, choose(rng, ("60,0\\50,0", "6e1\\x", "60\\", "60,5\\50")))
    words = ", ".join(f"{name} {(dicom.value(name) or b'')!r}" for name in _DECIDING if dicom.value(name))
    return Mutant(sound, sound.file_name, dicom.content(), words)


_ORIENTATION = {"CC_R": "P\\L", "CC_L": "A\\R", "MLO_R": "P\\FL", "MLO_L": "A\\FR"}
_CODE = {"CC": b"R-10242", "MLO": b"R-10226"}


def _labelled(sound: Sound, other: Projection, places: Sequence[str]) -> Mutant:
    """The file with another projection in some places of its header, or in its name."""
    if sound.dicom is None:
        name = sound.file_name.replace(sound.projection, other)
        return Mutant(sound, name, sound.content, f"named {other}")
    dicom = sound.dicom
    if "side" in places:
        dicom = dicom.changed("ImageLaterality", other.laterality)
    if "view" in places:
        dicom = dicom.changed("ViewPosition", other.view_position)
    if "orientation" in places:
        dicom = dicom.changed("PatientOrientation", _ORIENTATION[other])
    if "code" in places:
        codes = dicom.value("ViewCodeSequence") or b""
        old, new = _CODE[sound.projection.view_position], _CODE[other.view_position]
        dicom = dicom.changed("ViewCodeSequence", codes.replace(old, new))
    return Mutant(sound, sound.file_name, dicom.content(), f"called {other} in {', '.join(places)}")


def _some(rng: Random, places: Sequence[str]) -> list[str]:
    """All places half of the time, else some of them."""
    if rng.random() < 0.5:
        return list(places)
    chosen = [place for place in places if rng.random() < 0.5]
    return chosen or [choose(rng, places)]


def wrong_view(rng: Random, rows: int) -> Mutant:
    """CC called MLO, and MLO called CC."""
    sound = _sound(rng, rows)
    view = "CC" if sound.projection.view_position == "MLO" else "MLO"
    other = Projection(f"{view}_{sound.projection.laterality}")
    return _labelled(sound, other, _some(rng, ("view", "code", "orientation")))


def wrong_side(rng: Random, rows: int) -> Mutant:
    """Right called left, and left called right."""
    sound = _sound(rng, rows)
    side = "L" if sound.projection.laterality == "R" else "R"
    other = Projection(f"{sound.projection.view_position}_{side}")
    return _labelled(sound, other, _some(rng, ("side", "orientation")))


def dark_stream(rng: Random, rows: int) -> Mutant:
    """Pixels that use fewer bits than the header says, with a window or without one."""
    lossless = ("explicit", "implicit", "rle", "jpeg lossless", "jpeg-ls", "jpeg 2000")
    sound = _sound(rng, rows, lossless)
    assert sound.dicom is not None
    bits = 16  # 16 times too dark; twice or four times might be meant
    dicom = sound.dicom.whole_number("BitsStored", bits).whole_number("HighBit", bits - 1)
    window = rng.random() < 0.5
    for keyword, number in (("WindowCenter", 1 << (bits - 1)), ("WindowWidth", 1 << bits)):
        dicom = dicom.changed(keyword, str(number) if window else None)
    words = f"12 bits called {bits}, {'its window' if window else 'no window'}"
    return Mutant(sound, sound.file_name, dicom.content(), words)


BYTE_CHANGES: dict[str, Change] = {
    "bits flipped": bits_flipped,
    "bytes overwritten": bytes_overwritten,
    "bytes lost": bytes_lost,
    "bytes inserted": bytes_inserted,
    "bytes exchanged": bytes_exchanged,
    "zero tail": zero_tail,
}
