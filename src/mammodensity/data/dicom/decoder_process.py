"""The program of the decoding process: it receives codestreams and answers with their stored values.

Run by path, so that it imports nothing of this package. Requests and answers are JSON, each followed by the bytes. An
abort ends this process and nothing else.
"""

from __future__ import annotations

import json
import sys
import warnings
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

_MEMORY_BYTES = 6_000_000_000  # the largest image admitted takes less than 2 GB


def decode(request: dict[str, Any], codestream: bytes) -> tuple[dict[str, Any], bytes]:
    """Decode one image; the answer gives shape and type of the values."""
    import numpy as np

    if request["plugin"] == "imagecodecs":
        array = np.asarray(import_module("imagecodecs").jpeg_decode(codestream)).astype(np.uint16)
    elif request["plugin"] == "openjpeg":
        array = import_module("j2k_decoder").decode(codestream)  # beside this file
    elif request["plugin"] == "rle":
        size = (request["options"][name] for name in ("rows", "columns", "samples_per_pixel", "bits_allocated"))
        array = import_module("rle_decoder").decode(codestream, *size)  # beside this file
    else:
        from pydicom.encaps import encapsulate
        from pydicom.pixels.decoders.base import get_decoder
        from pydicom.uid import UID

        decoder = get_decoder(UID(request["syntax"]))
        array, _ = decoder.as_array(
            encapsulate([codestream], has_bot=False),
            raw=True,
            decoding_plugin=request["plugin"],
            **request["options"],
        )
        array = np.asarray(array)
    values = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    return {"shape": list(values.shape), "dtype": values.dtype.str}, values.tobytes()


def main(requests: Connection, answers: Connection) -> None:
    """Answer requests until there are no more."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass  # no such limits on this system
    warnings.simplefilter("ignore")
    with suppress(EOFError, OSError):  # the other process has ended
        while True:
            request, codestream = json.loads(requests.recv_bytes()), requests.recv_bytes()
            try:
                answer, content = decode(request, codestream)
            except (KeyboardInterrupt, SystemExit):
                return
            except BaseException as error:  # decoders in Rust panic beside Exception
                answer, content = {"error": " ".join(str(error).split())[:200] or type(error).__name__}, b""
            answers.send_bytes(json.dumps(answer).encode())
            answers.send_bytes(content)


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])), Connection(int(sys.argv[2])))
