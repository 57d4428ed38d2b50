"""What a file's name says about its projection and exam."""

from __future__ import annotations

import re

from mammodensity.terms import Projection

_SIDE = r"(?:RIGHT|LEFT|R|L)"
_VIEW = r"(?:CC|MLO)"
_PROJECTION = re.compile(
    rf"(?<![A-Z])(?:(?P<side1>{_SIDE})[ _.-]?(?P<view1>{_VIEW})|(?P<view2>{_VIEW})[ _.-]?(?P<side2>{_SIDE}))(?![A-Z])",
    re.IGNORECASE,
)
_SEPARATORS = " _.-"
_ORIGIN_STEM = re.compile(r"(?P<subject>[^_]*\d[^_]*)_(?P<number>\d+)")


def projection_in_name(stem: str) -> Projection | None:
    """The projection a file name states, in any of the usual spellings; None when it states none or two.

    >>> [str(projection_in_name(s)) for s in ("145_1_C_CC_R", "L-MLO", "A_0018_1.RIGHT_CC", "scan", "RCC_LCC")]
    ['CC_R', 'MLO_L', 'CC_R', 'None', 'None']
    """
    found = set()
    for match in _PROJECTION.finditer(stem):
        side = (match["side1"] or match["side2"])[0].upper()
        view = (match["view1"] or match["view2"]).upper()
        found.add(Projection(f"{view}_{side}"))
    return found.pop() if len(found) == 1 else None


def exam_in_name(stem: str, category: str = "") -> str:
    """What is left of a file name without its projection and, before it, its ``category``: the exam.

    >>> exam_in_name("145_1_C_CC_R", "C"), exam_in_name("A_0018_1.LEFT_CC"), exam_in_name("L-CC")
    ('145_1', 'A_0018_1', '')
    """
    rest = _PROJECTION.sub("", stem).strip(_SEPARATORS)
    if category and rest[-2:-1] in tuple(_SEPARATORS) and rest[-1:].upper() == category:
        rest = rest[:-2].strip(_SEPARATORS)
    return rest


def patient_in_exam(exam_id: str) -> str:
    """The subject in an exam named ``<subject>_<number>`` as the origin's files are; otherwise the exam itself.

    >>> [patient_in_exam(exam) for exam in ("145_1", "exam7", "img_001")]
    ['145', 'exam7', 'img_001']
    """
    match = _ORIGIN_STEM.fullmatch(exam_id)
    return match["subject"] if match else exam_id
