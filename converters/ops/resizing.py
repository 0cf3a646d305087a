"""Operations that change the size of images: Resize, Upsample, DepthToSpace, SpaceToDepth."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfgsm.converters.ops.operation import Host, argument, numbers
from torchfgsm.converters.ops.registry import (
    Build,
    Built,
    Function,
    constant,
    given,
    number,
    refuse,
)

_ROUNDING = 1e-4
_LINEAR = {3: "linear", 4: "bilinear", 5: "trilinear"}


@dataclass(frozen=True)
class Sampling:
    """How ONNX finds the numbers from which a resized one is made.

    Attributes:
        mode: "nearest", "linear" or "cubic".
        coordinates: ONNX's coordinate_transformation_mode.
        rounding: ONNX's nearest_mode.
        cubic: the coefficient of the cubic kernel.
        inside: whether neighbours outside of the image have no weight, and not the edge's value.
    """

    mode: str = "nearest"
    coordinates: str = "half_pixel"
    rounding: str = "round_prefer_floor"
    cubic: float = -0.75
    inside: bool = False

    def places(self, size: int, target: int, scale: float | None, like: Tensor) -> Tensor:
        """Returns where along an axis of ``size`` the ``target`` new numbers lie, (target,)."""
        new = torch.arange(target, dtype=like.dtype, device=like.device)
        step = size / target if scale is None else 1 / scale
        if self.coordinates == "align_corners":
            return new * ((size - 1) / (target - 1) if target > 1 else 0.0)
        if self.coordinates == "asymmetric":
            return new * step
        if self.coordinates == "tf_half_pixel_for_nn":
            return (new + 0.5) * step
        if self.coordinates == "pytorch_half_pixel" and target == 1:
            return torch.zeros_like(new)
        return (new + 0.5) * step - 0.5

    def neighbours(self, places: Tensor, size: int) -> list[tuple[Tensor, Tensor | None]]:
        """Returns (index, weight) of each neighbour of the places; weight None for 1."""
        if self.mode == "nearest":
            return [(self._nearest(places).clamp(0, size - 1).long(), None)]
        if self.mode == "linear":
            # Beyond the outermost numbers the edge's value goes on.
            places = places.clamp(0, size - 1)
        below = torch.floor(places)
        offsets = (0, 1) if self.mode == "linear" else (-1, 0, 1, 2)
        indices = [below + offset for offset in offsets]
        weights = [self._weight((places - index).abs()) for index in indices]
        if self.inside:
            weights = [
                torch.where((i >= 0) & (i < size), w, 0.0)
                for i, w in zip(indices, weights, strict=True)
            ]
            whole = torch.stack(weights).sum(0)
            weights = [weight / whole for weight in weights]
        indices = [index.clamp(0, size - 1).long() for index in indices]
        return list(zip(indices, weights, strict=True))

    def _nearest(self, places: Tensor) -> Tensor:
        if self.rounding == "floor":
            return torch.floor(places)
        if self.rounding == "ceil":
            return torch.ceil(places)
        up = self.rounding == "round_prefer_ceil"
        return torch.floor(places + 0.5) if up else torch.ceil(places - 0.5)

    def _weight(self, distance: Tensor) -> Tensor:
        if self.mode == "linear":
            return 1 - distance
        a, d = self.cubic, distance
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        return torch.where(d <= 1, near, ((a * d - 5 * a) * d + 8 * a) * d - 4 * a)


class Resize(nn.Module):
    """ONNX Resize to fixed sizes or by fixed factors.

    Args:
        sampling: how the new numbers are found.
        sizes: new sizes by axis; axes that are not named keep theirs.
        scales: factors by axis, where there are no sizes at all.
    """

    def __init__(
        self, sampling: Sampling, sizes: Mapping[int, int], scales: Mapping[int, float]
    ) -> None:
        super().__init__()
        self.sampling, self.sizes, self.scales = sampling, dict(sizes), dict(scales)

    def forward(self, x: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """Resizes ``x``, to a whole shape where the graph computes one."""
        sizes, scales = self._targets(x)
        if shape is not None:
            sizes = {i: n for i, n in enumerate(shape) if i > 1}
        mode = None if scales else self._torch_mode(x.dim(), sizes)
        if mode is not None:
            spatial = [sizes.get(i, n) for i, n in enumerate(x.shape)][2:]
            corners = self.sampling.coordinates == "align_corners"
            align = None if mode.startswith("nearest") else corners
            return F.interpolate(x, size=spatial, mode=mode, align_corners=align)
        for axis, target in sizes.items():
            x = self._along(x, axis, target, scales.get(axis))
        return x

    def _targets(self, x: Tensor) -> tuple[dict[int, int], dict[int, float]]:
        """Returns the new sizes, and the factors of those that had to be rounded down."""
        sizes, scales = dict(self.sizes), {}
        for axis, scale in self.scales.items():
            exact = x.shape[axis] * (int(scale) if scale.is_integer() else scale)
            sizes[axis] = round(exact)
            # The factors are float32: 7 / 3 of 3 is less than 7.
            if abs(exact - sizes[axis]) > _ROUNDING:
                sizes[axis], scales[axis] = int(exact), scale
        return sizes, scales

    def _along(self, x: Tensor, axis: int, target: int, scale: float | None) -> Tensor:
        places = self.sampling.places(x.shape[axis], target, scale, x)
        shape = [-1] + [1] * (x.dim() - 1 - axis)
        parts = [
            x.index_select(axis, index) * (1.0 if weight is None else weight.reshape(shape))
            for index, weight in self.sampling.neighbours(places, x.shape[axis])
        ]
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]

    def _torch_mode(self, rank: int, axes: Collection[int]) -> str | None:
        """Returns torch's name of this resampling, None where torch has another one or none."""
        s = self.sampling
        if rank not in _LINEAR or min(axes, default=2) < 2:
            return None
        if s.mode == "nearest" and s.rounding == "floor":
            modes = {"asymmetric": "nearest", "tf_half_pixel_for_nn": "nearest-exact"}
            return modes.get(s.coordinates)
        corners_or_middles = ("align_corners", "half_pixel", "pytorch_half_pixel")
        linear = s.mode == "linear" and s.coordinates in corners_or_middles and not s.inside
        return _LINEAR[rank] if linear else None


