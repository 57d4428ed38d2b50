"""Every explanation method by name, and the one function that calls them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from mammodensity.errors import OptionError
from mammodensity.explanation.class_activation import grad_cam, grad_cam_plus_plus, hires_cam, layer_cam, score_cam
from mammodensity.explanation.passes import Categories
from mammodensity.explanation.pixel_methods import integrated_gradients, occlusion

LAYER_METHODS: Mapping[str, Callable[..., Tensor]] = {
    "grad-cam": grad_cam,
    "grad-cam++": grad_cam_plus_plus,
    "hires-cam": hires_cam,
    "layer-cam": layer_cam,
    "score-cam": score_cam,
}
"""Methods that show the features of a layer."""
PIXEL_METHODS: Mapping[str, Callable[..., Tensor]] = {
    "integrated-gradients": integrated_gradients,
    "occlusion": occlusion,
}
"""Methods that show the image's own pixels."""
METHODS: Mapping[str, Callable[..., Tensor]] = {**LAYER_METHODS, **PIXEL_METHODS}
"""Explanation methods of trained networks by name: functions of network, images, category and against."""
DEFAULT_METHOD = "grad-cam"


def explain_images(
    network: nn.Module,
    images: Tensor,
    category: Categories = None,
    *,
    method: str = DEFAULT_METHOD,
    against: Categories = None,
    layer: nn.Module | str | None = None,
) -> Tensor:
    """Show where in each image of a batch a category's logit comes from.

    Each image's map is what it would be alone, and the network is left as found, also after an error. A map holds what
    speaks for the category; the methods' own functions also give what speaks against it (``positive=False``).

    Parameters
    ----------
    network
        A module from (B, C, H, W) to logits (B, K), of any precision, frozen or not, also within ``torch.autocast``.
    images
        (B, C, H, W) float.
    category
        One for all images, or one each; None is each image's own predicted category.
    method
        One of ``METHODS``.
    against
        Explain why ``category`` rather than this one: by the difference of their logits. One for all images, or one
        each. The map is 0 where the predicted category is this very one.
    layer
        For the methods that show features, a module of the network or its dotted name. By default the last residual
        block, or in another network the last convolution.

    Returns
    -------
    (B, H, W) float32, not negative, unscaled, so that maps of one method can be compared.

    Raises
    ------
    OptionError
        There is no such method, category or layer, or the method takes no layer; or the images or the maps are not
        finite.
    """
    require_methods([method], layer)
    options = {} if layer is None else {"layer": layer}
    maps = METHODS[method](network, images, category, against=against, **options)
    if not maps.isfinite().all():
        raise OptionError(f"the maps of {method} are not finite: the network overflows; run it in float32 or bfloat16")
    return maps


def require_methods(names: list[str], layer: object = None) -> None:
    """Raise ``OptionError`` unless these are methods, each once, which take the ``layer`` if one is named."""
    for name in names:
        if name not in METHODS:
            raise OptionError(f"method must be one of {', '.join(METHODS)}. Got {name!r} instead.")
        if layer is not None and name in PIXEL_METHODS:
            raise OptionError(f"{name} looks at pixels and takes no layer; leave out the layer, or the method")
        if names.count(name) > 1:
            raise OptionError(f"each method can be asked for once, but {name} is there {names.count(name)} times")
