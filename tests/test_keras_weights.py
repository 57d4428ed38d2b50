"""Networks imported from Keras files, against Keras itself as the oracle."""

import copy
import json
import random
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from mammodensity.anatomy.network_input import PreprocessSpec
from mammodensity.commands.command_line import main
from mammodensity.errors import KerasFileError
from mammodensity.models.checkpoint import load_checkpoint, save_checkpoint
from mammodensity.models.keras_import import import_keras
from mammodensity.models.keras_match import _FIXED, match_network, read_graph
from mammodensity.models.network import NetworkSpec, ResidualNetwork
from mammodensity.outputs import file_sha256
from mammodensity.terms import Projection

h5py = pytest.importorskip("h5py", reason="h5py reads the files; the extra mammodensity[keras] brings it")

# Keras' variables on torch predate the copy keyword of numpy 2; saving and predicting turn them into arrays.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

SMALL = NetworkSpec(channels=3, stem=4, widths=(3, 6), outputs=(6, 8), depths=(2, 1), dropout=0.25)
GROUPED = NetworkSpec(
    channels=1, stem=6, widths=(4, 8, 4), outputs=(5, 7, 9), depths=(1, 3, 2), cardinality=2, dropout=0.0
)
SIZES = [(64, 64), (65, 65), (64, 97), (33, 50), (130, 67)]


@pytest.fixture(scope="session")
def keras(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "torch")
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))  # else it writes a settings file at home
        return pytest.importorskip("keras", reason="Keras is the oracle; pip install keras")


# --- the INFN reference network in Keras, written from the table in docs/infn.md -------------------------------------


def keras_network(keras, spec: NetworkSpec, size: tuple[int | None, int | None], seed: int = 1) -> Any:
    keras.utils.clear_session()  # layer names start anew, whatever models this process made before
    layers = keras.layers

    def convolution(inputs: Any, filters: int, kernel: int, stride: int = 1, groups: int = 1) -> Any:
        layer = layers.Conv2D(filters, kernel, strides=stride, padding="same", groups=groups)
        return layers.BatchNormalization()(layer(inputs))

    def block(inputs: Any, width: int, outputs: int, stride: int, project: bool) -> Any:
        inner = layers.LeakyReLU()(convolution(inputs, width, 1))
        inner = layers.LeakyReLU()(convolution(inner, width, 3, stride, spec.cardinality))
        inner = convolution(inner, outputs, 1)
        shortcut = convolution(inputs, outputs, 1, stride) if project else inputs
        return layers.LeakyReLU()(layers.Add()([shortcut, inner]))

    entry = layers.Input((*size, spec.channels))
    features = layers.LeakyReLU()(convolution(entry, spec.stem, 3, 2))
    features = layers.MaxPooling2D(3, 2, padding="same")(features)
    for stage, (width, outputs, depth) in enumerate(zip(spec.widths, spec.outputs, spec.depths, strict=True)):
        for index in range(depth):
            features = block(features, width, outputs, 2 if stage and not index else 1, project=not index)
    if spec.dropout:
        features = layers.Dropout(spec.dropout)(features)
    features = layers.GlobalAveragePooling2D()(features)
    model = keras.Model(entry, layers.Dense(4, activation="softmax")(features))
    randomise(keras, model, seed)
    return model


