"""The command line: the list of commands in their groups, and what happens when one of them fails.

Each command parses its options, calls one function of the library, and shows what it returns. Heavy libraries are
imported inside the commands, so that ``--help`` is instant.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from mammodensity import __version__
from mammodensity.commands import audit, clinic, data, explaining, reading, studies, training
from mammodensity.errors import INTERRUPTED, MammodensityError, OptionError, printable, shortage
from mammodensity.terms import PROJECTIONS, RESEARCH_USE_ONLY
from mammodensity.workers import launched

_STOPPED = "interrupted; no output was left half-written"


class _GroupedCommands(TyperGroup):
    """Commands listed in groups, each with the whole first sentence of its help."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            panel = str(getattr(command, "rich_help_panel", None))
            groups.setdefault(panel, []).append((name, _first_sentence(command.help or "")))
        widest = max(map(len, self.commands))
        for panel, rows in groups.items():
            with formatter.section(panel):
                formatter.write_dl([(name.ljust(widest), text) for name, text in rows])


def _first_sentence(text: str) -> str:
    return " ".join(text.partition("\n\n")[0].split()).partition(". ")[0].removesuffix(".") + "."


app = typer.Typer(
    name="mammodensity",
    cls=_GroupedCommands,
    help=f"Breast density from screening mammograms, with the evidence for it. {RESEARCH_USE_ONLY}",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if context.invoked_subcommand not in (None, "train") and launched():
        raise OptionError(
            f"{context.invoked_subcommand} runs in one process; only train runs under torchrun (predict has --workers)"
        )
    if version:
        typer.echo(f"mammodensity {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


_GROUPS: dict[str, list[Callable[..., None]]] = {
    "Read exams": [reading.predict],
    "Data": [data.check, data.prepare, data.segment, data.phantom],
    "Train": [training.train, training.recipe, training.train_default],
    "Audit": [
        audit.evaluate,
        audit.calibrate,
        studies.compare,
        studies.readers,
        studies.drift,
        studies.sample_size,
        audit.report,
    ],
    "Explain": [explaining.explain, explaining.counterfactual, explaining.explain_benchmark],
    "Clinic": [clinic.dicom, clinic.serve],
    "Maintain": [training.import_keras, training.export, training.schema],
}
for _panel, _functions in _GROUPS.items():
    for _function in _functions:
        app.command(_function.__name__.replace("_", "-"), rich_help_panel=_panel)(_function)


def _repeat_projection_option(arguments: list[str]) -> list[str]:
    """``--projection CC_R MLO_R`` as ``--projection CC_R --projection MLO_R``, which the parser understands."""
    spread: list[str] = []
    listing = False
    for argument in arguments:
        if listing and argument in PROJECTIONS and spread[-1] != "--projection":
            spread.append("--projection")
        elif argument not in PROJECTIONS:
            listing = argument == "--projection"
        spread.append(argument)
    return spread


def main(arguments: list[str] | None = None) -> None:
    """Run a command; every mistake of the user's ends in one line on standard error and a non-zero exit code."""
    # Threads that wait must not spin: on a shared machine that makes torch up to fifty times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Names in other scripts have letters that the pictures' font lacks; a box stands for them there.
    warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from", category=UserWarning)
    words = _repeat_projection_option(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(words, standalone_mode=False, prog_name="mammodensity")
    except MammodensityError as error:
        _fail(str(error), error.exit_code)
    except TyperException as error:
        message = error.format_message().replace("Value error, ", "")  # pydantic's words, not ours
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "mammodensity"
        _fail(f"{message} (see {command} --help)", OptionError.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _fail(_STOPPED, INTERRUPTED)
    except BrokenPipeError:
        with suppress(OSError):
            sys.stderr.close()
        sys.exit(1)
    except UnicodeEncodeError:
        _fail("a file or folder name is not valid UTF-8; rename it (`mammodensity check` may name it)", 1)
    except Exception as error:
        reason = shortage(error)
        if reason is None and isinstance(error, OSError):
            reason = f"{error.filename or 'a file'}: {error.strerror or error}; check that it can be read and written"
        if reason is None:
            raise
        _fail(reason, 1)
    if code == INTERRUPTED:  # the parser's way to say Ctrl-C
        _fail(_STOPPED, INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> None:
    place = launched()
    if place is None or place.rank == 0:
        print(f"mammodensity: {printable(' '.join(message.split()))}", file=sys.stderr)
    elif code != OptionError.exit_code:  # options are the same for all processes, and the first tells what is wrong
        process = f"process {place.rank} of {place.size}, counted from 0"
        print(f"mammodensity: {process}: {printable(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(code)
