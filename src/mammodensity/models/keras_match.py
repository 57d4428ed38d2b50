"""A Keras model description, read as a graph of layers and compared with the INFN reference network.

A description is only read: no class it names is imported and nothing in it is executed. Layer names and the order in
which layers are listed have no meaning. The comparison follows the graph from input to output and names the first
difference.

References
----------
Keras 2 writes ``inbound_nodes`` as nested lists ``[[["name", 0, 0, {}], ...]]``, Keras 3 as calls whose tensors carry a
``keras_history``, as seen in files of both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mammodensity.errors import KerasFileError, OptionError
from mammodensity.models.network import NetworkSpec

_ALIASES = {"BatchNormalizationV1": "BatchNormalization", "BatchNormalizationV2": "BatchNormalization"}  # tf.keras 1.x
_ABSENT = {"groups": 1, "dtype": "float32", "keepdims": False, "noise_shape": None}  # keys that older writers omit
_FIXED: dict[str, dict[str, list[Any]]] = {  # settings that our network fixes, with all values that mean the same
    "InputLayer": {},
    "Conv2D": {
        **{"padding": ["same"], "dilation_rate": [(1, 1)], "activation": ["linear"], "use_bias": [True]},
        "data_format": ["channels_last"],
    },
    "BatchNormalization": {"axis": [-1, 3, (3,), (-1,)], "epsilon": [1e-3], "center": [True], "scale": [True]},
    "LeakyReLU": {"slope": [0.3]},
    "MaxPooling2D": {"pool_size": [(3, 3)], "strides": [(2, 2)], "padding": ["same"], "data_format": ["channels_last"]},
    "Add": {},
    "Dropout": {"noise_shape": [None]},
    "GlobalAveragePooling2D": {"keepdims": [False], "data_format": ["channels_last"]},
    "Dense": {"units": [4], "use_bias": [True], "activation": ["softmax", "linear"]},
    "Activation": {"activation": ["softmax"]},
    "Softmax": {"axis": [-1, 1, (-1,)]},
}
_LARGEST_COUNT = 65536  # filters of one layer; a larger number means a damaged file


# The graph


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
    """Number of its uses."""
    arguments: tuple[str, ...]
    """Further arguments of its calls, such as ``"training=True"``, without None and False."""

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

    def count(self, key: str) -> int:
        """A setting that must be a number of filters or groups."""
        value = self.setting(key)
        if type(value) is not int or not 1 <= value <= _LARGEST_COUNT:
            raise self.difference(f"{key} from 1 to {_LARGEST_COUNT}", shortened(value))
        return value

    def number(self, key: str) -> float:
        """A setting that must be a number."""
        value = self.setting(key)
        if type(value) not in (int, float):
            raise self.difference(f"a number for {key}", shortened(value))
        return float(value)

    def difference(self, expected: str, actual: str) -> KerasFileError:
        """An error that names this layer; it is returned, not raised."""
        return KerasFileError(
            f"layer {self.position} {shortened(self.name)}: expected {expected}, found {actual}; "
            "only the INFN reference network can be imported"
        )


@dataclass(frozen=True)
class KerasGraph:
    """The layers of a model by name, and the layers that take the output of each."""

    layers: Mapping[str, KerasLayer]
    consumers: Mapping[str, list[KerasLayer]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read_graph(model_config: Any) -> KerasGraph:
    """Read the ``model_config`` of a whole-model file, already parsed from JSON.

    Raises
    ------
    KerasFileError
        It describes no functional model, or not as Keras writes it; the message does not name the file.
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
            for name in dict.fromkeys(layer.inputs):  # the comparison refuses an input that is used twice
                consumers[name].append(layer)
        inputs, outputs = (_references(config[key])[0] for key in ("input_layers", "output_layers"))
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
        reason = shortened(f"{type(error).__name__}: {error}")
        raise KerasFileError(f"its model_config is not what Keras writes ({reason}); save the model again") from error
    for name in (*inputs, *outputs):
        if name not in layers:
            raise KerasFileError(f"its model_config has no layer {shortened(name)}; save the model again")
    return KerasGraph(layers, consumers, inputs, outputs)


def _read_layer(position: int, entry: Mapping[str, Any]) -> KerasLayer:
    config, nodes = dict(entry["config"]), entry["inbound_nodes"]
    kind = _ALIASES.get(entry["class_name"], entry["class_name"])
    registered = entry.get("registered_name") or ""
    if ">" in registered:  # a user's own class, whatever its name
        kind = registered
    name = entry["name"] if "name" in entry else config["name"]
    inputs, arguments = _references(nodes)
    return KerasLayer(position, str(name), str(kind), config, inputs, len(nodes), arguments)


