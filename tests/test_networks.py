"""The INFN reference network and checkpoints; agreement with Keras is in test_keras_weights.py."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from contextlib import contextmanager
from dataclasses import asdict, replace

import pytest
import torch

import mammodensity
from mammodensity.anatomy.network_input import INFN_PREPROCESS
from mammodensity.errors import CheckpointError, OptionError
from mammodensity.models.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_joint,
    save_checkpoint,
)
from mammodensity.models.network import NetworkSpec, ResidualNetwork
from mammodensity.tensors import read_tensors, write_tensors
from mammodensity.terms import Projection
from samples import REPOSITORY

TINY = NetworkSpec(stem=4, widths=(4, 6), outputs=(6, 8), depths=(2, 1))


def sizes(network: ResidualNetwork, images: torch.Tensor) -> list[tuple[int, ...]]:
    """Shapes (F, h, w) after the stem's convolution, the pooling and each stage."""
    shapes: list[tuple[int, ...]] = []
    for part in (network.norm, network.pool, *network.stages):
        part.register_forward_hook(lambda _m, _i, out: shapes.append(tuple(out.shape[1:])))
    network.eval()(images)
    return shapes


def test_the_table_of_layers():
    network = ResidualNetwork(NetworkSpec())
    with torch.inference_mode():
        shapes = sizes(network, torch.zeros(1, 1, 650, 650))
    assert shapes[:3] == [(64, 325, 325), (64, 163, 163), (128, 163, 163)]
    assert shapes[3:] == [(256, 82, 82), (256, 41, 41), (256, 21, 21)]
    assert network.last_block is network.stages[3][2]
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}
    assert len(norms) == 1 + 4 * (3 * 3 + 1)


