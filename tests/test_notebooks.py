"""The notebooks: run from top to bottom on small data, stored clean, and installing before anything else."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from mammodensity.evaluation.infn_tables import INFN_FILES
from mammodensity.explanation.verdicts import VERDICTS
from mammodensity.terms import RESEARCH_USE_ONLY
from samples import REPOSITORY, write_blobs

nbformat = pytest.importorskip("nbformat", reason="needs the extra 'notebooks'")
pytest.importorskip("ipykernel", reason="needs the extra 'notebooks'")
nbclient = pytest.importorskip("nbclient", reason="needs the extra 'notebooks'")

FOLDER = REPOSITORY / "notebooks"
NAMES = ("1_train.ipynb", "2_predict.ipynb", "3_figures_of_merit.ipynb", "4_activation_maps.ipynb")
OWN_DATA_LINE = "DATA = PHANTOMS  # <-- your own folder here"
CELL_SECONDS = 300  # far above what a cell takes, for machines under load


def read(name: str):
    return nbformat.read(FOLDER / name, as_version=4)


def code_cells(notebook) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def texts(notebook) -> str:
    """Everything shown as text, with the source of no cell."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "\n".join(output.get("text") or str(output.get("data", {}).get("text/plain", "")) for output in outputs)


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """Small settings, an empty working folder, and no trace in the user's own Jupyter folders."""
    sizes = {"SIZE": "48", "EXAMS": "24", "EPOCHS": "2", "WORK": str(tmp_path / "work")}
    for name, value in sizes.items():
        monkeypatch.setenv(f"MAMMODENSITY_NOTEBOOK_{name}", value)
    monkeypatch.delenv("MAMMODENSITY_NOTEBOOK_ORIGIN", raising=False)
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel chooses its own, which puts figures into the notebook
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def execute(name: str, folder: Path, own_data: Path | None = None):
    """The executed notebook; an error in a cell is raised with its traceback."""
    notebook = read(name)
    if own_data is not None:
        for cell in notebook.cells:
            cell.source = cell.source.replace(OWN_DATA_LINE, f"DATA = Path({str(own_data)!r})  #")
    client = nbclient.NotebookClient(notebook, timeout=CELL_SECONDS, resources={"metadata": {"path": str(folder)}})
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    return notebook