def randomise(keras, model: Any, seed: int) -> None:
    """Give every weight, batch statistics included, a value that matters, and the logits a spread of about 1."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        shape, name = tuple(weight.shape), weight.path.rpartition("/")[2]
        if name == "kernel":
            values = generator.normal(0, np.sqrt(1.5 / np.prod(shape[:-1])), shape)
        elif name in ("gamma", "moving_variance"):
            values = generator.uniform(0.5, 1.5, shape)
        else:
            values = generator.normal(0, 0.2, shape)
        weight.assign(values.astype(np.float32))
    dense = next(layer for layer in model.layers if isinstance(layer, keras.layers.Dense))
    size = [number or 64 for number in model.input_shape[1:]]
    features = keras.Model(model.inputs, dense.input).predict(some_images(*size), verbose=0)
    kernel = np.array(dense.kernel.numpy())
    kernel /= (features @ kernel).std()
    dense.kernel.assign(kernel)
    dense.bias.assign(np.array([0.3, -0.2, 0.1, 0.4]) - features.mean(axis=0) @ kernel)


def some_images(rows: int, columns: int, channels: int) -> Any:
    """Two images of different texture, contrast and mean."""
    noise = np.random.default_rng(rows).normal(0, 1, (2, rows, columns, channels)).astype(np.float32)
    noise[1] = 2 * noise[1] ** 2 + np.linspace(-1, 1, columns, dtype=np.float32)[:, None]
    return noise


def agreement(model: Any, network: ResidualNetwork, sizes: list[tuple[int, int]]) -> float:
    """Largest difference of any score between Keras and us."""
    worst = 0.0
    for rows, columns in sizes:
        images = some_images(rows, columns, network.spec.channels)
        expected = model.predict(images, verbose=0)
        with torch.inference_mode():
            scores = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).softmax(1).numpy()
        assert expected.min() > 1e-3, "scores near 0 and 1 say nothing"
        assert expected.max() < 0.99, "scores near 0 and 1 say nothing"
        assert np.abs(expected[0] - expected[1]).max() > 1e-2, "the scores must depend on the image"
        worst = max(worst, float(np.abs(scores - expected).max()))
    print(f"largest difference {worst:.2e}")
    return worst


@pytest.fixture(scope="session")
def small(keras, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A small network of any input size, and its file as Keras 3 writes it."""
    model = keras_network(keras, SMALL, (None, None))
    model.compile(keras.optimizers.SGD(0.01), "categorical_crossentropy", metrics=["accuracy"])
    path = tmp_path_factory.mktemp("small") / "small.h5"
    model.save(path)
    return model, path


# --- the same file as other writers would have written it -----------------------------------------------------------

Config = dict[str, Any]


def keras2_config(config: Config, tensorflow: bool) -> Config:
    """Keras 3's description turned into that of tf.keras 2.x, or of Keras 2.2.4."""
    model = copy.deepcopy(config["config"])
    for layer in model["layers"]:
        settings = layer["config"]
        settings["dtype"] = "float32"
        for key in ("synchronized", "renorm", "renorm_clipping", "renorm_momentum", "optional", "seed", "ragged"):
            settings.pop(key, None)
        for key in [key for key in settings if key.endswith("_initializer")]:
            settings[key] = {"class_name": settings[key]["class_name"], "config": {}}
        if layer["class_name"] == "InputLayer":
            settings["batch_input_shape"] = settings.pop("batch_shape")
        elif layer["class_name"] == "LeakyReLU":
            settings["alpha"] = float(np.float32(settings.pop("negative_slope")))  # what these versions wrote
        elif layer["class_name"] == "BatchNormalization":
            settings["axis"] = [3] if tensorflow else -1
        if not tensorflow:
            settings.pop("groups", None)
            settings.pop("keepdims", None)
            if layer["class_name"] != "InputLayer":
                settings.pop("dtype")
        calls = [history(node) for node in layer["inbound_nodes"]]
        layer["inbound_nodes"] = [[[name, 0, 0, {}] for name in names] for names in calls]
    for key in ("input_layers", "output_layers"):
        model[key] = [model[key]]
    return {"class_name": "Functional" if tensorflow else "Model", "config": model}


def history(node: Any) -> list[str]:
    """Names of the layers a Keras 3 call takes its tensors from."""
    if isinstance(node, dict) and "keras_history" in node:
        return [node["keras_history"][0]]
    parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
    return [name for part in parts for name in history(part)]


def rewrite(
    source: Path,
    target: Path,
    config: Config | None = None,
    *,
    suffix: str = ":0",
    text: Callable[[str], Any] = str.encode,
    chunks: int = 1,
    rename: Callable[[str], str] = str,
) -> Path:
    """Write ``source`` again by hand, with another description and other ways of writing names and text."""
    with h5py.File(source) as old, h5py.File(target, "w") as new:
        config = config or json.loads(old.attrs["model_config"])
        new.attrs["model_config"] = text(json.dumps(config))
        new.attrs["keras_version"], new.attrs["backend"] = text("2.2.4"), text("tensorflow")
        weights = new.create_group("model_weights")
        for name in old["model_weights"].attrs["layer_names"]:
            group = weights.create_group(rename(name))
            arrays = {f"{rename(path)}{suffix}": old["model_weights"][name][path] for path in weight_names(old, name)}
            parts = np.array_split(np.array([path.encode() for path in arrays]), chunks)
            for index, part in enumerate(parts):
                group.attrs["weight_names" if chunks == 1 else f"weight_names{index}"] = part
            for path, array in arrays.items():
                group[path] = array[()]
    return target


