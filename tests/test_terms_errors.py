"""The vocabulary, the exception tree, and the order of the house."""

from __future__ import annotations

import ast
import errno
import subprocess
import sys
import tomllib

import pytest

import mammodensity
from mammodensity import errors
from mammodensity.terms import CATEGORIES, FUSED_LEVELS, LEVELS, PROJECTIONS
from samples import REPOSITORY

PACKAGE = REPOSITORY / "src" / "mammodensity"

# The order in which data flows; a module imports only from the stages before it and its own.
STAGES = [
    {"errors", "stopping"},
    {"inputs", "terms"},
    {"outputs", "settings", "workers"},
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
    {"web"},
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


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), "memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "memory"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "memory"),
        (ImportError("x.so: cannot allocate memory in static TLS block"), "memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory"),
        (RuntimeError("can't start new thread"), "threads or processes"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "threads or processes"),
        (OSError(errno.EMFILE, "Too many open files"), "open files"),
        (OSError(errno.ENOSPC, "No space left on device"), "/dev/shm"),
        (RuntimeError("unable to write to file </torch_1_2_3>: No space left on device (28)"), "/dev/shm"),
        (OSError(errno.ENOSPC, "No space left on device", "out.csv"), None),
        (ImportError("No module named 'x'"), None),
        (RuntimeError("shapes differ"), None),
        (ValueError("memory"), None),
    ],
)
def test_shortages_of_the_machine_are_told_from_errors(error, words):
    reason = errors.shortage(error)
    assert reason is None if words is None else words in (reason or "")


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
        workflows.prepare workflows.segment commands.command_line
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
