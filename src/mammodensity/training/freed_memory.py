"""What the C library does with the memory of freed tensors: kept for the next step, or given back at once.

By default glibc keeps freed blocks of up to 32 MB and gives larger ones back to the system, which must clear them page
by page when the next step asks again.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # names of glibc's mallopt
_OWN_PAGES_FROM = 16 << 20
_USUAL_MMAP_MAX = 65536
_NEVER = 2**31 - 1


def keep_memory() -> bool:
    """Have freed tensors kept for the next ones, for the rest of the process; False where the C library is another.

    A step then takes a quarter less time, and the process holds up to a quarter more memory (``docs/benchmarks.md``).
    """
    return _set({_MMAP_MAX: 0, _TRIM_THRESHOLD: _NEVER})


def return_large_blocks() -> bool:
    """Have freed tensors of 16 MB and more given back at once, for the rest of the process; False as above.

    Smaller ones are kept until ``return_kept_memory``. With all blocks kept, and the gaps between those in use, the
    lean step held a third more; with none, half of its time went to page faults (``docs/benchmarks.md``).
    """
    return _set({_MMAP_MAX: _USUAL_MMAP_MAX, _MMAP_THRESHOLD: _OWN_PAGES_FROM, _TRIM_THRESHOLD: _OWN_PAGES_FROM})


def ask_for_large_pages() -> None:
    """Have tensors lie in pages of 2 MB where the system has such; before the first tensor of the process, or never.

    Memory that comes from the system then costs a page fault each 2 MB, not each 4 KB. PyTorch reads the variable once.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def return_kept_memory() -> None:
    """Give the memory of freed tensors that is kept back to the system, once."""
    if sys.platform.startswith("linux"):
        with suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def _set(values: dict[int, int]) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    return all(mallopt(name, value) for name, value in values.items())
