"""What an explanation is worth: scores against baselines, sanity checks, verdicts; see ``docs/explanations.md``."""

from __future__ import annotations

from mammodensity.explanation.scoring.areas import Areas, areas_of
from mammodensity.explanation.scoring.captions import caption, captioned
from mammodensity.explanation.scoring.exam_scores import (
    ExamVerdict,
    ViewScores,
    find_dependence,
    score_exam_maps,
    view_agreement,
)
from mammodensity.explanation.scoring.probe import Probe
from mammodensity.explanation.scoring.run_scores import RunScores
from mammodensity.explanation.scoring.score import ExplanationScores, ScoreSpec, score_explanation
from mammodensity.explanation.scoring.verdicts import (
    STANDARD_RULES,
    VERDICTS,
    Dependence,
    Verdict,
    VerdictRules,
    judge,
)

__all__ = [
    "STANDARD_RULES",
    "VERDICTS",
    "Areas",
    "Dependence",
    "ExamVerdict",
    "ExplanationScores",
    "Probe",
    "RunScores",
    "ScoreSpec",
    "Verdict",
    "VerdictRules",
    "ViewScores",
    "areas_of",
    "caption",
    "captioned",
    "find_dependence",
    "judge",
    "score_exam_maps",
    "score_explanation",
    "view_agreement",
]
