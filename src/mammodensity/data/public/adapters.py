"""Public data sets by name: each adapter reads a data set's own tables and finds an image by its name in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from mammodensity.data.public import cbis_ddsm, ddsm, embed, inbreast, infn, mini_mias, rsna, vindr
from mammodensity.data.public.assemble import ImageEntry, PublicData, PublicExam
from mammodensity.data.public.image_files import FileList


class Adapter(Protocol):
    """The part that is particular to one data set; every module of a data set is one."""

    TABLES: str
    """Regular expression of the names of its tables."""

    def read(self, tables: FileList, data: FileList) -> PublicData:
        """Read the exams from the tables, or from the data folder where the tables do not tell; open no image."""

    def locate(self, files: FileList, exam: PublicExam, entry: ImageEntry) -> Path | None:
        """Find the file of an image; None where it is absent."""


ADAPTERS: Mapping[str, Adapter] = {
    "vindr": vindr,
    "rsna": rsna,
    "cbis-ddsm": cbis_ddsm,
    "ddsm": ddsm,
    "inbreast": inbreast,
    "embed": embed,
    "mini-mias": mini_mias,
    "origin": infn,
}
"""By the name on the command line; ``csv`` is read by ``csv_table``, which needs the names of the columns."""
