"""What free text tells of an image's kind: words of descriptions and paddles, and which of them speak of the image.

Series Description and Protocol Name are the image's own in some archives ("R CC SPOT") and the whole exam's in others
("Screening, spot views if needed"). The second condemns no image. Performed Procedure Step Description is always of
several images, so no kind is read from it, and Study Description is not read at all.
"""

from __future__ import annotations

import re

from mammodensity.ingest.dicom.headers import Header
from mammodensity.ingest.names import projection_in_name

SPECIAL_WORDS = re.compile(
    r"(?<![A-Z])(?P<word>SPOT(?:COMP(?:RESSION)?)?|MAG(?:N(?:IFIED|IFICATION)?)?|ROLL(?:ED)?|CLEAVAGE|TANGENTIAL|"
    r"AXILLA(?:E|RY)?|\b[RL]?(?:ML|LM|LMO|SIO|FB|XCC[LM]?)\b)(?![A-Z])"
)
"""Words that say it is no screening view; of the bare views only whole words count. A message may repeat them."""
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
    """A description, upper case, with spaces where habit writes underscores."""
    return header.text(keyword).replace("_", " ")


def own_text(header: Header, keyword: str) -> str:
    """A description that speaks of this image; nothing where it is the exam's.

    It speaks of the image when it names a projection, or has no word that is said of exams only.
    """
    text = text_of(header, keyword)
    return text if projection_in_name(text) or not _EXAM_WIDE.search(text) else ""


def kind_text(header: Header) -> str:
    """Everything in free text that may tell this image's kind."""
    texts = (
        own_text(header, "SeriesDescription"),
        own_text(header, "ProtocolName"),
        text_of(header, "PaddleDescription"),
    )
    return " ; ".join(texts)
