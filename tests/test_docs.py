"""The documentation: current, without dead links, and with commands that exist."""

from __future__ import annotations

import ast
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.exceptions import TyperException

import mammodensity
from mammodensity.commands.command_line import _repeat_projection_option, app
from mammodensity.data.problems import NOTES, PROBLEMS
from mammodensity.errors import MammodensityError
from samples import REPOSITORY

PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")])
GROUP = typer.main.get_command(app)
_CONTROL = {"|", "||", "&&", ";", "&", ">", ">>", "<", "2>"}
_ORDER = re.compile(r"^(?:\$ |Example: )?(?:\S*/)?(mammodensity(?: .*)?)$")


def test_the_command_reference_is_current(tmp_path):
    script = runpy.run_path(str(REPOSITORY / "docs" / "make_commands.py"))
    assert (REPOSITORY / "docs" / "commands.md").read_text() == script["commands_page"](), "run make docs"
    page = tmp_path / "commands.md"
    assert script["main"](["--check"], page) == 1, "absent"
    assert not page.exists()
    assert script["main"]([], page) == 0
    assert script["main"](["--check"], page) == 0
    page.write_text(page.read_text() + "stale")
    assert script["main"](["--check"], page) == 1
    assert script["main"](["--other"], page) == 2


def test_the_command_reference_does_not_depend_on_the_terminal():
    check = [sys.executable, "docs/make_commands.py", "--check"]
    environment = {"COLUMNS": "40", "PATH": "", "TERM": "xterm-256color", "FORCE_COLOR": "1"}
    assert subprocess.run(check, cwd=REPOSITORY, env=environment, check=False).returncode == 0


