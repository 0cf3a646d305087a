"""Recipes, inputs and gradients drawn for the tests of hostile numbers."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from layouts import LAYOUTS, laid_out
from torch import Tensor
from toy_models import ORDERS

from torchfgsm import Recipe
from torchfgsm.parity.cases import NSL_WORDS

NORMS = ("linf", "l2", "l1")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
FINITE = ("normal", "tied", "zero", "subnormal", "tiny", "huge", "mixed")
NONFINITE = ("one NaN", "all NaN", "one inf", "all inf", "both")
EXPANDED = "expanded"  # all examples share the memory of the first


def _native(norm: str, length: float, turns: int, clip: tuple[float, float] | None) -> Recipe:
    low, high = clip or (None, None)
    iterated = {"iterations": turns, "epsilon": length} if turns > 1 else {}
    return Recipe(norm=norm, step=length, clip_min=low, clip_max=high, **iterated)  # type: ignore[arg-type]


def _nsl(norm: str, length: float, turns: int, clip: tuple[float, float] | None) -> Recipe:
    iterated = {"pgd_iterations": turns, "pgd_epsilon": length} if turns > 1 else {}
    return Recipe.nsl(length, NSL_WORDS[norm], *(clip or (None, None)), **iterated)  # type: ignore[arg-type]


def _cleverhans(preset: Callable[..., Recipe], word: str) -> Callable[..., Recipe]:
    def of(norm: str, length: float, turns: int, clip: tuple[float, float] | None) -> Recipe:
        low, high = clip or (None, None)
        once = turns == 1 or norm == "l1"  # CleverHans does not iterate under L1
        iterated = {} if once else {"eps_iter": length, "nb_iter": turns, "rand_init": False}
        return preset(eps=length, **{word: ORDERS[norm]}, clip_min=low, clip_max=high, **iterated)

    return of


def _cleverhans3_clip_grad(
    norm: str, length: float, turns: int, clip: tuple[float, float] | None
) -> Recipe:
    recipe = PRESETS["cleverhans3"](norm, length, turns, clip)
    return dataclasses.replace(recipe, clip_grad=clip is not None)


PRESETS: Mapping[str, Callable[..., Recipe]] = {
    "native": _native,
    "nsl": _nsl,
    "cleverhans3": _cleverhans(Recipe.cleverhans3, "ord"),
    "cleverhans3, clip_grad": _cleverhans3_clip_grad,
    "cleverhans_tf2": _cleverhans(Recipe.cleverhans_tf2, "norm"),
    "cleverhans_torch": _cleverhans(Recipe.cleverhans_torch, "norm"),
}


@dataclass(frozen=True)
class Drawn:
    """A recipe, and the numbers that it meets.

    Attributes:
        preset: Key of `PRESETS`.
        norm: The norm.
        dtype: Of inputs and gradients.
        structure: "tensor", or a "dict" or "list" of two features.
        shapes: One example of each feature.
        layouts: Strides of the inputs and of the gradients.
        rows: The kind of each example's gradient.
        scale: Inputs lie between -scale and scale.
        length: The step, and the radius of iterated recipes.
        turns: Number of steps.
        clip: Whether inputs are clipped to their range.
        seed: Of all values.
    """

    preset: str
    norm: str
    dtype: torch.dtype
    structure: str
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    layouts: tuple[str, str]
    rows: tuple[str, ...]
    scale: float
    length: float
    turns: int
    clip: bool
    seed: int

    @property
    def recipe(self) -> Recipe:
        clip = (-self.scale, self.scale) if self.clip else None
        return PRESETS[self.preset](self.norm, self.length, self.turns, clip)

    @property
    def whole_batch(self) -> bool:
        """Whether the recipe takes the batch for one example, as CleverHans' torch port does."""
        return self.recipe.scalar_examples == "joint" and () in self.shapes[: self.features]

    @property
    def features(self) -> int:
        return 1 if self.structure == "tensor" else 2

    @functools.cached_property
    def _values(self) -> tuple[list[Tensor], list[Tensor]]:
        generator = torch.Generator().manual_seed(self.seed)
        xs: list[Tensor] = []
        grads: list[Tensor] = []
        for shape in self.shapes[: self.features]:
            uniform = torch.rand(len(self.rows), *shape, generator=generator, dtype=torch.float64)
            x = ((2 * uniform - 1) * self.scale).to(self.dtype)
            rows = [hostile(kind, shape, self.dtype, generator) for kind in self.rows]
            xs.append(_laid_out(x, self.layouts[0]))
            grads.append(_laid_out(torch.stack(rows), self.layouts[1]))
        return xs, grads

    @property
    def xs(self) -> list[Tensor]:
        """The features."""
        return self._values[0]

    @property
    def grads(self) -> list[Tensor]:
        """Their gradients."""
        return self._values[1]

    def put(self, tensors: Sequence[Tensor]) -> Any:
        """The tensors in the structure of the input."""
        if self.structure == "tensor":
            return tensors[0]
        return dict(zip("ab", tensors, strict=True)) if self.structure == "dict" else list(tensors)


def hostile(
    kind: str, shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator
) -> Tensor:
    """One example's gradient."""
    info = torch.finfo(dtype)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    signs = torch.where(noise < 0, -1.0, 1.0).double()
    if kind in ("normal", *NONFINITE):
        row = noise
    elif kind == "mixed":  # from the smallest number to the largest
        exponents = torch.rand(shape, generator=generator, dtype=torch.float64)
        low, high = math.log2(info.smallest_normal) - 5, math.log2(info.max) - 1
        row = signs * torch.exp2(low + exponents * (high - low))
    elif kind == "subnormal":
        row = (
            signs
            * info.smallest_normal
            * info.eps
            * torch.randint(1, 9, shape, generator=generator)
        )
    else:
        size = {"tied": 0.7, "zero": 0.0, "tiny": info.smallest_normal, "huge": info.max}[kind]
        row = signs * size
    row = row.to(dtype).clone()
    flat = row.view(-1)
    if kind in ("one NaN", "both"):
        flat[0] = math.nan
    if kind in ("one inf", "both"):
        flat[-1] = -math.inf
    if kind.startswith("all"):
        flat[:] = math.nan if kind == "all NaN" else math.inf
    return row


def _laid_out(tensor: Tensor, layout: str) -> Tensor:
    if layout == EXPANDED:
        return tensor[:1].expand(tensor.shape)
    return laid_out(tensor, layout)


def draws(kinds: Sequence[str], **fixed: Any) -> st.SearchStrategy[Drawn]:
    shape = st.lists(st.sampled_from((1, 2, 3, 5)), max_size=3).map(tuple)
    layout = st.sampled_from((*LAYOUTS, EXPANDED))
    fields: dict[str, Any] = {
        "preset": st.sampled_from(sorted(PRESETS)),
        "norm": st.sampled_from(NORMS),
        "dtype": st.sampled_from(DTYPES),
        "structure": st.sampled_from(("tensor", "dict", "list")),
        "shapes": st.tuples(shape, shape),
        "layouts": st.tuples(layout, layout),
        "rows": st.lists(st.sampled_from(kinds), min_size=1, max_size=5).map(tuple),
        "scale": st.sampled_from((1.0, 0.001, 255.0, 30000.0)),
        "length": st.sampled_from((0.0, 1.0)) | st.floats(2.0**-10, 8.0),
        "turns": st.integers(1, 3),
        "clip": st.booleans(),
        "seed": st.integers(0, 2**31),
    }
    fields |= {name: st.just(value) for name, value in fixed.items()}
    return st.builds(Drawn, **fields)