@pytest.mark.parametrize("size", [(16, 16), (33, 50), (97, 64)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_gives_four_logits(size, channels):
    network = ResidualNetwork(replace(TINY, channels=channels)).eval()
    assert network(torch.rand(2, channels, *size)).shape == (2, 4)


def test_same_padding_at_stride_two_is_tensorflows():
    # One bright pixel at (0, 0) of an even image is seen by the tap (0, 0), as nothing is padded before it.
    network = ResidualNetwork(TINY)
    image = torch.zeros(1, 1, 16, 16)
    image[0, 0, 0, 0] = 1
    response = network.conv(image)[0, :, 0, 0] - network.conv.bias
    assert torch.allclose(response, network.conv.weight[:, 0, 0, 0])


def test_biases_that_are_not_learned_have_no_gradient_to_learn_from():
    torch.manual_seed(1)
    spec = NetworkSpec(stem=4, widths=(4, 4), outputs=(8, 8), depths=(2, 1))
    network = ResidualNetwork(spec).double()
    still = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert still == {f"{name}.bias" for name, module in network.named_modules() if isinstance(module, torch.nn.Conv2d)}
    network.requires_grad_(True)
    torch.nn.functional.cross_entropy(network(torch.rand(3, 1, 40, 36).double()), torch.tensor([0, 1, 2])).backward()
    gradients = {name: parameter.grad.abs().max() for name, parameter in network.named_parameters()}
    assert max(gradients[name] for name in still) < 1e-12
    assert min(gradient for name, gradient in gradients.items() if name not in still) > 1e-6


def test_every_entry_of_the_spec_changes_the_network():
    def shapes(spec: NetworkSpec) -> tuple[object, ...]:
        network = ResidualNetwork(spec)
        return [tuple(p.shape) for p in network.parameters()], network.dropout.p, network.norm.momentum

    changes = {"channels": 3, "stem": 6, "widths": (4, 8), "outputs": (6, 10), "depths": (1, 1)}
    changes |= {"cardinality": 2, "dropout": 0.5, "norm_momentum": 0.2}
    assert set(changes) == set(NetworkSpec.__dataclass_fields__)
    for name, value in changes.items():
        assert shapes(replace(TINY, **{name: value})) != shapes(TINY), name


@pytest.mark.parametrize(
    "wrong",
    [{"channels": 2}, {"stem": 0}, {"depths": (1,)}, {"cardinality": 4}, {"dropout": 1.0}, {"norm_momentum": 0.0}],
)
def test_impossible_specs(wrong):
    with pytest.raises(OptionError):
        replace(TINY, **wrong)


FILES = REPOSITORY / "tests" / "files"
"""Networks as the first version wrote them."""


@torch.no_grad()
def test_files_of_the_first_version_give_the_same_logits():
    image = torch.linspace(0, 1, 320).reshape(1, 1, 16, 20)
    single = load_checkpoint(FILES, "CC_R")
    assert single.network(image)[0].tolist() == pytest.approx([-1.179805, -1.210584, -0.320195, -0.679805], abs=1e-5)
    assert single.preprocess == replace(INFN_PREPROCESS, rows=16, columns=20)
    assert single.training == {"epoch": 3}
    joint = load_joint(FILES / "joint" / "network.safetensors")
    logits = joint.network(image.expand(1, 4, 1, 16, 20))[0].tolist()
    assert logits == pytest.approx([0.25, 0.951374, 1.451374, -3.652749], abs=1e-5)
    assert (joint.network.spec.fusion, joint.network.spec.branches) == ("attention", "shared")


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    network = ResidualNetwork(TINY).eval()
    save_checkpoint(tmp_path / "CC_R", Checkpoint(network, Projection.CC_R, INFN_PREPROCESS, {"note": "made"}))
    return tmp_path, network


def test_checkpoint_round_trip(saved):
    folder, network = saved
    images = torch.rand(2, 1, 40, 31)
    for path in (folder, folder / "CC_R", folder / "CC_R" / "network.safetensors"):
        loaded = load_checkpoint(path, "CC_R")
        assert torch.equal(loaded.network(images), network(images))
        assert not loaded.network.training
        assert loaded.preprocess == INFN_PREPROCESS
        assert loaded.training == {"note": "made"}
    assert torch.equal(mammodensity.load_network(folder)(images), network(images))


def test_checkpoints_that_are_refused(saved, tmp_path):
    folder, network = saved
    file = folder / "CC_R" / "network.safetensors"
    content = bytearray(file.read_bytes())
    with pytest.raises(CheckpointError, match="is a network for CC_R, asked for CC_L"):
        load_checkpoint(file, Projection.CC_L)
    with pytest.raises(CheckpointError, match="holds no network for MLO_L, only for CC_R"):
        load_checkpoint(folder, Projection.MLO_L)
    save_checkpoint(folder / "CC_L", Checkpoint(network, Projection.CC_L, INFN_PREPROCESS))
    with pytest.raises(CheckpointError, match="holds networks for CC_R, CC_L; say which"):
        load_checkpoint(folder)
    with pytest.raises(CheckpointError, match="not found"):
        load_checkpoint(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds no network"):
        load_checkpoint(tmp_path / "empty")
    for damaged in (content[: len(content) // 2], content[:4], b"", b"text" * 100):
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="damaged"):
            load_checkpoint(file)
    content[-1] ^= 1  # one flipped bit in the last weight
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="differs from its checksum"):
        load_checkpoint(file)


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("format", "another", "expected format"),
        ("categories", ["D", "C", "B", "A"], "expected categories A B C D"),
        ("projection", "ML_R", "does not fit this version"),
        ("network", {"stem": 8}, "does not fit this version"),
        ("network", {**asdict(TINY), "depths": [10_000_000, 2]}, "depths.0 must be less than or equal to 64"),
        (
            "network",
            {**asdict(TINY), "depths": [64] * 8, "widths": [4096] * 8, "outputs": [4096] * 8},
            "at most 100,000",
        ),
        ("network", {**asdict(TINY), "depths": [2] * 100, "widths": [4] * 100, "outputs": [4] * 100}, "at most 8"),
        ("network", {**asdict(TINY), "stem": True}, "stem must be a valid integer"),
        ("preprocess", {"rows": 10**9}, "rows must be less than or equal to 8192"),
        ("preprocess", {"colour": 1}, "does not fit this version"),
    ],
)
def test_descriptions_that_are_refused(saved, entry, value, message):
    file = saved[0] / "CC_R" / "network.safetensors"
    tensors, description = read_tensors(file)
    write_tensors(file, tensors, {**description, entry: value})
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(file)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("head.weight", math.nan, "head.weight has values that are not finite"),
        ("conv.bias", math.inf, "conv.bias has values that are not finite"),
        ("stages.1.0.norm2.running_mean", -math.inf, "running_mean has values that are not finite"),
        ("norm.running_var", -1.0, "norm.running_var has negative values"),
        ("head.bias", torch.float64, "head.bias is of type torch.float64"),
        ("conv.weight", torch.complex64, "conv.weight is of type torch.complex64"),
        ("conv.weight", torch.float8_e5m2, "conv.weight is of type torch.float8"),
        ("conv.weight", torch.int8, "conv.weight is of type torch.int8"),
    ],
)
def test_weights_that_no_network_can_have_are_refused(saved, name, value, message):
    file = saved[0] / "CC_R" / "network.safetensors"
    tensors, description = read_tensors(file)
    if isinstance(value, float):
        tensors[name].view(-1)[-1] = value
    else:
        tensors[name] = tensors[name].to(value)
    write_tensors(file, tensors, description)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(file)


