"""Tables of the standard and of habit: transfer syntaxes, codes and words of views, and words of descriptions.

Series Description and Protocol Name are the image's own in some archives ("R CC SPOT") and the whole exam's in others
("Screening, spot views if needed"). The second kind must refuse no image. Performed Procedure Step Description always
concerns several images, so no kind is read from it, and Study Description is not read at all.

References
----------
PS3.16 CID 4014 (views), CID 4015 (view modifiers), CID 6022 (side), CID 4 (axilla); each in SNOMED CT (SCT) and in the
older SRT codes.
"""

from __future__ import annotations

import re
from importlib.util import find_spec

from mammodensity.data.dicom.header import Header
from mammodensity.data.picture_files import projection_in_name

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
"""Names by UID."""

LOSSY = (*JPEG_BASELINE, *JPEG_EXTENDED, "1.2.840.10008.1.2.4.81")
"""Always lossy; in the JPEG 2000 syntaxes, which may be either, Lossy Image Compression tells."""

MAY_LOSE = (*LOSSY, "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.203")

PLUGINS = {
    **dict.fromkeys(JPEG_BASELINE, "pillow"),
    **dict.fromkeys(JPEG_EXTENDED, "pillow"),
    **dict.fromkeys(JPEG_LOSSLESS, "gdcm"),
    **dict.fromkeys(JPEG_LS, "pyjpegls"),
    **dict.fromkeys(JPEG_2000, "openjpeg"),
    **dict.fromkeys(RLE, "rle"),
}
"""A single decoder for each syntax: a second, more lenient one would accept what the first calls damaged."""

JPEG12_EXTRA = "mammodensity[jpeg12]"


def has_jpeg12() -> bool:
    """True when the optional decoder of 12-bit JPEG Extended is installed."""
    return find_spec("imagecodecs") is not None


SCREENING_VIEWS = ("CC", "MLO")

VIEW_CODES = {
    "R-10242": "CC",
    "399162004": "CC",
    "R-10226": "MLO",
    "399368009": "MLO",
    "R-10224": "ML",
    "399260004": "ML",
    "R-10228": "LM",
    "399352003": "LM",
    "R-10230": "LMO",
    "399099002": "LMO",
    "R-102D0": "SIO",
    "R-10232": "SIO",
    "399188001": "SIO",
    "R-40AAA": "ISO",
    "441555000": "ISO",
    "R-10244": "FB",
    "399196006": "FB",
    "R-1024A": "XCCL",
    "R-10236": "XCCL",
    "399192008": "XCCL",
    "R-1024B": "XCCM",
    "399101009": "XCCM",
    "R-102CF": "XCC",
    "399265009": "XCC",
    "G-8310": "SPECIMEN",
    "127457009": "SPECIMEN",
}

IMPLANT_DISPLACED = "implant displaced"
_HARMLESS = {"nipple in profile", IMPLANT_DISPLACED}

MODIFIER_CODES = {
    "R-102D2": "cleavage",
    "399161006": "cleavage",
    "R-102D1": "axillary tail",
    "399011000": "axillary tail",
    "R-40AB2": "axillary tissue",
    "442580003": "axillary tissue",
    "R-102D3": "rolled lateral",
    "399197002": "rolled lateral",
    "R-102D4": "rolled medial",
    "399226006": "rolled medial",
    "R-102C9": "rolled superior",
    "415670009": "rolled superior",
    "R-102CA": "rolled inferior",
    "414493004": "rolled inferior",
    "R-102D5": IMPLANT_DISPLACED,
    "399209000": IMPLANT_DISPLACED,
    "R-102D6": "magnification",
    "399163009": "magnification",
    "R-102D7": "spot compression",
    "399055006": "spot compression",
    "R-102C2": "tangential",
    "399110001": "tangential",
    "R-40AB3": "nipple in profile",
    "442581004": "nipple in profile",
    "R-40ABE": "infra-mammary fold",
    "442593008": "infra-mammary fold",
    "P2-00161": "anterior compression",
    "441752004": "anterior compression",
}

SIDE_CODES = {
    "T-04020": "R",
    "73056007": "R",
    "T-04030": "L",
    "80248007": "L",
    "G-A100": "R",
    "24028007": "R",
    "G-A101": "L",
    "7771000": "L",
}

AXILLA_CODES = ("T-D8104", "91470000")

_VIEW_WORDS = {
    "CC": "CC",
    "MLO": "MLO",
    "ML": "ML",
    "LM": "LM",
    "LMO": "LMO",
    "SIO": "SIO",
    "ISO": "ISO",
    "FB": "FB",
    "XCC": "XCC",
    "XCCL": "XCCL",
    "XCCM": "XCCM",
    "CV": "CV",
    "AT": "AT",
    "AX": "AT",
    "TAN": "TAN",
    "RL": "RL",
    "RM": "RM",
    "RI": "RI",
    "RS": "RS",
    "CRANIO CAUDAL": "CC",
    "CRANIOCAUDAL": "CC",
    "MEDIO LATERAL OBLIQUE": "MLO",
    "MEDIOLATERAL OBLIQUE": "MLO",
    "MEDIO LATERAL": "ML",
    "MEDIOLATERAL": "ML",
    "MEDIAL LATERAL": "ML",
    "LATERO MEDIAL": "LM",
    "LATEROMEDIAL": "LM",
    "LATERO MEDIAL OBLIQUE": "LMO",
    "LATEROMEDIAL OBLIQUE": "LMO",
}
_WITH_SIDE = re.compile(r"(?P<side>[RL])[ _-]?(?P<view>XCC[LM]?|CC|MLO|LMO|ML|LM|FB|SIO|ISO|CV|AT|TAN)")
_DISPLACED = re.compile(r"(?P<view>(?:[RL][ _-]?)?(?:CC|MLO))[ _-]?I(?:MPLANT )?D(?:ISPLACED)?")


