"""Transfer syntaxes: which are read, and with what."""

from __future__ import annotations

from importlib.util import find_spec

NATIVE = {
    "1.2.840.10008.1.2": "Implicit VR Little Endian",
    "1.2.840.10008.1.2.1": "Explicit VR Little Endian",
    "1.2.840.10008.1.2.1.99": "Deflated Explicit VR Little Endian",
    "1.2.840.10008.1.2.2": "Explicit VR Big Endian",
}
JPEG_LOSSLESS = {
    "1.2.840.10008.1.2.4.57": "JPEG Lossless (Process 14)",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless SV1",
}
JPEG_BASELINE = {"1.2.840.10008.1.2.4.50": "JPEG Baseline (8 bit)"}
JPEG_EXTENDED = {"1.2.840.10008.1.2.4.51": "JPEG Extended (8 and 12 bit)"}
JPEG_LS = {
    "1.2.840.10008.1.2.4.80": "JPEG-LS Lossless",
    "1.2.840.10008.1.2.4.81": "JPEG-LS Near-Lossless",
}
JPEG_2000 = {
    "1.2.840.10008.1.2.4.90": "JPEG 2000 Lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.201": "HTJ2K Lossless",
    "1.2.840.10008.1.2.4.202": "HTJ2K Lossless RPCL",
    "1.2.840.10008.1.2.4.203": "HTJ2K",
}
RLE = {"1.2.840.10008.1.2.5": "RLE Lossless"}

ENCAPSULATED = {**JPEG_BASELINE, **JPEG_EXTENDED, **JPEG_LOSSLESS, **JPEG_LS, **JPEG_2000, **RLE}
READABLE = {**NATIVE, **ENCAPSULATED}
"""UID to name."""

LOSSY = (*JPEG_BASELINE, *JPEG_EXTENDED, "1.2.840.10008.1.2.4.81")
"""Always with loss; the JPEG 2000 syntaxes may be either, Lossy Image Compression tells."""

MAY_LOSE = (*LOSSY, "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.203")

PLUGINS = {
    **dict.fromkeys(JPEG_BASELINE, "pillow"),
    **dict.fromkeys(JPEG_EXTENDED, "pillow"),
    **dict.fromkeys(JPEG_LOSSLESS, "gdcm"),
    **dict.fromkeys(JPEG_LS, "pyjpegls"),
    **dict.fromkeys(JPEG_2000, "pylibjpeg"),
    **dict.fromkeys(RLE, "pylibjpeg"),
}
"""One decoder a syntax: a second one that is more lenient would accept what the first calls damaged."""

JPEG12_EXTRA = "mammodensity[jpeg12]"


def has_jpeg12() -> bool:
    """True when the optional decoder of 12-bit JPEG Extended is installed."""
    return find_spec("imagecodecs") is not None
