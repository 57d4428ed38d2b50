"""The record of a training run by epoch: a table, and the origin's four text files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from mammodensity.errors import TableError
from mammodensity.outputs import write_csv, write_text

HISTORY_FILE = "history.csv"
_ORIGIN_FILES = {
    "acc_train.txt": "train_accuracy",
    "acc_val.txt": "validation_accuracy",
    "loss_train.txt": "train_loss",
    "loss_val.txt": "validation_loss",
}


@dataclass(frozen=True)
class EpochFigures:
    """One epoch: means over the images of the split (training figures with augmentation and dropout)."""

    epoch: int
    """Counted from 1."""
    learning_rate: float
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float


def write_history(folder: Path, history: Sequence[EpochFigures]) -> None:
    """Write ``history.csv`` and the origin's one-number-a-line files ``acc_train.txt`` and so on."""
    columns = [column.name for column in fields(EpochFigures)]
    write_csv(folder / HISTORY_FILE, columns, (asdict(figures) for figures in history))
    for name, column in _ORIGIN_FILES.items():
        write_text(folder / name, "".join(f"{getattr(figures, column):.18e}\n" for figures in history))


def read_history(folder: Path) -> list[EpochFigures]:
    """Read ``history.csv``; an empty list where there is none (an imported network).

    Raises
    ------
    TableError
        The table is damaged.
    """
    path = folder / HISTORY_FILE
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        try:
            return [
                EpochFigures(int(row.pop("epoch")), **{name: float(value) for name, value in row.items()})
                for row in csv.DictReader(stream)
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise TableError(f"{path} is damaged; expected the columns that `mammodensity train` writes") from error
