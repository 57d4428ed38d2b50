"""The vocabulary, the exception tree, and the order of the house."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib

import mammodensity
from mammodensity import errors
from mammodensity.terms import CATEGORIES, FUSED_LEVELS, LEVELS, PROJECTIONS
from samples import REPOSITORY

PACKAGE = REPOSITORY / "src" / "mammodensity"

# The order in which data flows; a module imports only from the stages before it and its own.
STAGES = [
    {"errors", "stopping"},
    {"terms"},
    {"inputs", "outputs", "settings", "workers"},
    {"tensors"},
    {"exam"},
    {"scores"},
    {"data", "phantom"},
    {"anatomy"},
    {"models"},
    {"training"},
    {"evaluation"},
    {"results"},
    {"explanation"},
    {"studies"},
    {"research"},
    {"pages"},
    {"workflows"},
    {"clinic"},
    {"commands"},
]


def test_order_of_projections_and_levels():
    assert [str(p) for p in PROJECTIONS] == ["CC_R", "CC_L", "MLO_R", "MLO_L"]
    assert LEVELS == ("CC_R", "CC_L", "MLO_R", "MLO_L", "right", "left", "subject")
    assert all(view.laterality == "R" for view in FUSED_LEVELS["right"])
    assert [c.index for c in CATEGORIES] == [0, 1, 2, 3]
    assert [c.dense for c in CATEGORIES] == [False, False, True, True]


def test_every_error_is_in_the_tree():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and kind.__module__ == errors.__name__]
    assert len(kinds) > 10
    for kind in kinds:
        assert issubclass(kind, errors.MammodensityError)
        assert kind.__name__ in (errors.__doc__ or "")


def test_public_names():
    assert mammodensity.__all__ == sorted(mammodensity.__all__)
    assert all(callable(getattr(mammodensity, name)) for name in mammodensity.__all__)


def test_modules_import_only_from_earlier_stages():
    rank = {module: place for place, stage in enumerate(STAGES) for module in stage}
    stages = {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert stages - {"__init__", "__main__"} == set(rank)
    for path in sorted(PACKAGE.rglob("*.py")):
        stage = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if stage not in rank:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mammodensity."):
                used = (node.module or "").split(".")[1]
                assert used == stage or rank[used] < rank[stage], f"{path.name} imports {node.module}"


def test_what_needs_no_torch_does_not_import_it():
    modules = """
        terms errors inputs outputs workers exam scores data.images data.public.adapters phantom.exams
        anatomy.outline
        evaluation.figures evaluation.labels evaluation.score_tables results.result results.calibration
        studies.compare studies.readers studies.drift studies.further studies.sample_size workflows.check
        workflows.prepare workflows.segment commands.app
    """.split()  # noqa: SIM905
    imports = "; ".join(f"import mammodensity.{module}" for module in modules)
    code = f"{imports}; import sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_data_file_is_packaged():
    with (REPOSITORY / "pyproject.toml").open("rb") as stream:
        patterns = tomllib.load(stream)["tool"]["setuptools"]["package-data"]["mammodensity"]
    packaged = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    there = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert there == packaged