def view_in_word(word: str) -> tuple[str | None, str | None, bool]:
    """Read view, side and whether the implant is displaced from a View Position; None where it does not say.

    >>> view_in_word("CC"), view_in_word("RMLO"), view_in_word("LM"), view_in_word("CCID"), view_in_word("LCC-ID")
    (('CC', None, False), ('MLO', 'R', False), ('LM', None, False), ('CC', None, True), ('CC', 'L', True))
    """
    word = re.sub(r"[-_ ]+", " ", word.strip().upper())
    displaced = _DISPLACED.fullmatch(word)
    if displaced:
        view, side, _ = view_in_word(displaced["view"])
        return view, side, True
    if word in _VIEW_WORDS:
        return _VIEW_WORDS[word], None, False
    sided = _WITH_SIDE.fullmatch(word)
    if sided:
        return sided["view"], sided["side"], False
    return None, None, False


def is_harmless(modifier: str) -> bool:
    """True for a view modifier that a screening view may have."""
    return modifier in _HARMLESS


SPECIAL_WORDS = re.compile(
    r"(?<![A-Z])(?P<word>SPOT(?:COMP(?:RESSION)?)?|MAG(?:N(?:IFIED|IFICATION)?)?|ROLL(?:ED)?|CLEAVAGE|TANGENTIAL|"
    r"AXILLA(?:E|RY)?|\b[RL]?(?:ML|LM|LMO|SIO|FB|XCC[LM]?)\b)(?![A-Z])"
)
"""Words for views other than screening views; names of views count as whole words only. Messages may repeat them."""
PADDLE_WORDS = re.compile(r"(?P<word>SPOT|(?<!I)MAG)")  # SPOTCOMP, 10X8MAG, but no IMAGE
BIOPSY_WORDS = re.compile(r"\b(?:BIOPS\w*|STEREOTA\w*|STEREO|NEEDLE|WIRE LOC\w*|LOCALI[SZ]ATION|PUNCTIE\w*)\b")
SPECIMEN_WORDS = re.compile(r"\b(?:SPECIMEN\w*|PREPARAAT|PR[AE]+PARAT)\b")
QUALITY_WORDS = re.compile(r"\b(?:PHANTOM\w*|QC|FLAT ?FIELD)\b")
NO_IMAGE_WORDS = re.compile(
    r"\b(?:DOSE (?:REPORT|SUMMARY|SHEET|RECORD|INFO\w*)|DOSIS\w*|SCREEN ?(?:SAVES?|SHOTS?|CAPTURES?|DUMPS?))\b"
)
DERIVED_WORDS = re.compile(r"\b(?:CROPPED IMAGES?|ROI MASK IMAGES?|MASK IMAGES?)\b")
# not after an apostrophe, of which there are many kinds: "Women's view" is no S-View
SYNTHETIC_WORDS = re.compile(
    r"(?<![^\s(/,;:+&.-])(?:[CSG][- ]?VIEW|V[- ]?PREVIEW|SYNTHETIC\w*|SYNTHESI[SZ]ED\w*|SYNTH|SYN(?:TH)?[- ]?2D|S-?2D|"
    r"INSIGHT ?2D|INTELLIGENT ?2D|GENERATED ?2D|TOMO[- ]?2D)\b"
)
TOMO_WORDS = re.compile(r"\b(?:TOMO\w*|DBT|[RL][- ]?(?:CC|MLO)[- ]3D)\b")
SLICE_WORDS = re.compile(r"\b(?:SLICES?|SLABS?|STACK|(?:TOMO\w*|DBT) (?:PROJ\w*|RECON\w*|VOLUMES?|PLANES?))\b")
CONTRAST_WORDS = re.compile(r"\b(?:RECOMBIN\w*|SUBTRACT\w*|HIGH[- ]ENERGY|CESM|CEDM|CEM)\b")
LOW_ENERGY_WORDS = re.compile(r"\bLOW[- ]ENERGY\b")

_EXAM_WIDE = re.compile(
    r"\b(?:\w*SCREENING|ROUTINE|BILAT\w*|BOTH|BEIDSEITS|FOLLOW[- ]?UP|AFTER|POST|PRIOR|PREVIOUS|HISTORY|STATUS|NACH|NA|"
    r"INCL\w*|IF|NEEDED|WITH|WITHOUT|WOMEN\w*)\b"
)


def text_of(header: Header, keyword: str) -> str:
    """A description in upper case, underscores as spaces."""
    return header.text(keyword).replace("_", " ")


def own_text(header: Header, keyword: str) -> str:
    """A description where it is about this image; blank where it is about the whole exam.

    It is about the image when it names a projection, or has no word that is used for exams only.
    """
    text = text_of(header, keyword)
    return text if projection_in_name(text) or not _EXAM_WIDE.search(text) else ""


def kind_text(header: Header) -> str:
    """The free text that may state the kind of this image."""
    texts = (
        own_text(header, "SeriesDescription"),
        own_text(header, "ProtocolName"),
        text_of(header, "PaddleDescription"),
    )
    return " ; ".join(texts)