def weight_names(file: Any, layer: str) -> list[str]:
    return list(file["model_weights"][layer].attrs["weight_names"])


def read_config(path: Path) -> Config:
    with h5py.File(path) as file:
        return dict(json.loads(file.attrs["model_config"]))


# --- agreement --------------------------------------------------------------------------------------------------------


def test_agrees_with_keras_3(small):
    model, path = small
    network = import_keras(path, Projection.CC_R).network
    assert network.spec == SMALL
    assert not network.training
    assert agreement(model, network, SIZES) <= 1e-5


def test_agrees_with_groups_one_channel_and_no_dropout(keras, tmp_path):
    model = keras_network(keras, GROUPED, (None, None))
    model.save(tmp_path / "grouped.h5")
    network = import_keras(tmp_path / "grouped.h5", Projection.MLO_L).network
    assert network.spec == GROUPED
    assert agreement(model, network, SIZES) <= 1e-5


def test_agrees_at_full_width_and_keeps_the_size(keras, tmp_path):
    spec = NetworkSpec(channels=3)
    model = keras_network(keras, spec, (97, 130))
    model.save(tmp_path / "full.h5")
    checkpoint = import_keras(tmp_path / "full.h5", Projection.CC_L)
    assert checkpoint.network.spec == spec
    assert checkpoint.preprocess == PreprocessSpec(rows=97, columns=130, interpolation="nearest")
    assert agreement(model, checkpoint.network, [(97, 130)]) <= 1e-5


def separate_softmax(keras, layer: Any) -> Any:
    model = keras_network(keras, SMALL, (32, 32))
    logits = keras.layers.Dense(4)
    model = keras.Model(model.inputs, layer(logits(model.layers[-2].output)))
    randomise(keras, model, 2)
    return model


@pytest.mark.parametrize("kind", ["Softmax", "Activation"])
def test_agrees_when_softmax_is_a_layer_of_its_own(kind: str, keras, tmp_path):
    layer = keras.layers.Softmax() if kind == "Softmax" else keras.layers.Activation("softmax")
    model = separate_softmax(keras, layer)
    model.save(tmp_path / "softmax.h5")
    network = import_keras(tmp_path / "softmax.h5", Projection.CC_R).network
    assert agreement(model, network, [(32, 32)]) <= 1e-5


@pytest.mark.parametrize("tensorflow", [False, True], ids=["Keras 2.2.4", "tf.keras"])
def test_agrees_with_older_writers(tensorflow: bool, small, tmp_path):
    model, path = small
    config = keras2_config(read_config(path), tensorflow)
    old = rewrite(path, tmp_path / "old.h5", config, text=str if tensorflow else str.encode)
    checkpoint = import_keras(old, Projection.CC_R)
    assert checkpoint.training["keras_version"] == "2.2.4"
    assert checkpoint.training["backend"] == "tensorflow"
    assert agreement(model, checkpoint.network, SIZES[:3]) <= 1e-5


def same_tensors(one: ResidualNetwork, other: ResidualNetwork) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("keras2", [False, True], ids=["Keras 3", "Keras 2"])
def test_names_and_orders_carry_no_meaning(keras2: bool, seed: int, small, tmp_path):
    path = small[1]
    config = keras2_config(read_config(path), tensorflow=False) if keras2 else read_config(path)
    names = [layer["name"] for layer in config["config"]["layers"]]
    shuffled = random.Random(seed)
    codes = [f"scope/{number}" for number in shuffled.sample(range(1000), len(names))]
    new_names = dict(zip(names, codes, strict=True))
    rename_all(config["config"], new_names)
    shuffled.shuffle(config["config"]["layers"])
    for layer in config["config"]["layers"]:
        if layer["class_name"] == "Add":
            shuffled.shuffle(layer["inbound_nodes"][0] if keras2 else layer["inbound_nodes"][0]["args"][0])
    shuffled_file = rewrite(path, tmp_path / "shuffled.h5", config, rename=lambda name: new_names.get(name, name))
    network = import_keras(shuffled_file, Projection.CC_R).network
    assert same_tensors(network, import_keras(path, Projection.CC_R).network)


