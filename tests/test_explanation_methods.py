"""Every explanation method: hand arithmetic, captum, batches, mixed precision, and the network left as found."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import mammodensity
from mammodensity.errors import OptionError
from mammodensity.explanation.class_activation import grad_cam, grad_cam_plus_plus, hires_cam, layer_cam, score_cam
from mammodensity.explanation.methods import LAYER_METHODS, METHODS, PIXEL_METHODS
from mammodensity.explanation.pixel_methods import integrated_gradients, occlusion
from mammodensity.models.network import NetworkSpec, ResidualNetwork

attr = pytest.importorskip("captum.attr")
TINY = NetworkSpec(stem=4, widths=(4, 6), outputs=(6, 8), depths=(2, 1))
every_method = pytest.mark.parametrize("method", METHODS)


class TwoFilters(nn.Module):
    """Two 1x1 filters x and -2x, rectified in place, mean over the image, three logits: arithmetic by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Conv2d(1, 2, 1, bias=False)
        self.rectified = nn.ReLU(inplace=True)
        self.head = nn.Linear(2, 3, bias=False)
        with torch.no_grad():
            self.filters.weight.copy_(torch.tensor([1.0, -2.0]).reshape(2, 1, 1, 1))
            self.head.weight.copy_(torch.tensor([[3.0, 1.0], [-1.0, 4.0], [0.0, 0.0]]))

    def forward(self, images):
        return self.head(self.rectified(self.filters(images)).mean((2, 3)))


# x, and after the rectifier the features max(x, 0) and max(-2x, 0)
IMAGE = torch.tensor([[[[1.0, -1.0], [2.0, 0.0]]]])
FEATURES = torch.tensor([[[1.0, 0.0], [2.0, 0.0]], [[0.0, 2.0], [0.0, 0.0]]])
AFTER = {"layer": "rectified", "positive": False, "upsample": False}


@pytest.fixture
def network():
    torch.manual_seed(1)
    network = ResidualNetwork(TINY)
    network.train()(torch.rand(8, 1, 40, 40))  # batch statistics that are not the initial ones
    return network.eval()