def _references(nodes: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The layers named anywhere in nodes of either form, and all other values except None and False."""
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


# The comparison


@dataclass(frozen=True)
class MatchedNetwork:
    """A Keras model that is an INFN reference network of some ``NetworkSpec``."""

    spec: NetworkSpec
    size: tuple[int | None, int | None]
    """Height and width of the input; None where the model leaves it open."""
    modules: Mapping[str, KerasLayer]
    """Every layer with weights, by the name of our module."""


def match_network(graph: KerasGraph) -> MatchedNetwork:
    """Follow the graph from input to output, comparing every layer with the INFN reference network.

    Raises
    ------
    KerasFileError
        It is another network; the message names the first difference, but not the file.
    """
    walk = _Walk(graph)
    entry, channels, size = walk.entry()
    stem, norm = walk.convolution("conv", "norm", walk.after(entry), 3, 2)
    layer = walk.take(walk.after(walk.leak(norm)), "MaxPooling2D", "a 3x3 max pooling at stride 2")
    while not walk.stages or len(graph.consumers[layer.name]) > 1:
        layer = walk.block(layer)
    dropout = walk.head(layer)
    try:
        spec = NetworkSpec(
            channels=channels,  # type: ignore[arg-type]  # entry() allows 1 and 3 only
            stem=stem.count("filters"),
            widths=tuple(stage[0].width for stage in walk.stages),
            outputs=tuple(stage[0].outputs for stage in walk.stages),
            depths=tuple(len(stage) for stage in walk.stages),
            cardinality=walk.stages[0][0].groups,
            dropout=dropout,
            # Keras states the weight of the old value. That of the first layer is used for all: it matters only if the
            # network is trained further.
            norm_momentum=round(1 - norm.number("momentum"), 9),
        )
    except OptionError as error:
        raise KerasFileError(f"it is not an INFN reference network: {error}") from error
    return MatchedNetwork(spec, size, walk.modules)


@dataclass(frozen=True)
class _Block:
    width: int
    outputs: int
    groups: int


class _Walk:
    """The way from input to output. Every layer may be taken once, so the walk ends."""

    def __init__(self, graph: KerasGraph) -> None:
        self.graph = graph
        self.taken: set[str] = set()
        self.modules: dict[str, KerasLayer] = {}
        self.stages: list[list[_Block]] = []

    def take(self, layer: KerasLayer, kind: str, what: str, inputs: int = 1, /, **wanted: Any) -> KerasLayer:
        """Check that ``layer`` is ``what``: its class, its calls, the settings of ``_FIXED``, and those ``wanted``."""
        if layer.kind != kind:
            raise layer.difference(what, f"a layer of class {shortened(layer.kind)}")
        if layer.name in self.taken or layer.calls > 1:
            raise layer.difference(f"{what} used once", "it used several times")
        if len(layer.inputs) != inputs:
            raise layer.difference(f"{what} with inputs: {inputs}", f"inputs: {len(layer.inputs)}")
        if layer.arguments:
            raise layer.difference(f"{what} called on its input alone", shortened(layer.arguments[0]))
        exact = {key: [value] for key, value in wanted.items() if value is not None}
        for key, allowed in {**exact, "dtype": ["float32"], **_FIXED[kind]}.items():
            actual = layer.setting(key)
            if not any(_same(actual, value) for value in allowed):
                raise layer.difference(f"{what} with {key} {allowed[0]!r}", f"{key} {shortened(actual)}")
        self.taken.add(layer.name)
        return layer

    def after(self, layer: KerasLayer, what: str = "one layer") -> KerasLayer:
        """The only layer that takes the output of ``layer``."""
        consumers = self.graph.consumers[layer.name]
        if len(consumers) != 1:
            raise layer.difference(f"{what} after it", _kinds(consumers))
        return consumers[0]

    def entry(self) -> tuple[KerasLayer, int, tuple[int | None, int | None]]:
        """Take the input layer; return it with the channels and the size of its images."""
        inputs, outputs = self.graph.inputs, self.graph.outputs
        if len(inputs) != 1 or len(outputs) != 1:
            raise KerasFileError(f"expected one input and one output, found {len(inputs)} and {len(outputs)}")
        layer = self.take(self.graph.layers[inputs[0]], "InputLayer", "an input layer", 0)
        shape = layer.config.get("batch_shape", layer.config.get("batch_input_shape"))
        sizes = shape[1:3] if isinstance(shape, list) and len(shape) == 4 and shape[3] in (1, 3) else ["unusable"]
        if not all(size is None or type(size) is int for size in sizes):
            raise layer.difference("an input of shape (any, rows, columns, 1 or 3)", f"shape {shortened(shape)}")
        return layer, int(shape[3]), (shape[1], shape[2])

    def convolution(  # noqa: PLR0917
        self, name: str, norm: str, layer: KerasLayer, kernel: int, stride: int, filters: Any = None, groups: Any = 1
    ) -> tuple[KerasLayer, KerasLayer]:
        """Take a convolution and its batch normalisation; None allows any number of ``filters`` or ``groups``."""
        what = f"a {kernel}x{kernel} convolution at stride {stride}"
        sides = {"kernel_size": (kernel, kernel), "strides": (stride, stride)}
        self.modules[name] = self.take(layer, "Conv2D", what, 1, **sides, filters=filters, groups=groups)
        what = "a batch normalisation"
        self.modules[norm] = self.take(self.after(layer, what), "BatchNormalization", what)
        return self.modules[name], self.modules[norm]

    def leak(self, before: KerasLayer) -> KerasLayer:
        """Take the activation after a layer."""
        return self.take(self.after(before, "a LeakyReLU"), "LeakyReLU", "a LeakyReLU")

    def block(self, entry: KerasLayer) -> KerasLayer:
        """Take one bottleneck block and return its last layer; a shortcut with a convolution begins a new stage."""
        main, shortcut = self.branches(entry)
        if shortcut is not None:
            self.stages.append([])
        elif not self.stages:
            raise main.difference("beside it a shortcut with a 1x1 convolution", "a sum with the block's input itself")
        stage = self.stages[-1]
        first = stage[0] if stage else None
        name = f"stages.{len(self.stages) - 1}.{len(stage)}"
        stride = 2 if shortcut is not None and len(self.stages) > 1 else 1
        conv1, norm1 = self.convolution(f"{name}.conv1", f"{name}.norm1", main, 1, 1, first and first.width)
        width, groups = conv1.count("filters"), self.stages[0][0].groups if self.stages[0] else None
        layer = self.after(self.leak(norm1))
        conv2, norm2 = self.convolution(f"{name}.conv2", f"{name}.norm2", layer, 3, stride, width, groups)
        layer = self.after(self.leak(norm2))
        conv3, norm3 = self.convolution(f"{name}.conv3", f"{name}.norm3", layer, 1, 1, first and first.outputs)
        outputs, parallel = conv3.count("filters"), entry
        if shortcut is not None:
            _, parallel = self.convolution(f"{name}.shortcut.0", f"{name}.shortcut.1", shortcut, 1, stride, outputs)
        total = self.take(self.after(norm3, "a sum"), "Add", "a sum of main path and shortcut", 2)
        if set(total.inputs) != {norm3.name, parallel.name}:
            wanted = f"the sum of {shortened(norm3.name)} and {shortened(parallel.name)}"
            raise total.difference(wanted, f"the sum of {' and '.join(map(shortened, total.inputs))}")
        stage.append(_Block(width, outputs, conv2.count("groups")))
        return self.leak(total)

    def branches(self, entry: KerasLayer) -> tuple[KerasLayer, KerasLayer | None]:
        """First layer of a block's main path, and of its shortcut (None: the input itself)."""
        consumers = self.graph.consumers[entry.name]
        if len(consumers) != 2:
            raise entry.difference("the two branches of a residual block after it", _kinds(consumers))
        first, second = consumers
        if "Add" in (first.kind, second.kind):
            return (first if second.kind == "Add" else second), None
        return (second, first) if self.leads_to_sum(first) else (first, second)

    def leads_to_sum(self, layer: KerasLayer) -> bool:
        """True when a sum follows within two layers, as in a shortcut but not in the main path."""
        for _ in range(2):
            consumers = self.graph.consumers[layer.name]
            if len(consumers) != 1:
                return False
            layer = consumers[0]
            if layer.kind == "Add":
                return True
        return False

    def head(self, last: KerasLayer) -> float:
        """Take dropout (if any), pooling, dense layer and softmax; check that no layer is left; return the dropout."""
        layer, dropout = self.after(last, "a dropout or global average pooling"), 0.0
        if layer.kind == "Dropout":
            dropout = self.take(layer, "Dropout", "a dropout").number("rate")
            layer = self.after(layer, "a global average pooling")
        self.take(layer, "GlobalAveragePooling2D", "a global average pooling (or dropout, then that)")
        dense = self.after(layer, "a dense layer")
        end = self.modules["head"] = self.take(dense, "Dense", "a dense layer of the four categories")
        if dense.setting("activation") == "linear":
            end = self.after(dense, "a softmax")
            self.take(end, "Softmax" if end.kind == "Softmax" else "Activation", "a softmax")
        if self.graph.consumers[end.name] or self.graph.outputs[0] != end.name:
            following = _kinds(self.graph.consumers[end.name])
            raise end.difference(
                "the model to end here", f"{following} after it, output {shortened(self.graph.outputs[0])}"
            )
        for extra in self.graph.layers.values():
            if extra.name not in self.taken:
                raise extra.difference("no further layer", f"a layer of class {shortened(extra.kind)}")
        return dropout


def _same(actual: Any, wanted: Any) -> bool:
    if isinstance(wanted, float) and isinstance(actual, int | float):
        return math.isclose(actual, wanted, rel_tol=1e-6)  # some writers pass 0.3 through float32
    return bool(actual == wanted)


def _kinds(layers: Iterable[KerasLayer]) -> str:
    return ", ".join(layer.kind for layer in layers) or "nothing"