def rename_all(value: Any, names: dict[str, str]) -> None:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if isinstance(item, str) and item in names:
            value[key] = names[item]
        else:
            rename_all(item, names)


@pytest.mark.parametrize("way", ["plain names", "names in chunks", "float64", "weights at the root"])
def test_ways_of_writing_weights(way: str, small, tmp_path):
    path = small[1]
    target = rewrite(
        path, tmp_path / "other.h5", suffix="" if way == "plain names" else ":0", chunks=3 if "chunks" in way else 1
    )
    with h5py.File(target, "r+") as file:
        weights = file["model_weights"]
        if way == "float64":
            replace_array(weights, "conv2d/conv2d/kernel:0", lambda array: array.astype(np.float64))
        if way == "weights at the root":
            for name in list(weights):
                file.move(f"model_weights/{name}", name)
            del file["model_weights"]
    network = import_keras(target, Projection.CC_R).network
    assert same_tensors(network, import_keras(path, Projection.CC_R).network)


def replace_array(weights: Any, name: str, change: Callable[[Any], Any]) -> None:
    values = change(weights[name][()])
    del weights[name]
    weights[name] = values


def test_checkpoint_says_where_it_comes_from_and_can_be_saved(small, tmp_path):
    path = small[1]
    random_state = torch.get_rng_state()
    checkpoint = import_keras(path, Projection.MLO_R)
    assert torch.equal(torch.get_rng_state(), random_state), "importing must not draw random numbers"
    training = checkpoint.training
    assert re.fullmatch(r"3\.\d+\.\d+.*", training["keras_version"])
    assert {key: training[key] for key in training if key != "keras_version"} == {
        "source": "keras",
        "backend": "torch",
        "file": "small.h5",
        "sha256": file_sha256(path),
        "training_config": {
            "optimizer": "SGD",
            "learning_rate": pytest.approx(0.01),
            "loss": "categorical_crossentropy",
        },
    }
    assert checkpoint.preprocess == PreprocessSpec(650, 650, interpolation="nearest")
    loaded = load_checkpoint(save_checkpoint(tmp_path / "MLO_R", checkpoint), "MLO_R")
    assert same_tensors(loaded.network, checkpoint.network)
    assert loaded.training == training
    fresh = ResidualNetwork(checkpoint.network.spec)
    learns = [parameter.requires_grad for parameter in fresh.parameters()]
    assert [parameter.requires_grad for parameter in checkpoint.network.parameters()] == learns


# --- what is tolerated, what is refused -------------------------------------------------------------------------------


def edited(path: Path, target: Path, change: Callable[[Config], Any]) -> Path:
    config = read_config(path)
    change(config)
    return rewrite(path, target, config)


def nth(config: Config, kind: str, index: int = 0) -> Config:
    """The layer of that class that comes ``index``-th in the file."""
    layer: Config = [layer for layer in config["config"]["layers"] if layer["class_name"] == kind][index]
    return layer


def set_config(kind: str, index: int = 0, **settings: Any) -> Callable[[Config], None]:
    return lambda config: nth(config, kind, index)["config"].update(settings)


def set_layer(kind: str, index: int = 0, **entries: Any) -> Callable[[Config], None]:
    return lambda config: nth(config, kind, index).update(entries)


def call_with(kind: str, **arguments: Any) -> Callable[[Config], None]:
    return lambda config: nth(config, kind)["inbound_nodes"][0]["kwargs"].update(arguments)


TOLERATED = {
    "momentum of another": set_config("BatchNormalization", 1, momentum=0.9),
    "tf.keras 1.x norm": set_layer("BatchNormalization", class_name="BatchNormalizationV1"),
    "alpha as a numpy value": set_config(
        "LeakyReLU", negative_slope={"class_name": "__numpy__", "config": {"value": 0.3}}
    ),
    "activation as a function": set_config("Dense", activation={"class_name": "function", "config": "softmax"}),
    "training=False": call_with("BatchNormalization", training=False),
    "frozen": set_config("Conv2D", trainable=False),
    "own name unregistered": set_layer("Conv2D", registered_name=None, module="keras.layers", build_config={"a": 1}),
}


@pytest.mark.parametrize("change", TOLERATED.values(), ids=TOLERATED)
def test_tolerated(change, small, tmp_path):
    network = import_keras(edited(small[1], tmp_path / "edited.h5", change), Projection.CC_R).network
    assert same_tensors(network, import_keras(small[1], Projection.CC_R).network)