@pytest.fixture
def images():
    return torch.rand(4, 1, 40, 33, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(
    ("category", "against", "gradients"),
    [(0, None, (3 / 4, 1 / 4)), (1, None, (-1 / 4, 4 / 4)), (1, 0, (-4 / 4, 3 / 4)), (0, 2, (3 / 4, 1 / 4))],
)
def test_activation_maps_by_hand(category, against, gradients):
    """After the rectifier only a mean and the head follow, so the gradient is one number a feature."""
    both = torch.tensor(gradients)[:, None, None]
    chosen = {"category": category, "against": against, **AFTER}
    assert torch.allclose(grad_cam(TwoFilters(), IMAGE, **chosen)[0], (both * FEATURES).sum(0))
    assert torch.allclose(hires_cam(TwoFilters(), IMAGE, **chosen)[0], (both * FEATURES).sum(0))
    assert torch.allclose(layer_cam(TwoFilters(), IMAGE, **chosen)[0], (both.relu() * FEATURES).sum(0))
    # The paper's weights as printed: sum over the 4 pixels of g^2 / (2 g^2 + S g^3) * max(g, 0), with S = 3 and 2.
    weights = [4 * g**2 / (2 * g**2 + total * g**3) * max(g, 0) for g, total in zip(gradients, (3, 2), strict=True)]
    expected = (torch.tensor(weights)[:, None, None] * FEATURES).sum(0)
    assert torch.allclose(grad_cam_plus_plus(TwoFilters(), IMAGE, **chosen)[0], expected)


def test_methods_differ_where_the_gradient_does():
    """Before the rectifier the gradient is head / 4 where a pixel passes, else 0."""
    before = {"layer": "filters", "positive": False, "upsample": False}
    x = IMAGE[0, 0]
    passes = torch.stack([x > 0, x < 0]).float()
    gradients = passes * torch.tensor([-1.0, 4.0])[:, None, None] / 4
    features = torch.stack([x, -2 * x])
    means = gradients.mean((1, 2), keepdim=True)
    assert torch.allclose(grad_cam(TwoFilters(), IMAGE, 1, **before)[0], (means * features).sum(0))
    assert torch.allclose(hires_cam(TwoFilters(), IMAGE, 1, **before)[0], (gradients * features).sum(0))
    assert torch.allclose(layer_cam(TwoFilters(), IMAGE, 1, **before)[0], (gradients.relu() * features).sum(0))
    # One pixel passes filter 1, with gradient 1; its positive features sum to 2.
    assert torch.allclose(grad_cam_plus_plus(TwoFilters(), IMAGE, 1, **before)[0], 1 / (2 + 2) * features[1])


def test_score_cam_by_hand():
    # Masks: features stretched to 0..1. Seen through them with black = 0: (0.5, 0; 2, 0) and (0, -1; 0, 0).
    # Logits of category 0: 3 * mean(max(x, 0)) + mean(max(-2x, 0)), so 3 * 2.5 / 4 and 2 / 4.
    first, second = math.exp(3 * 2.5 / 4), math.exp(2 / 4)
    expected = (first * FEATURES[0] + second * FEATURES[1]) / (first + second)
    assert torch.allclose(score_cam(TwoFilters(), IMAGE, 0, fill=0.0, **AFTER)[0], expected)
    # Less category 1: -mean(max(x, 0)) + 4 mean(max(-2x, 0)), so 4 * 2.5 / 4 and -3 * 2 / 4.
    first, second = math.exp(4 * 2.5 / 4), math.exp(-3 * 2 / 4)
    expected = (first * FEATURES[0] + second * FEATURES[1]) / (first + second)
    assert torch.allclose(score_cam(TwoFilters(), IMAGE, 0, against=1, fill=0.0, **AFTER)[0], expected)
    # The darkest value, -1, is what masks hide by default: seen through them (0, -1; 2, -1) and -1 everywhere.
    first, second = math.exp(3 * 2 / 4 + (2 + 2) / 4), math.exp((2 + 2 + 2 + 2) / 4)
    expected = (first * FEATURES[0] + second * FEATURES[1]) / (first + second)
    assert torch.allclose(score_cam(TwoFilters(), IMAGE, 0, **AFTER)[0], expected)


def test_features_of_one_value_say_nothing_to_score_cam():
    network = TwoFilters()
    positive = IMAGE.abs()  # filter 1 gives 0 everywhere: only filter 0 counts
    assert torch.allclose(score_cam(network, positive, 0, **AFTER)[0], positive[0, 0])
    assert not score_cam(network, torch.ones(1, 1, 2, 2), 0).any()


def test_integrated_gradients_by_hand():
    exact = {"fill": 0.0, "noise": 0, "blur": 0, "positive": False}
    # Along the way from 0 each pixel keeps its sign: gradient 3/4 where x > 0, and -2 * 1/4 where x < 0.
    expected = torch.tensor([[3 / 4, 2 / 4], [6 / 4, 0]])
    network = TwoFilters()
    assert torch.allclose(integrated_gradients(network, IMAGE, 0, steps=3, **exact)[0], expected)
    assert expected.sum() == network(IMAGE)[0, 0]
    less = torch.tensor([[-1 / 4, 8 / 4], [-2 / 4, 0]])
    assert torch.allclose(integrated_gradients(network, IMAGE, 0, against=1, **exact)[0], expected - less)
    # From the darkest, -1, the pixel 1 spends half of its way below 0 with gradient -2/4 and half above with 3/4.
    from_dark = integrated_gradients(network, IMAGE, 0, steps=8, **(exact | {"fill": None}))[0]
    assert torch.allclose(from_dark[0], torch.tensor([2 * (0.5 * -2 / 4 + 0.5 * 3 / 4), 0]))


def test_occlusion_by_hand():
    pixel = {"fill": 0.0, "window": (1, 1), "stride": (1, 1), "positive": False}
    network = TwoFilters()
    assert torch.allclose(occlusion(network, IMAGE, 0, **pixel)[0], torch.tensor([[3 / 4, 2 / 4], [6 / 4, 0]]))
    expected = torch.tensor([[4 / 4, -6 / 4], [8 / 4, 0]])
    assert torch.allclose(occlusion(network, IMAGE, 0, against=1, **pixel)[0], expected)
    assert torch.allclose(occlusion(network, IMAGE, 0, against=1, **(pixel | {"positive": True}))[0], expected.relu())
    # Columns hidden one after the other: each pixel is the fall of its column.
    columns = occlusion(network, IMAGE, 0, **(pixel | {"window": (2, 1)}))[0]
    assert torch.allclose(columns, torch.tensor([[9 / 4, 2 / 4], [9 / 4, 2 / 4]]))


@pytest.mark.parametrize("layer", ["stages.0", "stages.1", "stages.0.1.conv2", "conv"])
@pytest.mark.parametrize("category", [0, 3])
def test_captum_agrees_on_layers(network, images, layer, category):
    module = network.get_submodule(layer)
    plain = {"layer": layer, "positive": False, "upsample": False}
    oracle = attr.LayerGradCam(network, module).attribute(images, target=category)[:, 0]
    assert torch.allclose(grad_cam(network, images, category, **plain), oracle.detach(), atol=1e-6)
    oracle = attr.LayerGradientXActivation(network, module).attribute(images, target=category).sum(1)
    assert torch.allclose(hires_cam(network, images, category, **plain), oracle.detach(), atol=1e-6)


def _contrast(network):
    """Why D rather than B, as a function for captum."""

    def difference(images):
        logits = network(images)
        return logits[:, 3] - logits[:, 1]

    return difference


def test_captum_agrees_on_pixels(network, images):
    oracle = attr.IntegratedGradients(network).attribute(
        images, baselines=-0.1, target=2, n_steps=12, method="riemann_middle"
    )
    plain = {"fill": -0.1, "positive": False}
    ours = integrated_gradients(network, images, 2, steps=12, noise=0, blur=0, **plain)
    assert torch.allclose(ours, oracle[:, 0].float(), atol=1e-6)
    for window, stride in (((7, 6), (3, 5)), ((5, 5), (5, 5)), ((40, 33), (1, 1)), ((1, 33), (1, 33))):
        oracle = attr.Occlusion(network).attribute(
            images, baselines=-0.1, target=2, sliding_window_shapes=(1, *window), strides=(1, *stride)
        )
        ours = occlusion(network, images, 2, window=window, stride=stride, **plain)
        assert torch.allclose(ours, oracle[:, 0], atol=1e-6)


def test_captum_agrees_on_contrasts(network, images):
    why = {"category": "D", "against": "B", "positive": False}
    oracle = attr.IntegratedGradients(_contrast(network)).attribute(
        images, baselines=0, n_steps=12, method="riemann_middle"
    )
    ours = integrated_gradients(network, images, steps=12, noise=0, blur=0, fill=0, **why)
    assert torch.allclose(ours, oracle[:, 0].float(), atol=1e-6)
    oracle = attr.Occlusion(_contrast(network)).attribute(
        images, baselines=0, sliding_window_shapes=(1, 8, 8), strides=(1, 4, 4)
    )
    assert torch.allclose(
        occlusion(network, images, window=(8, 8), stride=(4, 4), fill=0, **why), oracle[:, 0], atol=1e-6
    )
    oracle = attr.LayerGradCam(_contrast(network), network.last_block).attribute(images)[:, 0]
    assert torch.allclose(grad_cam(network, images, upsample=False, **why), oracle.detach(), atol=1e-6)


def test_smoothing_is_the_mean_over_noisy_images(network, images):
    generator = torch.Generator().manual_seed(7)
    spread = 0.2 * (images.amax((1, 2, 3), True) - images.amin((1, 2, 3), True))
    oracle = torch.zeros_like(images)
    for _ in range(3):
        noisy = images + spread * torch.randn(images.shape[1:], generator=generator)
        oracle += (
            attr.IntegratedGradients(network).attribute(
                noisy, baselines=0, target=1, n_steps=5, method="riemann_middle"
            )
            / 3
        )
    settings = {"fill": 0, "steps": 5, "samples": 3, "noise": 0.2, "blur": 0, "positive": False}
    ours = integrated_gradients(network, images, 1, seed=7, **settings)
    assert torch.allclose(ours, oracle[:, 0].float(), atol=1e-6)
    assert not torch.allclose(ours, integrated_gradients(network, images, 1, seed=8, **settings), atol=1e-4)
    before = torch.random.get_rng_state()
    assert torch.equal(ours, integrated_gradients(network, images, 1, seed=7, **settings))
    assert torch.equal(before, torch.random.get_rng_state())


def test_blur_is_a_gaussian():
    from scipy.ndimage import gaussian_filter

    network, image = TwoFilters(), torch.zeros(1, 1, 50, 40)
    image[0, 0, 20:, 10:14] = 1
    plain = {"noise": 0, "positive": False}
    sharp = integrated_gradients(network, image, 0, blur=0, **plain)[0].numpy()
    blurred = integrated_gradients(network, image, 0, blur=0.05, **plain)[0].numpy()
    assert np.allclose(blurred, gaussian_filter(sharp, 2.5, mode="nearest", radius=8), atol=1e-6)


def test_integrated_gradients_are_complete(network, images):
    """They sum to the difference of the logits."""
    settings = {"noise": 0, "blur": 0, "positive": False, "fill": 0.0}
    found = integrated_gradients(network, images, 1, steps=256, **settings).sum((1, 2))
    difference = (network(images) - network(torch.zeros_like(images)))[:, 1]
    assert torch.allclose(found, difference.detach(), rtol=0.01, atol=1e-3)


def test_hires_cam_of_the_last_block_sums_to_the_logit(network, images):
    signed = hires_cam(network, images, "C", positive=False, upsample=False)
    assert torch.allclose(signed.sum((1, 2)), network(images)[:, 2] - network.head.bias[2], atol=1e-5)


@every_method
def test_batch_equals_singles(network, images, method):
    wanted, others = ["A", 3, 2, None], [None, "B", None, "A"]
    together = mammodensity.explain_images(network, images, wanted, method=method, against=others)
    assert together.shape == (4, 40, 33)
    assert together.dtype == torch.float32
    assert all(one.any() for one in together)
    for index, (category, against) in enumerate(zip(wanted, others, strict=True)):
        alone = mammodensity.explain_images(
            network, images[index : index + 1], category, method=method, against=against
        )
        assert torch.allclose(alone[0], together[index], atol=1e-6)


@every_method
def test_how_many_at_once_does_not_matter(network, images, method):
    if method in ("score-cam", "integrated-gradients", "occlusion"):
        first, second = (METHODS[method](network, images, at_once=count) for count in (1, 5))
        assert torch.allclose(first, second, atol=1e-6)


@every_method
def test_predicted_category_is_the_default(network, images, method):
    predicted = network(images).argmax(1).tolist()
    own = mammodensity.explain_images(network, images, method=method)
    assert torch.equal(own, mammodensity.explain_images(network, images, predicted, method=method))
    other = [(index + 1) % 4 for index in predicted]
    assert not torch.equal(own, mammodensity.explain_images(network, images, other, method=method))


@every_method
def test_a_contrast_is_another_question(network, images, method):
    plain = mammodensity.explain_images(network, images, "C", method=method)
    why = mammodensity.explain_images(network, images, "C", method=method, against="B")
    assert not torch.allclose(plain, why, atol=1e-4)
    predicted = network(images).argmax(1).tolist()
    assert not mammodensity.explain_images(network, images, method=method, against=predicted).any()
    with pytest.raises(OptionError, match="cannot be set against itself"):
        mammodensity.explain_images(network, images, "C", method=method, against=2)


@pytest.mark.parametrize("method", ["grad-cam", "hires-cam", "integrated-gradients", "occlusion"])
def test_signed_maps_of_swapped_contrasts_are_opposite(network, images, method):
    size = {"upsample": False} if method in LAYER_METHODS else {}
    one = METHODS[method](network, images, "C", against="B", positive=False, **size)
    other = METHODS[method](network, images, "B", against="C", positive=False, **size)
    assert torch.allclose(one, -other, atol=1e-6)
    assert torch.equal(METHODS[method](network, images, "C", against="B", **size), one.relu())


@every_method
@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_the_network_is_left_as_found(network, images, method, failing, training):
    network.train(training)
    network.norm.eval()  # a mixed state must survive, too
    for parameter in network.conv.parameters():
        parameter.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    needed = [parameter.requires_grad for parameter in network.parameters()]
    untouched = images.clone()
    if failing:
        with pytest.raises(RuntimeError):
            mammodensity.explain_images(network, images.expand(-1, 2, -1, -1), 0, method=method)
    else:
        with torch.no_grad():  # also where the caller has switched gradients off
            assert mammodensity.explain_images(network, images, 0, method=method).any()
        assert torch.is_grad_enabled()
    assert torch.equal(images, untouched)
    assert [module.training for module in network.modules()] == modes
    assert [parameter.requires_grad for parameter in network.parameters()] == needed
    assert all(not module._forward_hooks and not module._backward_hooks for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("method", ["score-cam", "integrated-gradients", "occlusion"])
def test_an_error_halfway_leaves_the_network_as_found(network, images, method, monkeypatch):
    network.train()
    passes, forward = [], network.head.forward

    def failing(features):
        passes.append(len(features))
        if len(passes) == 3:
            raise RuntimeError("out of memory")
        return forward(features)

    monkeypatch.setattr(network.head, "forward", failing)
    with pytest.raises(RuntimeError, match="out of memory"):
        mammodensity.explain_images(network, images, 0, method=method)
    assert all(module.training and not module._forward_hooks for module in network.modules())
    assert torch.is_grad_enabled()


@every_method
def test_frozen_weights_and_inference_mode(network, images, method):
    expected = mammodensity.explain_images(network, images, 2, method=method)
    network.requires_grad_(False)
    assert torch.allclose(mammodensity.explain_images(network, images, 2, method=method), expected, atol=1e-6)
    with torch.inference_mode():
        assert torch.allclose(
            mammodensity.explain_images(network, images.clone(), 2, method=method), expected, atol=1e-6
        )


@every_method
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_mixed_precision(network, images, method, precision):
    expected = mammodensity.explain_images(network, images, 2, method=method)
    with torch.autocast("cpu", dtype=precision):
        mixed = mammodensity.explain_images(network, images, 2, method=method)
        alone = mammodensity.explain_images(network, images[1:2], 2, method=method)
        from_half = mammodensity.explain_images(network, images.to(precision), 2, method=method)
    assert torch.corrcoef(torch.stack([from_half.flatten(), expected.flatten()]))[0, 1] > 0.95
    assert mixed.dtype == torch.float32
    assert mixed.isfinite().all()
    for one, other in zip(mixed.flatten(1), expected.flatten(1), strict=True):
        assert torch.corrcoef(torch.stack([one, other]))[0, 1] > 0.98
        assert (one - other).norm() < 0.15 * other.norm()
    assert (alone[0] - mixed[1]).norm() < 0.05 * mixed[1].norm()


@every_method
def test_a_network_in_bfloat16_and_one_in_double(network, images, method):
    expected = mammodensity.explain_images(network, images, 2, method=method)
    exact = mammodensity.explain_images(network.double(), images.double(), 2, method=method)
    assert exact.dtype == torch.float32
    assert torch.allclose(exact, expected, atol=1e-5)
    coarse = mammodensity.explain_images(network.bfloat16(), images.bfloat16(), 2, method=method)
    assert coarse.dtype == torch.float32
    assert torch.corrcoef(torch.stack([coarse.flatten(), expected.flatten()]))[0, 1] > 0.9


def test_small_gradients_survive_half_precision(network, images):
    """A mean over many pixels makes gradients that float16 would round to 0."""

    def tiny(scale):
        with torch.no_grad():
            scaled = ResidualNetwork(TINY).eval()
            scaled.load_state_dict(network.state_dict())
            scaled.head.weight *= scale
        return scaled

    large = mammodensity.explain_images(network, images, 2)
    with torch.autocast("cpu", dtype=torch.float16):
        small = mammodensity.explain_images(tiny(1e-6), images, 2)
    assert torch.corrcoef(torch.stack([small.flatten(), large.flatten()]))[0, 1] > 0.98


def test_in_place_operations_after_the_layer(images):
    class Plain(nn.Module):
        def __init__(self, inplace: bool) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.conv, self.act = nn.Conv2d(1, 5, 3, padding=1), nn.ReLU(inplace=inplace)
            self.head = nn.Linear(5, 4)
            self.inplace = inplace

        def forward(self, images):
            images = images.mul_(2) if self.inplace else images * 2
            return self.head(self.act(self.conv(images)).mean((2, 3)))

    for method in METHODS:
        before = images.clone()
        in_place = mammodensity.explain_images(Plain(inplace=True), images, 1, method=method)
        assert torch.allclose(in_place, mammodensity.explain_images(Plain(inplace=False), images, 1, method=method))
        assert torch.equal(images, before)


def test_colour_channels_and_a_layer_by_module(images):
    torch.manual_seed(2)
    network = ResidualNetwork(NetworkSpec(channels=3, stem=4, widths=(4, 6), outputs=(6, 8), depths=(1, 1))).eval()
    batch = images.expand(-1, 3, -1, -1)
    for method in METHODS:
        assert mammodensity.explain_images(network, batch, 1, method=method).shape == (4, 40, 33)
    for method in LAYER_METHODS:
        by_name = mammodensity.explain_images(network, batch, 1, method=method, layer="stages.0")
        assert torch.equal(
            by_name, mammodensity.explain_images(network, batch, 1, method=method, layer=network.stages[0])
        )
        assert not torch.equal(by_name, mammodensity.explain_images(network, batch, 1, method=method))


def test_a_window_that_hides_nothing_costs_nothing(network, images):
    runs = []
    network.head.register_forward_hook(lambda _module, inputs, _output: runs.append(len(inputs[0])))
    black = torch.zeros_like(images)
    black[:, :, :10, :8] = images[:, :, :10, :8]
    maps = occlusion(network, black, 0, fill=0.0, window=(10, 8), stride=(10, 8), positive=False)
    assert sum(runs) == 4 + 4  # the images, and one window in each
    assert maps[:, :10, :8].all()
    assert not maps[:, 10:].any()
    assert not occlusion(network, torch.zeros_like(images), 0).any()


def test_what_cannot_be_explained(network, images):
    for arguments, message in (
        ({"method": "magic"}, "method must be one of grad-cam, "),
        ({"category": "E"}, "category must be A, B, C, D"),
        ({"against": 4}, "index below 4"),
        ({"category": [0]}, "Got 1 for 4 images"),
        ({"against": [0, None]}, "Got 2 for 4 images"),
    ):
        with pytest.raises(OptionError, match=message):
            mammodensity.explain_images(network, images, **arguments)
    for method in METHODS:
        for wrong in (images[0], images.to(torch.uint8), images[:0], images.numpy()):
            with pytest.raises(OptionError, match="images must be a float tensor"):
                mammodensity.explain_images(network, wrong, method=method)
        with pytest.raises(OptionError, match="images must be finite"):
            mammodensity.explain_images(network, images.clone().fill_(float("nan")), method=method)
    for method in PIXEL_METHODS:
        with pytest.raises(OptionError, match="takes no layer"):
            mammodensity.explain_images(network, images, method=method, layer="stages.0")
    for method in LAYER_METHODS:
        for layer, message in (("stages.7", "no layer"), ("head", r"must give features \(B, F, h, w\)")):
            with pytest.raises(OptionError, match=message):
                mammodensity.explain_images(network, images, method=method, layer=layer)
    for wrong in ({"steps": 0}, {"samples": 0}, {"noise": -1}, {"blur": -0.1}, {"at_once": 0}):
        with pytest.raises(OptionError, match="must be at least"):
            integrated_gradients(network, images, **wrong)
    for wrong in ({"window": (41, 3)}, {"window": (4, 4), "stride": (5, 4)}, {"stride": (0, 1)}):
        with pytest.raises(OptionError, match="window must fit in 40 x 33"):
            occlusion(network, images, **wrong)
    with torch.no_grad():
        network.head.weight.fill_(float("inf"))
    with pytest.raises(OptionError, match="maps of grad-cam are not finite"):
        mammodensity.explain_images(network, images, 0)
