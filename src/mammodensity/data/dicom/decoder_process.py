"""The program of the decoding process: codestreams on standard input, stored values on standard output.

Run by path, so that it imports nothing of this package. Each request and each answer is 8 bytes of length, that many
bytes of JSON, and the bytes whose number the JSON gives as ``bytes``. What a decoder prints goes nowhere; an abort ends
this process and nothing else.
"""

from __future__ import annotations

import json
import struct
import sys
import warnings
from importlib import import_module
from typing import Any, BinaryIO

_MEMORY_BYTES = 6_000_000_000  # the largest image admitted takes less than 2 GB


def decode(request: dict[str, Any], codestream: bytes) -> tuple[dict[str, Any], bytes]:
    """Decode one image; the answer gives shape and type of the values."""
    import numpy as np

    if request["plugin"] == "imagecodecs":
        array = np.asarray(import_module("imagecodecs").jpeg_decode(codestream)).astype(np.uint16)
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
    content = values.tobytes()
    return {"shape": list(values.shape), "dtype": values.dtype.str, "bytes": len(content)}, content


def read_message(stream: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    """The next message, or None at the end."""
    head = stream.read(8)
    if len(head) < 8:
        return None
    fields = json.loads(stream.read(struct.unpack("<Q", head)[0]))
    return fields, stream.read(fields["bytes"])


def write_message(stream: BinaryIO, fields: dict[str, Any], content: bytes) -> None:
    """One message."""
    text = json.dumps(fields).encode()
    stream.write(struct.pack("<Q", len(text)) + text)
    stream.write(content)
    stream.flush()


def main() -> None:
    """Answer requests until the input ends."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass  # no such limits on this system
    warnings.simplefilter("ignore")
    answers = sys.stdout.buffer
    sys.stdout = sys.stderr  # nothing a decoder prints may get between the answers
    while (message := read_message(sys.stdin.buffer)) is not None:
        try:
            fields, content = decode(*message)
        except (KeyboardInterrupt, SystemExit):
            return
        except BaseException as error:  # decoders in Rust panic beside Exception
            fields, content = {"error": " ".join(str(error).split())[:200] or type(error).__name__, "bytes": 0}, b""
        write_message(answers, fields, content)


if __name__ == "__main__":
    main()