def pictures(notebook) -> int:
    return sum("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ()))


@pytest.mark.slow
def test_all_four_run_and_share_their_work(workplace, monkeypatch):
    train = execute(NAMES[0], workplace)
    assert pictures(train) >= 3
    assert RESEARCH_USE_ONLY in texts(train)
    [model] = (workplace / "work").glob("model-*")
    written = {path: path.stat().st_mtime_ns for path in model.glob("*/network.safetensors")}
    assert len(written) == 4

    predict = execute(NAMES[1], workplace)
    assert pictures(predict) >= 3
    assert RESEARCH_USE_ONLY in texts(predict)
    assert {path.name for path in (model / "origin-predictions").glob("*.txt")} == set(INFN_FILES.values())

    origin = model / "origin-predictions"
    shutil.copy(origin / "rows.csv", origin / "labels.csv")
    monkeypatch.setenv("MAMMODENSITY_NOTEBOOK_ORIGIN", str(origin))
    merit = execute(NAMES[2], workplace)
    assert pictures(merit) >= 3
    assert "the package counts the same: True" in texts(merit)
    assert "subject: accuracy" in texts(merit)

    maps = execute(NAMES[3], workplace)
    assert pictures(maps) >= 7
    shown = [output.get("data", {}) for cell in maps.cells for output in cell.get("outputs", ())]
    assert sum("srcdoc" in data.get("text/html", "") for data in shown) == 2
    assert "the package computes the same: True" in texts(maps)
    for kind in ("proper", "shuffled", "shortcut"):
        assert re.search(rf"^{kind} +\d+% +\d+%$", texts(maps), re.MULTILINE), "put right with bars as taught, by lot"
        [verdicts] = re.findall(rf"^{kind} .* of 12   (.*)$", texts(maps), re.MULTILINE)
        assert sum(int(one.split()[0]) for one in verdicts.split(", ")) == 12
        assert {one.split()[1] for one in verdicts.split(", ")} <= set(VERDICTS)
    assert re.search(r"bright pixels +correlation with the maps of the shuffled network: 1\.00", texts(maps))
    assert "baseline, the dense area share" in texts(maps)

    assert written == {path: path.stat().st_mtime_ns for path in written}  # trained once, by the first


@pytest.mark.slow
def test_own_data_needs_one_change_and_no_masks(workplace):
    own = write_blobs(workplace / "own", 24)
    maps = execute(NAMES[3], workplace, own)
    assert "no masks of dense tissue in your own data" in texts(maps)
    assert not list((workplace / "work").glob("phantoms*"))
    predict = execute(NAMES[1], workplace, own)
    assert re.search(r"\b1\d\d_1\b", texts(predict))  # exams of that data set


def test_figures_of_the_origin(workplace, shared_data, monkeypatch):
    """The notebook's own cells for the origin's tables, without the rest of the notebook."""
    folder = shared_data / "origin" / "predictions"
    monkeypatch.setenv("MAMMODENSITY_NOTEBOOK_ORIGIN", str(folder))
    cells = code_cells(read(NAMES[2]))
    wanted = (
        "import os",
        "ORIGIN_PREDICTIONS =",
        "from mammodensity.evaluation.infn_tables import read_infn_tables\nfrom mammodensity.evaluation.labels",
    )
    names: dict = {"Path": Path}
    exec("from mammodensity.commands.show import say_research_use_only", names)
    exec("from mammodensity.commands.show_figures import show_figures", names)
    exec("from mammodensity.evaluation.figures import evaluate_table", names)
    for start in wanted:
        [source] = [cell for cell in cells if cell.startswith(start)]
        exec(source, names)
    assert f"{names['origin']['subject'].accuracy:.6f}" == "0.812500"


def test_what_they_share_is_the_same_in_each():
    """Installing, settings and own data in all four; making what is missing in all but the first, which explains it."""
    for start, names in (
        ("# Installs", NAMES),
        ("import os", NAMES),
        ("PHANTOMS =", NAMES),
        ("from IPython.display import display\n\nfrom mammodensity.data.find", NAMES[1:]),
    ):
        found = [[cell for cell in code_cells(read(name)) if cell.startswith(start)] for name in names]
        assert [len(cells) for cells in found] == [1] * len(names), start
        assert len({cell for [cell] in found}) == 1, start


@pytest.mark.parametrize("name", NAMES)
class TestStored:
    def test_clean(self, name):
        notebook = read(name)
        nbformat.validate(notebook)
        assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
        assert notebook.metadata.kernelspec.name == "python3"
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert not [cell.id for cell in code if cell.outputs or cell.execution_count is not None]
        assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)

    def test_teaches(self, name):
        notebook = read(name)
        assert notebook.cells[0].cell_type == "markdown"
        assert "research use only. not a medical device" in notebook.cells[0].source.lower()
        assert "## Exercises" in notebook.cells[-1].source
        assert sum(cell.source.count(OWN_DATA_LINE) for cell in notebook.cells) == 1

    def test_no_host_is_named(self, name):
        text = (FOLDER / name).read_text(encoding="utf-8")
        assert "http" not in text
        assert "index-url" not in text

    def test_links_lead_somewhere(self, name):
        for other in NAMES:
            if f"({other})" in (FOLDER / name).read_text(encoding="utf-8"):
                assert (FOLDER / other).is_file()

    @pytest.mark.parametrize("checkout", [True, False])
    def test_first_cell_installs(self, name, checkout, tmp_path, monkeypatch):
        here = tmp_path / "notebooks"
        here.mkdir()
        if checkout:
            (tmp_path / "pyproject.toml").touch()
        monkeypatch.chdir(here)
        asked: list[list[str]] = []
        monkeypatch.setattr(subprocess, "run", lambda command, check: asked.append(command))
        source = code_cells(read(name))[0]
        exec(source, {})
        assert asked == []  # the package is here

        # nothing there, or only a folder of that name (a fresh clone in the current folder)
        absent = None if checkout else ModuleSpec("mammodensity", None)
        monkeypatch.setattr("importlib.util.find_spec", lambda name: absent)
        exec(source, {})
        project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        torch = next(wanted for wanted in project["dependencies"] if wanted.startswith("torch"))
        package = str(tmp_path.resolve()) if checkout else project["name"]
        assert [command[-1] for command in asked] == [torch, package]
        assert all("install" in command for command in asked)