def test_norm_momentum_counts_the_new_value(small, tmp_path):
    path = edited(small[1], tmp_path / "edited.h5", set_config("BatchNormalization", momentum=0.9))
    assert import_keras(path, Projection.CC_R).network.spec == replace(SMALL, norm_momentum=0.1)


@pytest.mark.parametrize(
    ("size", "expected"), [((None, 40), (650, 40)), ((48, None), (48, 650)), ((17, 33), (17, 33))], ids=str
)
def test_input_size(size: Any, expected: tuple[int, int], small, tmp_path):
    change = set_config("InputLayer", batch_shape=[None, *size, 3])
    spec = import_keras(edited(small[1], tmp_path / "edited.h5", change), Projection.CC_R).preprocess
    assert (spec.rows, spec.columns) == expected


def reconnect(kind: str, index: int, source: str, source_index: int) -> Callable[[Config], None]:
    """Let a layer take its (first) input from another layer."""

    def change(config: Config) -> None:
        arguments = nth(config, kind, index)["inbound_nodes"][0]["args"]
        tensor = arguments[0][0] if isinstance(arguments[0], list) else arguments[0]
        tensor["config"]["keras_history"][0] = nth(config, source, source_index)["name"]

    return change


def cut_out(*which: tuple[str, int]) -> Callable[[Config], None]:
    """Leave layers out; what took their output takes their input."""

    def change(config: Config) -> None:
        layers = config["config"]["layers"]
        for layer in [nth(config, kind, index) for kind, index in which]:
            layers.remove(layer)
            inbound = [other["inbound_nodes"] for other in layers]
            rename_all(inbound, {layer["name"]: history(layer["inbound_nodes"])[0]})

    return change


def further_output(config: Config) -> None:
    config["config"]["output_layers"] = [config["config"]["output_layers"], ["leaky_re_lu", 0, 0]]


def unused_layer(config: Config) -> None:
    extra = copy.deepcopy(nth(config, "InputLayer")) | {"name": "unused"}
    config["config"]["layers"].append(extra)


def twice(config: Config) -> None:
    nodes = nth(config, "LeakyReLU", 1)["inbound_nodes"]
    nodes.append(copy.deepcopy(nodes[0]))


