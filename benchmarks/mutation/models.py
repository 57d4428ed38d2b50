"""Mutations of model folders: JSON, tensors and bytes; the checksum is right where an attacker would make it right."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mammodensity.anatomy.density import DEFAULT_MAP
from mammodensity.terms import PROJECTIONS, Projection
from mutation.images import BYTE_CHANGES, Random, choose, cut
from mutation.tables import TableMutant

NETWORK = "CC_L/network.safetensors"
Json = dict[str, Any]


@cache
def trained_model() -> dict[str, bytes]:
    """Files of a small trained model of one projection, with a calibration."""
    import torch

    from mammodensity.anatomy.network_input import PreprocessSpec
    from mammodensity.models.checkpoint import Checkpoint, save_checkpoint
    from mammodensity.models.network import NetworkSpec, ResidualNetwork
    from mammodensity.results.calibration import fit_calibration, write_calibration

    torch.manual_seed(3)
    network = ResidualNetwork(NetworkSpec(stem=4, widths=(4, 4), outputs=(8, 8), depths=(1, 1))).eval()
    rng = np.random.default_rng(2)
    scores = rng.dirichlet(np.ones(4), 60)
    fitted = fit_calibration({(Projection.CC_L,): scores}, scores.argmax(axis=1), fusion="mean", policy="mean")
    with TemporaryDirectory() as folder:
        save_checkpoint(
            Path(folder, "CC_L"), Checkpoint(network, PROJECTIONS[1], PreprocessSpec(rows=32, columns=32), {"epoch": 3})
        )
        write_calibration(Path(folder), fitted)
        return _files(Path(folder))


@cache
def site_model() -> dict[str, bytes]:
    """Files of the default model with the category map of a site."""
    from mammodensity.models.default import write_category_map

    with TemporaryDirectory() as folder:
        write_category_map(Path(folder), DEFAULT_MAP, {"exams": 40})
        return _files(Path(folder))


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


# --- JSON -----------------------------------------------------------------------------------------------------------

_VALUES: tuple[Any, ...] = (
    *(None, "", "abc", [], {}, True, -1, 0, 1e308, -1e308, float("nan"), float("inf"), 10**400, [[[]]], "1,5"),
    *("NaN", [float("nan")] * 3, 10_000_000, [1, 2]),
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to every value in JSON."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in items for place in _places(inner, (*path, key)))]


def _with_value(rng: Random, content: Json, where: str = "") -> tuple[Json, str]:
    """Another value, or none, at a random place; below ``where`` if that is named."""
    changed = json.loads(json.dumps(content))
    places = [place for place in _places(changed) if place and (not where or place[0] == where)]
    *outer, last = places[int(rng.integers(len(places)))]
    holder = changed
    for key in outer:
        holder = holder[key]
    if rng.random() < 0.2:
        del holder[last]
        return changed, f"without {'.'.join(map(str, [*outer, last]))}"
    holder[last] = _VALUES[int(rng.integers(len(_VALUES)))]
    return changed, f"{'.'.join(map(str, [*outer, last]))} is {str(holder[last])[:30]}"


def _json_bytes(value: Any) -> bytes:
    import sys

    sys.set_int_max_str_digits(0)
    return json.dumps(value, indent=2).encode()


_TEXTS: dict[str, Callable[[bytes], bytes]] = {
    "deeply nested": lambda content: b"[" * 100_000 + b"]" * 100_000 + content[:0],
    "no JSON": lambda content: content.replace(b":", b"=", 1),
    "a list": lambda content: b"[" + content + b"]",
    "cut": lambda content: content[: len(content) * 2 // 3],
    "a long number": lambda content: content.replace(b": 0", b": " + b"9" * 5000, 1),
    "UTF-16": lambda content: content.decode().encode("utf-16"),
    "empty": lambda content: content[:0],
    "null": lambda content: b"null" + content[:0],
}


def model_json(rng: Random) -> TableMutant:
    """Calibration, category map, or the description in a network's file with a checksum that fits."""
    kind = choose(rng, ("calibration.json", "category_map.json", "network", "network"))
    if kind == "network":
        tensors, description = _network()
        where = choose(rng, ("network", "preprocess", "training", "categories", "format", "projection"))
        changed, words = _with_value(rng, description, where)
        if rng.random() < 0.2:
            changed = {**description, "network": {**description["network"], **_huge(rng)}}
            words = f"network {changed['network']}"
        return TableMutant({**_uncalibrated(), NETWORK: _packed(tensors, changed)}, words[:200])
    files = trained_model() if kind == "calibration.json" else site_model()
    if rng.random() < 0.3:
        name = choose(rng, tuple(_TEXTS))
        return TableMutant({**files, kind: _TEXTS[name](files[kind])}, f"{kind}: {name}")
    changed, words = _with_value(rng, json.loads(files[kind]))
    return TableMutant({**files, kind: _json_bytes(changed)}, f"{kind}: {words}")


