"""The layers a Keras model file describes: what they are, and which takes which one's output.

A description is only read: no class it names is imported and nothing in it is executed. Layer names and the order in
which layers are listed carry no meaning.

References
----------
Keras 2 writes ``inbound_nodes`` as nested lists ``[[["name", 0, 0, {}], ...]]``, Keras 3 as calls whose tensors carry a
``keras_history``; both are seen in the files themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mammodensity.errors import KerasFileError

_ALIASES = {"BatchNormalizationV1": "BatchNormalization", "BatchNormalizationV2": "BatchNormalization"}  # tf.keras 1.x
_ABSENT = {"groups": 1, "dtype": "float32", "keepdims": False, "noise_shape": None}  # keys older writers leave out


@dataclass(frozen=True)
class KerasLayer:
    """One layer as the file describes it."""

    position: int
    """Place in the file's list, from 1."""
    name: str
    kind: str
    """Class name, such as ``"Conv2D"``."""
    config: Mapping[str, Any]
    inputs: tuple[str, ...]
    """Names of the layers whose outputs it takes."""
    calls: int
    """How often it is used."""
    arguments: tuple[str, ...]
    """What else it is called with, such as ``"training=True"``; None and False are left out."""

    def setting(self, key: str) -> Any:
        """One entry of the configuration in a plain form: tuples, numbers, and names of functions and types.

        >>> KerasLayer(1, "leaky", "LeakyReLU", {"alpha": {"value": 0.3}}, (), 1, ()).setting("slope")
        0.3
        """
        if key == "slope":
            key = "negative_slope" if "negative_slope" in self.config else "alpha"
        value = self.config.get(key, _ABSENT.get(key, "not given"))
        for inner in ("config", "name", "value"):  # a function, a dtype policy {"config": {"name": ...}}, a numpy value
            if isinstance(value, dict) and inner in value:
                value = value[inner]
        return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True)
class KerasGraph:
    """The layers of a model, by name, and who takes whose output."""

    layers: Mapping[str, KerasLayer]
    consumers: Mapping[str, tuple[KerasLayer, ...]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read_graph(model_config: Any) -> KerasGraph:
    """Read the ``model_config`` of a whole-model file, already parsed from JSON.

    Raises
    ------
    KerasFileError
        It describes no functional model, or not in a way Keras writes; the message does not name the file.
    """
    try:
        kind, config = model_config["class_name"], model_config["config"]
        if kind not in ("Model", "Functional"):
            raise KerasFileError(f"expected a functional Keras model, found one of class {shortened(kind)}")
        layers: dict[str, KerasLayer] = {}
        for position, entry in enumerate(config["layers"], 1):
            layer = _read_layer(position, entry)
            if layer.name in layers:
                raise KerasFileError(f"two layers are named {shortened(layer.name)}; save the model again")
            layers[layer.name] = layer
        consumers: dict[str, list[KerasLayer]] = {name: [] for name in layers}
        for layer in layers.values():
            for name in dict.fromkeys(layer.inputs):  # a layer used twice is refused where it is met
                consumers[name].append(layer)
        ends = [_references(config[key])[0] for key in ("input_layers", "output_layers")]
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
        reason = shortened(f"{type(error).__name__}: {error}")
        raise KerasFileError(f"its model_config is not what Keras writes ({reason}); save the model again") from error
    for name in (*ends[0], *ends[1]):
        if name not in layers:
            raise KerasFileError(f"its model_config has no layer {shortened(name)}; save the model again")
    return KerasGraph(layers, {name: tuple(after) for name, after in consumers.items()}, ends[0], ends[1])


def _read_layer(position: int, entry: Mapping[str, Any]) -> KerasLayer:
    config, nodes = dict(entry["config"]), entry["inbound_nodes"]
    kind = _ALIASES.get(entry["class_name"], entry["class_name"])
    registered = entry.get("registered_name") or ""
    if ">" in registered:  # somebody's own class, whatever it is called
        kind = registered
    name = entry["name"] if "name" in entry else config["name"]
    inputs, arguments = _references(nodes)
    return KerasLayer(position, str(name), str(kind), config, inputs, len(nodes), arguments)


def _references(nodes: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The layers named anywhere in a node, in either serialisation, and everything else that says something."""
    inputs: list[str] = []
    others: list[str] = []

    def visit(value: Any, label: str) -> None:
        if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
            inputs.append(str(value["config"]["keras_history"][0]))
        elif isinstance(value, dict):
            for key, item in value.items():
                visit(item, f"{key}=")
        elif isinstance(value, list) and [type(item) for item in value[:3]] == [str, int, int]:
            inputs.append(value[0])
            visit(value[3:], "")
        elif isinstance(value, list):
            for item in value:
                visit(item, label)
        elif value is not None and value is not False:
            others.append(f"{label}{value!r}")

    visit(nodes, "")
    return tuple(inputs), tuple(others)


def shortened(value: Any) -> str:
    """``repr`` on one line, cut where a damaged file would fill the screen."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