def test_scores_that_overflow_are_an_error(tiny_model, blobs, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "model")
    file = tmp_path / "model" / "CC_R" / "network.safetensors"
    tensors, description = read_tensors(file)
    write_tensors(file, {**tensors, "head.weight": tensors["head.weight"].fill_(3e38)}, description)
    with pytest.raises(CheckpointError, match="gives values that are not finite"):
        mammodensity.predict(blobs, model=tmp_path / "model")


@pytest.mark.parametrize("kind", ["pipe", "device", "holes"])
def test_files_of_a_model_that_never_end(saved, kind):
    file = saved[0] / "CC_R" / "network.safetensors"
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    else:
        with file.open("wb") as stream:
            stream.truncate(10**12)
    for path in (saved[0], file.parent, file):
        with pytest.raises(CheckpointError, match=r"too large|no regular file"):
            load_checkpoint(path, "CC_R")
        with pytest.raises((CheckpointError, OSError), match=r"too large|no regular file"):
            mammodensity.load_model(path)


def test_a_flipped_bit_in_the_description_is_noticed(saved):
    file = saved[0] / "CC_R" / "network.safetensors"
    content = file.read_bytes()
    file.write_bytes(content.replace(b'\\"rows\\": 650', b'\\"rows\\": 651', 1))
    assert file.read_bytes() != content
    with pytest.raises(CheckpointError, match="differs from its checksum"):
        load_checkpoint(file)


def test_a_safetensors_file_of_another_program(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "network.safetensors")
    with pytest.raises(CheckpointError, match="was not written by mammodensity"):
        load_checkpoint(tmp_path)


def test_the_header_is_readable_json(saved):
    raw = (saved[0] / "CC_R" / "network.safetensors").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert json.loads(header["__metadata__"]["mammodensity"])["network"]["stem"] == 4


def test_a_signal_while_weights_are_read_is_no_damage(tmp_path, monkeypatch):
    import safetensors

    @contextmanager
    def interrupted(path, framework):  # as the library does: what a handler raises becomes an error of its own
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise safetensors.SafetensorError from error
        with safe_open(path, framework) as stream:
            yield stream

    safe_open = safetensors.safe_open
    write_tensors(tmp_path / "a", {"x": torch.ones(2)}, {})
    monkeypatch.setattr(safetensors, "safe_open", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets its background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            read_tensors(tmp_path / "a")
    finally:
        signal.signal(signal.SIGINT, before)
