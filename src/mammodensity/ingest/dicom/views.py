"""Codes and words of views, view modifiers and breasts.

References
----------
PS3.16 CID 4014 (views), CID 4015 (view modifiers), CID 6022 (side), CID 4 (axilla); each in SNOMED CT (SCT) and in the
older SRT codes.
"""

from __future__ import annotations

import re

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
    """View, side and whether the implant is displaced, as one View Position tells them; None for what it does not.

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
    """True for a view modifier that leaves a screening view one."""
    return modifier in _HARMLESS