def depth_to_space(x: Tensor, *, block: int, rows_first: bool) -> Tensor:
    """Moves channels (N, C * block^2, H, W) into blocks of (N, C, H * block, W * block)."""
    n, c, h, w = x.shape
    if not rows_first:
        return F.pixel_shuffle(x, block)
    x = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n, c // block**2, h * block, w * block)


def space_to_depth(x: Tensor, *, block: int) -> Tensor:
    """Moves blocks of (N, C, H * block, W * block) into channels (N, block^2 * C, H, W)."""
    n, c, h, w = x.shape
    x = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(n, c * block**2, h // block, w // block)


def _resize(node: Any, graph: Any) -> Built:
    a = node.attributes
    if a.get("antialias"):
        refuse(node, "expected no antialias; resize before the model")
    if a.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        refuse(node, "expected the aspect ratio policy 'stretch'; give the sizes")
    sampling = Sampling(
        a.get("mode", "nearest"),
        a.get("coordinate_transformation_mode", "half_pixel"),
        a.get("nearest_mode", "round_prefer_floor"),
        number(node, "cubic_coeff_a", -0.75),
        bool(a.get("exclude_outside")),
    )
    if len(node.input_values) == 2:  # opset 10
        sampling = Sampling(sampling.mode, "asymmetric", "floor")
    if sampling.coordinates in ("tf_crop_and_resize", "half_pixel_symmetric"):
        refuse(node, f"the coordinates {sampling.coordinates!r} are not supported; crop before")
    if given(node, 3):
        return _to_sizes(node, graph, sampling)
    place = 2 if given(node, 2) else 1
    scales = argument(node, graph, place)
    if scales is None:
        refuse(node, "expected constant scales; give the input a size")
    return Resize(sampling, {}, _changing(node, scales, 1)), node.input_values[:1]


def _to_sizes(node: Any, graph: Any, sampling: Sampling) -> Built:
    sizes = numbers(node, graph, 3)
    if not isinstance(sizes, Host):
        return Resize(sampling, _changing(node, sizes, None), {}), node.input_values[:1]
    if "axes" in node.attributes:
        refuse(node, "expected constant sizes with axes; give the input a size")
    return Resize(sampling, {}, {}), (node.input_values[0], sizes)


def _changing(node: Any, values: Sequence[Any], unchanged: Any) -> dict[int, Any]:
    """Returns the sizes or factors by axis, of the axes that change."""
    axes = node.attributes.get("axes") or range(len(values))
    return {i: v for i, v in zip(axes, values, strict=True) if v != unchanged}


def _upsample(node: Any, graph: Any) -> Built:
    scales = node.attributes.get("scales") or constant(node, graph, 1)
    sampling = Sampling(node.attributes.get("mode", "nearest"), "asymmetric", "floor")
    factors = {i: float(s) for i, s in enumerate(scales) if s != 1}
    return Resize(sampling, {}, factors), node.input_values[:1]


def _depth_to_space(node: Any, graph: Any) -> Built:
    rows_first = node.attributes.get("mode", "DCR") == "DCR"
    block = node.attributes["blocksize"]
    return Function(depth_to_space, block=block, rows_first=rows_first), node.input_values


def _space_to_depth(node: Any, graph: Any) -> Built:
    return Function(space_to_depth, block=node.attributes["blocksize"]), node.input_values


BUILDERS: dict[str, Build] = {
    "DepthToSpace": _depth_to_space,
    "Resize": _resize,
    "SpaceToDepth": _space_to_depth,
    "Upsample": _upsample,
}
