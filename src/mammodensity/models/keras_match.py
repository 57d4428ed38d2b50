"""The layers a Keras model file describes: what they are, and which takes which one's output.

A description is only read: no class it names is imported and nothing in it is executed. Layer names and the order in
which layers are listed carry no meaning.

References
----------
Keras 2 writes ``inbound_nodes`` as nested lists ``[[["name", 0, 0, {}], ...]]``, Keras 3 as calls whose tensors carry a
``keras_history``; both are seen in the files themselves.

A Keras model compared with the origin's network, layer by layer along the way from input to output.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mammodensity.errors import KerasFileError, OptionError
from mammodensity.models.network import NetworkSpec

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


_PLANE: dict[str, tuple[Any, ...]] = {"data_format": ("channels_last",)}
_FIXED: dict[str, dict[str, tuple[Any, ...]]] = {  # what our network has fixed: the settings that mean the same
    "InputLayer": {},
    "Conv2D": {"padding": ("same",), "dilation_rate": ((1, 1),), "activation": ("linear",), "use_bias": (True,)}
    | _PLANE,
    "BatchNormalization": {"axis": (-1, 3, (3,), (-1,)), "epsilon": (1e-3,), "center": (True,), "scale": (True,)},
    "LeakyReLU": {"slope": (0.3,)},
    "MaxPooling2D": {"pool_size": ((3, 3),), "strides": ((2, 2),), "padding": ("same",)} | _PLANE,
    "Add": {},
    "Dropout": {"noise_shape": (None,)},
    "GlobalAveragePooling2D": {"keepdims": (False,)} | _PLANE,
    "Dense": {"units": (4,), "use_bias": (True,), "activation": ("softmax", "linear")},
    "Activation": {"activation": ("softmax",)},
    "Softmax": {"axis": (-1, 1, (-1,))},
}
_LARGEST_COUNT = 65536  # filters of one layer; more is a damaged file, not a network


@dataclass(frozen=True)
class MatchedNetwork:
    """A Keras model recognised as a member of the family ``NetworkSpec`` describes."""

    spec: NetworkSpec
    size: tuple[int | None, int | None]
    """Height and width of the input; None where the model leaves it open."""
    modules: Mapping[str, KerasLayer]
    """Every layer with weights, by the name of our module."""


def match_network(graph: KerasGraph) -> MatchedNetwork:
    """Follow the graph from input to output, comparing every layer with the origin's network.

    Raises
    ------
    KerasFileError
        It is another network; the first difference is named, the file is not.
    """
    walk = _Walk(graph)
    entry, channels, size = walk.entry()
    stem = walk.convolution("conv", walk.after(entry), 3, 2)
    norm = walk.norm("norm", stem)
    leak = walk.leak(norm)
    layer = walk.take(walk.after(leak), "MaxPooling2D", "a 3x3 max pooling at stride 2")
    while not walk.stages or len(graph.consumers[layer.name]) > 1:
        layer = walk.block(layer)
    dropout = walk.head(layer)
    try:
        spec = NetworkSpec(
            channels=channels,  # type: ignore[arg-type]  # others are refused
            stem=_count(stem, "filters"),
            widths=tuple(stage[0].width for stage in walk.stages),
            outputs=tuple(stage[0].outputs for stage in walk.stages),
            depths=tuple(len(stage) for stage in walk.stages),
            cardinality=walk.stages[0][0].groups,
            dropout=dropout,
            # Keras counts the old value. The first layer's stands for all: it matters in further training only.
            norm_momentum=round(1 - _number(norm, "momentum"), 9),
        )
    except OptionError as error:
        raise KerasFileError(f"it is no network of the origin's family: {error}") from error
    return MatchedNetwork(spec, size, walk.modules)


@dataclass(frozen=True)
class _Block:
    width: int
    outputs: int
    groups: int


class _Walk:
    """The way from input to output, with what was met so far. Every layer may be taken once, so the way ends."""

    def __init__(self, graph: KerasGraph) -> None:
        self.graph = graph
        self.taken: set[str] = set()
        self.modules: dict[str, KerasLayer] = {}
        self.stages: list[list[_Block]] = []

    def take(
        self, layer: KerasLayer, kind: str, what: str, inputs: int = 1, wanted: Mapping[str, Any] | None = None
    ) -> KerasLayer:
        """Check that ``layer`` is ``what``: its class, how it is called, what our network has fixed, and ``wanted``."""
        if layer.kind != kind:
            raise _difference(layer, what, f"a layer of class {shortened(layer.kind)}")
        if layer.name in self.taken or layer.calls > 1:
            raise _difference(layer, f"{what} used once", "it used several times")
        if len(layer.inputs) != inputs:
            raise _difference(layer, f"{what} with inputs: {inputs}", f"inputs: {len(layer.inputs)}")
        if layer.arguments:
            raise _difference(layer, f"{what} called on its input alone", shortened(layer.arguments[0]))
        exact = {key: (value,) for key, value in (wanted or {}).items()}
        for key, allowed in {**exact, "dtype": ("float32",), **_FIXED[kind]}.items():
            found = layer.setting(key)
            if not any(_same(found, value) for value in allowed):
                raise _difference(layer, f"{what} with {key} {allowed[0]!r}", f"{key} {shortened(found)}")
        self.taken.add(layer.name)
        return layer

    def after(self, layer: KerasLayer, what: str = "one layer") -> KerasLayer:
        """The one layer that takes the output of ``layer``."""
        consumers = self.graph.consumers[layer.name]
        if len(consumers) != 1:
            raise _difference(layer, f"{what} after it", _kinds(consumers))
        return consumers[0]

    def entry(self) -> tuple[KerasLayer, int, tuple[int | None, int | None]]:
        inputs, outputs = self.graph.inputs, self.graph.outputs
        if len(inputs) != 1 or len(outputs) != 1:
            raise KerasFileError(f"expected one input and one output, found {len(inputs)} and {len(outputs)}")
        layer = self.take(self.graph.layers[inputs[0]], "InputLayer", "an input layer", inputs=0)
        shape = layer.config.get("batch_shape", layer.config.get("batch_input_shape"))
        sizes = shape[1:3] if isinstance(shape, list) and len(shape) == 4 and shape[3] in (1, 3) else ["unusable"]
        if not all(size is None or type(size) is int for size in sizes):
            raise _difference(layer, "an input of shape (any, rows, columns, 1 or 3)", f"shape {shortened(shape)}")
        return layer, int(shape[3]), (shape[1], shape[2])

    def convolution(self, module: str, layer: KerasLayer, kernel: int, stride: int, **wanted: int | None) -> KerasLayer:
        """Take a convolution; ``wanted`` may fix ``filters`` and ``groups`` (None: any number)."""
        what = f"a {kernel}x{kernel} convolution at stride {stride}"
        settings = {"kernel_size": (kernel, kernel), "strides": (stride, stride)}
        counts = {key: value for key, value in wanted.items() if value is not None}
        self.modules[module] = self.take(layer, "Conv2D", what, wanted=settings | counts)
        return layer

    def norm(self, module: str, convolution: KerasLayer) -> KerasLayer:
        layer = self.after(convolution, "a batch normalisation")
        self.modules[module] = self.take(layer, "BatchNormalization", "a batch normalisation")
        return layer

    def leak(self, before: KerasLayer) -> KerasLayer:
        return self.take(self.after(before, "a LeakyReLU"), "LeakyReLU", "a LeakyReLU")

    def branches(self, entry: KerasLayer) -> tuple[KerasLayer, KerasLayer | None]:
        """First layer of a block's main path, and of its shortcut (None: the input itself)."""
        consumers = self.graph.consumers[entry.name]
        if len(consumers) != 2:
            raise _difference(entry, "the two branches of a residual block after it", _kinds(consumers))
        one, other = consumers
        if "Add" in (one.kind, other.kind):
            return (one if other.kind == "Add" else other), None
        return (other, one) if self.leads_to_sum(one) else (one, other)

    def leads_to_sum(self, layer: KerasLayer) -> bool:
        """Whether a sum comes one or two layers on: so it does in a shortcut, not in the main path."""
        for _ in range(2):
            consumers = self.graph.consumers[layer.name]
            if len(consumers) != 1:
                return False
            layer = consumers[0]
            if layer.kind == "Add":
                return True
        return False

    def block(self, entry: KerasLayer) -> KerasLayer:
        """Take one bottleneck block and return its last layer; a shortcut with a convolution begins a new stage."""
        main, shortcut = self.branches(entry)
        if shortcut is not None:
            self.stages.append([])
        elif not self.stages:
            raise _difference(
                main, "beside it a shortcut with a 1x1 convolution", "a sum with the block's input itself"
            )
        stage = self.stages[-1]
        name = f"stages.{len(self.stages) - 1}.{len(stage)}"
        stride = 2 if shortcut is not None and len(self.stages) > 1 else 1
        conv1 = self.convolution(f"{name}.conv1", main, 1, 1, filters=stage[0].width if stage else None, groups=1)
        leak1 = self.leak(self.norm(f"{name}.norm1", conv1))
        width, groups = _count(conv1, "filters"), self.stages[0][0].groups if self.stages[0] else None
        conv2 = self.convolution(f"{name}.conv2", self.after(leak1), 3, stride, filters=width, groups=groups)
        leak2 = self.leak(self.norm(f"{name}.norm2", conv2))
        outputs = stage[0].outputs if stage else None
        conv3 = self.convolution(f"{name}.conv3", self.after(leak2), 1, 1, filters=outputs, groups=1)
        norm3 = self.norm(f"{name}.norm3", conv3)
        outputs, beside = _count(conv3, "filters"), entry
        if shortcut is not None:
            self.convolution(f"{name}.shortcut.0", shortcut, 1, stride, filters=outputs, groups=1)
            beside = self.norm(f"{name}.shortcut.1", shortcut)
        total = self.take(self.after(norm3, "a sum"), "Add", "a sum of main path and shortcut", inputs=2)
        if set(total.inputs) != {norm3.name, beside.name}:
            wanted = f"the sum of {shortened(norm3.name)} and {shortened(beside.name)}"
            raise _difference(total, wanted, f"the sum of {' and '.join(map(shortened, total.inputs))}")
        stage.append(_Block(width, outputs, _count(conv2, "groups")))
        return self.leak(total)

    def head(self, last: KerasLayer) -> float:
        """Take dropout (if any), pooling, dense layer and softmax; see that nothing is left; return the dropout."""
        layer, dropout = self.after(last, "a dropout or global average pooling"), 0.0
        if layer.kind == "Dropout":
            dropout = _number(self.take(layer, "Dropout", "a dropout"), "rate")
            layer = self.after(layer, "a global average pooling")
        self.take(layer, "GlobalAveragePooling2D", "a global average pooling (or dropout, then that)")
        dense = self.after(layer, "a dense layer")
        end = self.modules["head"] = self.take(dense, "Dense", "a dense layer of the four categories")
        if dense.setting("activation") == "linear":
            end = self.after(dense, "a softmax")
            self.take(end, "Softmax" if end.kind == "Softmax" else "Activation", "a softmax")
        if self.graph.consumers[end.name] or self.graph.outputs[0] != end.name:
            after = _kinds(self.graph.consumers[end.name])
            raise _difference(
                end, "the model to end here", f"{after} after it, output {shortened(self.graph.outputs[0])}"
            )
        for extra in self.graph.layers.values():
            if extra.name not in self.taken:
                raise _difference(extra, "no further layer", f"a layer of class {shortened(extra.kind)}")
        return dropout


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, float) and isinstance(found, int | float):
        return math.isclose(found, wanted, rel_tol=1e-6)  # some writers pass 0.3 through float32
    return bool(found == wanted)


def _count(layer: KerasLayer, key: str) -> int:
    found = layer.setting(key)
    if type(found) is not int or not 1 <= found <= _LARGEST_COUNT:
        raise _difference(layer, f"{key} from 1 to {_LARGEST_COUNT}", shortened(found))
    return found


def _number(layer: KerasLayer, key: str) -> float:
    found = layer.setting(key)
    if type(found) not in (int, float):
        raise _difference(layer, f"a number for {key}", shortened(found))
    return float(found)


def _difference(layer: KerasLayer, expected: str, found: str) -> KerasFileError:
    where = f"layer {layer.position} {shortened(layer.name)}"
    return KerasFileError(f"{where}: expected {expected}, found {found}; only the origin's network can be imported")


def _kinds(layers: Iterable[KerasLayer]) -> str:
    return ", ".join(layer.kind for layer in layers) or "nothing"