# Keras 3 lists the first block of ``small`` as main path up to the second LeakyReLU, then convolution and norm of the
# shortcut (the fourth convolution and norm of the file) each just before those of the main path.
CONV, NORM, LEAK, POOL = "Conv2D", "BatchNormalization", "LeakyReLU", "MaxPooling2D"
DIFFERENCES: dict[str, tuple[Callable[[Config], Any], str]] = {
    "padding": (
        set_config(CONV, padding="valid"),
        "layer 2 'conv2d': expected a 3x3 convolution at stride 2 with padding 'same', found padding 'valid'",
    ),
    "stride": (set_config(CONV, strides=[1, 1]), "at stride 2 with strides (2, 2), found strides (1, 1)"),
    "kernel": (set_config(CONV, kernel_size=[7, 7]), "with kernel_size (3, 3), found kernel_size (7, 7)"),
    "half precision": (set_config(CONV, dtype={"config": {"name": "mixed_float16"}}), "found dtype 'mixed_float16'"),
    "filters": (set_config(CONV, filters="many"), "expected filters from 1 to 65536, found 'many'"),
    "groups of 1x1": (set_config(CONV, 1, groups=3), "1x1 convolution at stride 1 with groups 1, found groups 3"),
    "unequal groups": (set_config(CONV, 6, groups=3), "3x3 convolution at stride 1 with groups 1, found groups 3"),
    "impossible groups": (
        lambda config: [set_config(CONV, index, groups=2)(config) for index in (2, 6, 9)],
        "every width must be a multiple of cardinality 2",
    ),
    "width of 3x3": (set_config(CONV, 2, filters=5), "with filters 3, found filters 5"),
    "width in a stage": (set_config(CONV, 5, filters=5), "with filters 3, found filters 5"),
    "outputs in a stage": (set_config(CONV, 7, filters=1), "with filters 6, found filters 1"),
    "outputs of the shortcut": (set_config(CONV, 3, filters=1), "with filters 6, found filters 1"),
    "norm momentum": (set_config(NORM, momentum=None), "expected a number for momentum, found None"),
    "norm that never moves": (set_config(NORM, momentum=1), "norm_momentum must be"),
    "norm training": (call_with(NORM, training=True), "called on its input alone, found 'training=True'"),
    "no slope": (lambda config: nth(config, LEAK)["config"].pop("negative_slope"), "found slope 'not given'"),
    "ReLU": (set_layer(LEAK, class_name="ReLU"), "expected a LeakyReLU, found a layer of class 'ReLU'"),
    "Lambda": (
        set_layer(LEAK, class_name="Lambda", config={"function": ["4wEAAAA=", None, None]}),
        "layer 4 'leaky_re_lu': expected a LeakyReLU, found a layer of class 'Lambda'",
    ),
    "own class": (set_layer(CONV, registered_name="mine>Conv2D"), "found a layer of class 'mine>Conv2D'"),
    "padding layer": (set_layer(POOL, class_name="ZeroPadding2D"), "3x3 max pooling at stride 2, found a layer"),
    "average pool": (set_layer(POOL, class_name="AveragePooling2D"), "found a layer of class 'AveragePooling2D'"),
    "product": (set_layer("Add", class_name="Multiply"), "expected a sum"),
    "stride in a block": (set_config(CONV, 2, strides=[2, 2]), "with strides (1, 1), found strides (2, 2)"),
    "stride of a stage": (set_config(CONV, 9, strides=[1, 1]), "with strides (2, 2), found strides (1, 1)"),
    "identity in the first block": (
        cut_out((CONV, 3), (NORM, 3)),
        "layer 6 'conv2d_1': expected beside it a shortcut with a 1x1 convolution, found a sum with the block's input",
    ),
    "three branches": (
        reconnect("Add", 1, POOL, 0),
        "layer 5 'max_pooling2d': expected the two branches of a residual block after it, found Conv2D, Conv2D, Add",
    ),
    "shortcut across the pool": (
        reconnect("Add", 0, LEAK, 0),
        "layer 4 'leaky_re_lu': expected one layer after it, found MaxPooling2D, Add",
    ),
    "sum of something else": (
        reconnect("Add", 0, NORM, 4),
        "'add': expected the sum of 'batch_normalization_3' and 'batch_normalization_4', found the sum of",
    ),
    "shortcut without norm": (
        cut_out((NORM, 3)),
        "'add': expected a batch normalisation, found a layer of class 'Add'",
    ),
    "main path without norm": (cut_out((NORM, 1)), "expected a batch normalisation, found a layer of"),
    "no pool": (cut_out((POOL, 0)), "expected one layer after it, found Conv2D, Conv2D"),
    "layer used twice": (twice, "a LeakyReLU used once, found it used several times"),
    "no dropout rate": (set_config("Dropout", rate=None), "expected a number for rate, found None"),
    "dropout of all": (set_config("Dropout", rate=1.0), "dropout must be"),
    "other dropout": (set_layer("Dropout", class_name="SpatialDropout2D"), "a global average pooling (or dropout"),
    "other pooling": (set_layer("GlobalAveragePooling2D", class_name="Flatten"), "found a layer of class 'Flatten'"),
    "logits": (set_config("Dense", activation="linear"), "expected a softmax after it, found nothing"),
    "two outputs": (further_output, "expected one input and one output, found 1 and 2"),
    "output elsewhere": (
        lambda config: config["config"].update(output_layers=["leaky_re_lu", 0, 0]),
        "expected the model to end here, found nothing after it, output 'leaky_re_lu'",
    ),
    "unused layer": (unused_layer, "'unused': expected no further layer, found a layer of class 'InputLayer'"),
    "two channels": (set_config("InputLayer", batch_shape=[None, 64, 64, 2]), "found shape [None, 64, 64, 2]"),
    "a volume": (set_config("InputLayer", batch_shape=[None, 64, 64, 64, 3]), "found shape [None, 64, 64, 64, 3]"),
    "no size": (set_config("InputLayer", batch_shape=[None, "a", 64, 3]), "found shape [None, 'a', 64, 3]"),
    "tiny": (set_config("InputLayer", batch_shape=[None, 8, 64, 3]), "its input size cannot be used: rows must be"),
    "integers": (set_config("InputLayer", dtype="uint8"), "an input layer with dtype 'float32', found dtype 'uint8'"),
    "sequential": (lambda config: config.update(class_name="Sequential"), "found one of class 'Sequential'"),
    "duplicate": (
        lambda config: config["config"]["layers"].append(nth(config, "Dense")),
        "layers are named 'dense'",
    ),
    "no layers": (lambda config: config["config"].pop("layers"), 'model_config is not what Keras writes ("KeyError'),
    "layers of numbers": (lambda config: config["config"].update(layers=[1, 2]), "is not what Keras writes"),
    "unknown input": (lambda config: config["config"].update(input_layers=["x", 0, 0]), "has no layer 'x'"),
    "only an input": (
        lambda config: config["config"].update(
            layers=config["config"]["layers"][:1], output_layers=["input_layer", 0, 0]
        ),
        "layer 1 'input_layer': expected one layer after it, found nothing",
    ),
}