def test_the_conformance_statement_is_current():
    pytest.importorskip("pynetdicom", reason="the extra clinic is not installed")
    check = [sys.executable, "docs/make_conformance.py", "--check"]
    done = subprocess.run(check, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def anchors(page: Path) -> set[str]:
    """Anchors of the headings of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not re.match(r"[a-z]+:", target):
            file, _, anchor = target.partition("#")
            linked = page.parent / file if file else page
            assert linked.exists(), target
            assert not anchor or anchor in anchors(linked), target


def test_pages_named_in_the_code_exist():
    for path in own_files():
        for name in re.findall(r"\bdocs/((?!README)[\w-]+\.md)", path.read_text(encoding="utf-8")):
            assert (REPOSITORY / "docs" / name).exists(), f"{path.name}: docs/{name}"


def test_the_pages_stay_short():
    pages = [REPOSITORY / "README.md", *REPOSITORY.glob("docs/*.md")]
    for name in ("acceptance.md", "commands.md", "conformance.md"):  # made from the code
        pages.remove(REPOSITORY / "docs" / name)
    assert sum(len(page.read_text().split()) for page in pages) <= 20_000


def test_one_version_everywhere():
    changelog = (REPOSITORY / "CHANGELOG.md").read_text()
    citation = (REPOSITORY / "CITATION.cff").read_text()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert re.findall(r"^## \[?([^\]\s]+)", changelog, re.MULTILINE)[0] == mammodensity.__version__
    assert re.findall(r"^version: (.+)$", citation, re.MULTILINE) == [mammodensity.__version__]
    assert re.findall(r"^license: (.+)$", citation, re.MULTILINE) == [project["license"]]
    assert project["version"] == mammodensity.__version__


# --- commands -------------------------------------------------------------------------------------------------------


def blocks_and_prose(text: str) -> tuple[list[str], str]:
    """Lines of fenced blocks, broken lines joined, and everything else."""
    fenced: list[str] = []
    prose: list[str] = []
    inside = False
    for line in text.replace("\\\n", " ").splitlines():
        if line.lstrip().startswith("```"):
            inside = not inside
        else:
            (fenced if inside else prose).append(line)
    return fenced, "\n".join(prose)


def orders(lines: list[str]) -> Iterator[list[str]]:
    """Arguments of every call of the command among the lines of a shell."""
    for line in lines:
        found = _ORDER.match(line.strip())
        if found:
            words = shlex.split(found[1], comments=True)
            end = next((place for place, word in enumerate(words) if word in _CONTROL), len(words))
            yield words[1:end]


def parse(arguments: list[str]) -> None:
    """Let the command line's own parser read the arguments, and run nothing."""
    name, *rest = _repeat_projection_option(arguments)
    if name.startswith("--"):
        assert name in options(GROUP)
        return
    assert name in GROUP.commands, name
    if rest != ["--help"]:
        GROUP.commands[name].make_context(name, rest)


def options(command: Any) -> set[str]:
    return {"--help", *(option for parameter in command.params for option in parameter.opts)}


def named(words: list[str]) -> None:
    """Check a command and options that a sentence names, perhaps without all that a call needs."""
    command = GROUP.commands[words[0]] if words and not words[0].startswith("-") else GROUP
    for word in words:
        bare = word.strip("[].,").partition("=")[0]
        assert not bare.startswith("--") or bare in options(command), f"{words}: no option {bare}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page):
    fenced, prose = blocks_and_prose(page.read_text())
    if page.name != "commands.md":  # usage lines; the examples in them have a test of their own
        for arguments in orders(fenced):
            parse(arguments)
    for words in re.findall(r"`(?:\S*/)?mammodensity +([^`]+)`", prose):
        named(words.split())


def test_examples_in_the_help_can_be_typed():
    fenced, _ = blocks_and_prose((REPOSITORY / "docs" / "commands.md").read_text())
    examples = [line for line in fenced if line.strip().startswith("Example: ")]
    assert len(examples) >= len(GROUP.commands)
    for arguments in orders(examples):
        parse(arguments)


def test_the_demo_can_be_typed():
    lines = (REPOSITORY / "demo.sh").read_text().splitlines()
    calls = list(orders([line.removeprefix("say ") for line in lines]))
    assert len(calls) >= 7
    for arguments in calls:
        parse(arguments)


@pytest.mark.parametrize(
    "wrong", ["nope", "explain DATA", "train DATA --model m --epochs many", "check DATA --jason f", "--nope"]
)
def test_wrong_commands_would_be_noticed(wrong):
    with pytest.raises((AssertionError, TyperException, MammodensityError)):
        parse(wrong.split())


def test_wrong_options_in_sentences_would_be_noticed():
    named(["train", "DATA", "[--resume]"])
    for wrong in ("train --again", "--nope"):
        with pytest.raises(AssertionError):
            named(wrong.split())
    with pytest.raises(KeyError):
        named(["nope"])


# --- what the pages say of the code ---------------------------------------------------------------------------------


def test_every_check_code_is_explained():
    rows = re.findall(r"^\| `([a-z-]+)` \| (error|note) \|", (REPOSITORY / "docs/data.md").read_text(), re.MULTILINE)
    assert dict(rows) == {code: "note" if code in NOTES else "error" for code in PROBLEMS}
    for path in (REPOSITORY / "src" / "mammodensity").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            words = [one.value for one in node.args if isinstance(one, ast.Constant)]
            if node.func.id == "Problem" and words:
                assert words[0] in PROBLEMS
            elif node.func.id == "ImageError" and len(node.args) == 2:
                assert f"{words[-1]}-image" in PROBLEMS


def test_every_stage_is_described():
    page = (REPOSITORY / "docs" / "architecture.md").read_text()
    package = REPOSITORY / "src" / "mammodensity"
    stages = {path.stem for path in package.glob("[a-z]*.py")} | {path.parent.name for path in package.glob("*/*.py")}
    described = {
        name for row in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", page, re.M) for name in re.findall(r"`(\w+)`", row)
    }
    assert described == stages
    for name in re.findall(r"`([\w/]+\.py)`", page):
        assert (package / name).is_file() or (REPOSITORY / name).is_file(), name


# --- where it was made ----------------------------------------------------------------------------------------------

_TEXT = {".py", ".md", ".toml", ".txt", ".cff", ".sh", ".jinja", ".yaml", ".yml", ".ipynb", ".html", ".css", ""}
_ELSEWHERE = ("pypi" + ".org", "files.python" + "hosted", "/work/" + "shared", "/work/" + "main")


def own_files() -> list[Path]:
    folders = ("src", "tests", "docs", "notebooks", "benchmarks", ".ci")
    inside = [path for folder in folders for path in (REPOSITORY / folder).rglob("*")]
    places = [*REPOSITORY.glob("*"), REPOSITORY / ".pre-commit-config.yaml", *inside]
    return [
        path
        for path in places
        if path.is_file()
        and path.name != ".git"
        and path.suffix in _TEXT
        and not {"__pycache__"} & set(path.parts)
        and ".egg-info" not in str(path)
    ]


def test_no_trace_of_where_it_was_made():
    files = own_files()
    assert {"app.py", "test_docs.py", "Makefile", "infn.md", "run"} <= {path.name for path in files}
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert [name for name in _ELSEWHERE if name in text] == [], path