def _huge(rng: Random) -> Json:
    """Shapes that take all memory or time."""
    shapes: tuple[Json, ...] = (
        {"depths": [10_000_000, 2]},
        {"depths": [1] * 100_000, "widths": [4] * 100_000, "outputs": [8] * 100_000},
        {"widths": [2**31, 4]},
        {"outputs": [8, 2**40]},
        {"stem": 10**9},
    )
    return shapes[int(rng.integers(len(shapes)))]


# --- tensors --------------------------------------------------------------------------------------------------------


def _network() -> tuple[dict[str, Any], Json]:
    from mammodensity.tensors import read_tensors

    with TemporaryDirectory() as folder:
        path = Path(folder, "network.safetensors")
        path.write_bytes(trained_model()[NETWORK])
        return read_tensors(path)


def _uncalibrated() -> dict[str, bytes]:
    """The trained model without its calibration, which holds hashes of the networks."""
    return {name: content for name, content in trained_model().items() if name != "calibration.json"}


def _packed(tensors: dict[str, Any], description: Json) -> bytes:
    """A network's file whose checksum fits whatever is in it; NaN in the JSON included."""
    import torch
    from safetensors.torch import save

    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return bytes(save(tensors, {"mammodensity": json.dumps({**description, "sha256": digest.hexdigest()})}))


def model_tensors(rng: Random) -> TableMutant:
    """A tensor that no training writes: not finite, of another shape or type, absent; the checksum fits."""
    import torch

    tensors, description = _network()
    tensors = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    name = choose(rng, tuple(tensors))
    tensor = tensors[name]
    kind = choose(rng, ("nan", "inf", "-inf", "huge", "type", "shape", "absent", "more", "name", "double"))
    if kind in ("nan", "inf", "-inf", "huge") and tensor.is_floating_point():
        value = 3e38 if kind == "huge" else float(kind)
        if rng.random() < 0.5:
            tensor.reshape(-1)[int(rng.integers(tensor.numel()))] = value
        else:
            tensor.fill_(value)
    elif kind == "type":
        tensors[name] = tensor.to(torch.int32 if rng.random() < 0.5 else torch.float16)
    elif kind == "shape":
        tensors[name] = tensor.reshape(-1)[None].contiguous()
    elif kind == "double":
        tensors[name] = torch.cat([tensor.reshape(-1)] * 2)
    elif kind == "more":
        tensors["other.weight"] = tensor.clone()
    elif kind == "name":
        tensors[name + ".x"] = tensors.pop(name)
    else:
        del tensors[name]
    return TableMutant({**_uncalibrated(), NETWORK: _packed(tensors, description)}, f"{name}: {kind}")


def model_bytes(rng: Random) -> TableMutant:
    """Bytes of a model's file, as a bad disk or copy changes them."""
    files = trained_model()
    name = choose(rng, (NETWORK, NETWORK, "calibration.json"))
    change = {**BYTE_CHANGES, "cut": cut}[choose(rng, (*BYTE_CHANGES, "cut"))]
    content, words = change(rng, files[name], (0, len(files[name])))
    return TableMutant({**files, name: content}, f"{name}: {words}")