@pytest.mark.parametrize(("change", "message"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_first_difference_is_named(change, message, small, tmp_path):
    path = edited(small[1], tmp_path / "edited.h5", change)
    assert message in refusal(path)


@pytest.mark.parametrize(
    ("kind", "key"),
    [(kind, key) for kind, fixed in _FIXED.items() if kind not in ("Activation", "Softmax") for key in fixed],
)
def test_every_fixed_setting_is_compared(kind, key, small, tmp_path):
    change = set_config(kind, **{"negative_slope" if key == "slope" else key: "other"})
    message = refusal(edited(small[1], tmp_path / "edited.h5", change))
    assert re.search(f"expected .* with {key} .*, found {key} 'other'; only the INFN reference network", message)


def refusal(path: Path) -> str:
    with pytest.raises(KerasFileError) as caught:
        import_keras(path, Projection.CC_R)
    message = str(caught.value)
    assert message.startswith(str(path)) or message.startswith(f"reading {path}")
    assert "\n" not in message
    return message


def change_array(array: str, change: Callable[[Any], Any]) -> Callable[[Any], None]:
    return lambda file: replace_array(file["model_weights"], array, change)


def put(value: float) -> Callable[[Any], Any]:
    """Put ``value`` where the last element was."""

    def change(array: Any) -> Any:
        array = array.astype(np.float64)
        array.flat[-1] = value
        return array

    return change


def link_elsewhere(file: Any) -> None:
    other = Path(file.filename).with_name("elsewhere.h5")
    with h5py.File(other, "w") as target:
        target["bias"] = np.zeros(4, np.float32)
    del file["model_weights/conv2d/conv2d/bias:0"]
    file["model_weights/conv2d/conv2d/bias:0"] = h5py.ExternalLink(other, "bias")


NO_WEIGHTS = "weights of layer 'conv2d': expected bias, kernel, found none"
NOT_FINITE = "kernel of layer 'dense' has values that are not finite"
VARIANCE = "batch_normalization/batch_normalization/moving_variance:0"
DAMAGES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "weights only": (lambda file: file.attrs.pop("model_config"), "it holds no model_config, so weights at most"),
    "not JSON": (lambda file: file.attrs.update(model_config="{'a': 1}"), "its model_config is not JSON"),
    "Theano": (lambda file: file.attrs.update(backend=b"theano"), "it was written with Theano, whose kernels are"),
    "other JSON": (lambda file: file.attrs.update(model_config="[1, 2]"), "its model_config is not what Keras writes"),
    "very deep": (lambda file: file.attrs.update(model_config="[" * 50000), "its model_config is not JSON"),
    "no weights": (lambda file: file.pop("model_weights"), NO_WEIGHTS),
    "weights are no group": (
        lambda file: (file.pop("model_weights"), file.update(model_weights=np.zeros(3))),
        NO_WEIGHTS,
    ),
    "no bias": (
        lambda file: file.pop("model_weights/conv2d_1/conv2d_1/bias:0"),
        "weights of layer 'conv2d_1': expected bias, kernel, found 'kernel'",
    ),
    "no layer": (lambda file: file.pop("model_weights/dense"), NO_WEIGHTS.replace("conv2d", "dense")),
    "shape": (
        change_array("conv2d/conv2d/kernel:0", lambda array: array[..., :3]),
        "kernel of layer 'conv2d': expected floating-point values of shape (3, 3, 3, 4), found float32 (3, 3, 3, 3)",
    ),
    "integers": (
        change_array("dense/dense/bias:0", lambda array: array.astype(np.int64)),
        "bias of layer 'dense': expected floating-point values of shape (4,), found int64 (4,)",
    ),
    "not a number": (change_array("dense/dense/kernel:0", put(np.nan)), NOT_FINITE),
    "infinite": (change_array("dense/dense/kernel:0", put(-np.inf)), NOT_FINITE),
    "too large": (change_array("dense/dense/kernel:0", put(1e300)), NOT_FINITE),
    "negative variance": (
        change_array(VARIANCE, put(-0.1)),
        "moving_variance of layer 'batch_normalization' has negative values",
    ),
    "elsewhere": (link_elsewhere, "bias of layer 'conv2d' is kept outside the file"),
}


@pytest.mark.parametrize(("change", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_named(change, message, small, tmp_path):
    path = rewrite(small[1], tmp_path / "damaged.h5")
    with h5py.File(path, "r+") as file:
        change(file)
    assert message in refusal(path)


def test_files_that_are_no_hdf5(small, tmp_path):
    for path in (tmp_path / "absent.h5", tmp_path):
        assert "not found" in refusal(path)
    for content in (b"", b"hello, world"):
        (tmp_path / "text.h5").write_bytes(content)
        assert "is no HDF5 file" in refusal(tmp_path / "text.h5")
    small[0].save(tmp_path / "new.keras")
    assert "zip archive such as Keras 3's .keras" in refusal(tmp_path / "new.keras")


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999, None])
def test_a_file_cut_short_or_overwritten_at_its_start(share, small, tmp_path):
    content = bytearray(small[1].read_bytes())
    if share:
        del content[int(share * len(content)) :]
    else:
        content[8:512] = bytes(504)
    (tmp_path / "damaged.h5").write_bytes(content)
    assert "is damaged or cut short" in refusal(tmp_path / "damaged.h5")


def test_any_change_of_the_description_gives_a_network_or_one_line(small):
    """A faulty description always raises one of our errors, never one of Python's."""
    generator = random.Random(1)
    text = json.dumps(read_config(small[1]))
    values = [None, -1, "x", [], {}, [1, 2, 3], 1e308, True, float("nan"), 10**30, {"config": []}, ["dense", 0, 0]]
    outcomes = set()
    for _ in range(300):
        config = json.loads(text)
        place, key = generator.choice(places(config))
        place[key] = generator.choice(values)
        try:
            match_network(read_graph(config))
            outcomes.add("network")
        except KerasFileError as error:
            assert "\n" not in str(error)
            outcomes.add("refused")
    assert outcomes == {"network", "refused"}


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every entry of a JSON value, as what holds it and its key."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    return [(value, key) for key, _ in items] + [place for _, item in items for place in places(item)]


def test_weights_saved_alone_and_other_models_of_keras(keras, small, tmp_path):
    small[0].save_weights(tmp_path / "only.weights.h5")
    assert "it holds no model_config" in refusal(tmp_path / "only.weights.h5")
    keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(4)]).save(tmp_path / "sequential.h5")
    assert "found one of class 'Sequential'" in refusal(tmp_path / "sequential.h5")
    entry = keras.layers.Input((64, 64, 3))
    convolved = keras.layers.Conv2D(8, 3, activation="relu")(entry)
    pooled = keras.layers.GlobalAveragePooling2D()(convolved)
    keras.Model(entry, keras.layers.Dense(4, activation="softmax")(pooled)).save(tmp_path / "plain.h5")
    assert "expected a 3x3 convolution at stride 2 with strides (2, 2), found strides (1, 1)" in refusal(
        tmp_path / "plain.h5"
    )


def test_h5py_missing(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert "install the extra mammodensity[keras]" in refusal(tmp_path / "any.h5")


def test_one_command_makes_a_model(small, tmp_path, capsys: pytest.CaptureFixture[str]):
    arguments = ["import-keras", str(small[1]), "--projection", "CC_R", "--model", str(tmp_path / "model")]
    for code, message in ((0, "CC_R network in"), (1, "already holds a network for CC_R")):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == code
        assert message in "".join(capsys.readouterr())
    assert load_checkpoint(tmp_path / "model").training["source"] == "keras"
    assert (tmp_path / "model" / "README.md").exists()
