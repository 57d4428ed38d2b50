"""Public data sets by name: each adapter reads a data set's own tables, and finds an image by the name in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mammodensity.data.public import cbis_ddsm, ddsm, embed, inbreast, mini_mias, rsna, vindr
from mammodensity.data.public import infn as origin
from mammodensity.data.public.assemble import ImageEntry, PublicData, PublicExam
from mammodensity.data.public.image_files import FileList


@dataclass(frozen=True)
class Adapter:
    """What is particular to one data set."""

    read: Callable[[FileList, FileList], PublicData]
    """Tables and data folder to exams, without looking at an image."""
    locate: Callable[[FileList, PublicExam, ImageEntry], Path | None]
    """The file of an image, or None where it is absent."""
    tables: str
    """Regular expression of its tables' names."""


ADAPTERS: Mapping[str, Adapter] = {
    "vindr": Adapter(vindr.read, vindr.locate, vindr.TABLES),
    "rsna": Adapter(rsna.read, rsna.locate, rsna.TABLES),
    "cbis-ddsm": Adapter(cbis_ddsm.read, cbis_ddsm.locate, cbis_ddsm.TABLES),
    "ddsm": Adapter(ddsm.read, ddsm.locate, ddsm.TABLES),
    "inbreast": Adapter(inbreast.read, inbreast.locate, inbreast.TABLES),
    "embed": Adapter(embed.read, embed.locate, embed.TABLES),
    "mini-mias": Adapter(mini_mias.read, mini_mias.locate, mini_mias.TABLES),
    "origin": Adapter(origin.read, origin.locate, origin.TABLES),
}
"""By the name on the command line; ``csv`` is read by ``csv_table``, as it needs to be told the columns."""
