"""The exception tree.

Every mistake a user can make is raised as one of these, with one line that says what was being done, what was found,
what was expected and what to do. Messages name files and exams, never patient data. The command line prints the line
and exits with the class's ``exit_code``::

    MammodensityError
    ├── InputError            what was given cannot be used
    │   ├── ImageError        one image file
    │   │   └── DicomError    a DICOM file that is refused
    │   ├── LayoutError       a folder or manifest of images
    │   ├── TableError        a table of scores or labels
    │   ├── CheckpointError   a network or model on disk
    │   └── KerasFileError    an HDF5 file written by Keras
    ├── TrainingError         a training run that cannot go on
    ├── OptionError           an option or argument that makes no sense (exit code 2)
    ├── DeviceError           a device that was asked for by name and is absent
    ├── OutputError           a result that cannot be written
    └── Interrupted           Ctrl-C; says what was kept (exit code 130)
"""

from __future__ import annotations

import errno
import unicodedata
from collections.abc import Iterable
from typing import Any

INTERRUPTED = 130
"""The exit code that shells report for Ctrl-C."""
_NOT_PRINTED = ("Cc", "Cf", "Cs")  # control, format (direction of writing), and bytes of a name that are no UTF-8


def printable(text: str) -> str:
    r"""Text for a terminal: control and format characters, as a file's name may hold, are written as escapes.

    >>> printable("a\nb\x1b[31m")
    'a\\nb\\x1b[31m'
    """
    return "".join(
        letter.encode("unicode_escape").decode() if unicodedata.category(letter) in _NOT_PRINTED else letter
        for letter in text
    )


class MammodensityError(Exception):
    """Root of the tree; the message is one line meant for the user."""

    exit_code = 1


class InputError(MammodensityError):
    """An input that cannot be used."""


class ImageError(InputError):
    """An image file that cannot be read, or whose content is not a usable grey-scale image.

    ``code`` names the kind of fault for ``mammodensity check``: unreadable, colour, size, several, depth, constant,
    no-breast, no-mammogram, inverted.
    """

    def __init__(self, message: str, code: str = "unreadable") -> None:
        super().__init__(message)
        self.code = code


class DicomError(ImageError):
    """A DICOM file that is refused; ``code`` is one of those of ``docs/dicom.md``."""


class LayoutError(InputError):
    """A folder or manifest that does not hold exams in a known arrangement."""


class TableError(InputError):
    """A table of scores or labels with wrong columns, values or rows."""


class CheckpointError(InputError):
    """A checkpoint that is absent, damaged, or not for what it is asked to do."""


class KerasFileError(InputError):
    """An HDF5 file that is not a whole Keras model of INFN's network."""


class TrainingError(MammodensityError):
    """A training run that cannot go on."""


class OptionError(MammodensityError):
    """An option or argument that makes no sense."""

    exit_code = 2


class DeviceError(MammodensityError):
    """A device asked for by name that this machine does not have."""


class OutputError(MammodensityError):
    """A result that cannot be written (no space, no permission, already there)."""


class Interrupted(MammodensityError):  # noqa: N818  (it is no error of anybody's)
    """The user pressed Ctrl-C; the message says what was kept and how to go on.

    ``done`` is what the job had made until then, where it returns a value.
    """

    exit_code = INTERRUPTED

    def __init__(self, message: str, done: Any = None) -> None:
        super().__init__(message)
        self.done = done


_NO_MEMORY = "not enough memory; use a smaller --size, a smaller batch, fewer images or fewer workers (see ulimit -v)"
_NO_THREADS = "the system allows no more threads or processes; use fewer workers, or raise the limit (ulimit -u, -v)"
_SHORTAGES = {
    errno.ENOMEM: _NO_MEMORY,
    errno.EAGAIN: _NO_THREADS,
    errno.EMFILE: "the system allows no more open files; use fewer workers, or raise the limit (ulimit -n)",
    errno.ENOSPC: "no space is left where the program writes: the output, temporary files, or /dev/shm; free some",
    errno.ENFILE: "the system allows no more open files; close other programs",
}
_MEMORY_WORDS = ("memory", "failed to map segment", "CUDNN_STATUS_ALLOC_FAILED")  # of torch and of the dynamic linker


def shortage(error: BaseException) -> str | None:
    """Say in one line what the machine ran out of; None where an error means something else."""
    if isinstance(error, OSError):
        return None if error.filename else _SHORTAGES.get(error.errno or 0)
    if isinstance(error, RuntimeError) and "No space left" in str(error):
        return _SHORTAGES[errno.ENOSPC]
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return _NO_THREADS
    if isinstance(error, (RuntimeError, ImportError)) and any(word in str(error) for word in _MEMORY_WORDS):
        return _NO_MEMORY
    return _NO_MEMORY if isinstance(error, MemoryError) else None


def one_line(error: BaseException) -> str:
    """The message of an error from elsewhere, shortened to one line; the name of its type where it has none."""
    return " ".join(str(error).split())[:120] or type(error).__name__


def require_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise ``OptionError`` unless a value is one of the choices."""
    if value not in (allowed := tuple(choices)):
        raise OptionError(f"{name} must be one of {', '.join(allowed)}. Got {value!r} instead.")
