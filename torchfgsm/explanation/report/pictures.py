"""The figures of the page: pictures of examples as PNG, accuracy by step length as SVG."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from torchfgsm.explanation.report.examples import as_images, chosen, image_features
from torchfgsm.explanation.report.formatting import number, shown
from torchfgsm.explanation.report.verdict import names
from torchfgsm.explanation.result import Array, Explanation

_EXAMPLES = 8
_PIXELS = 160
_POSITIVE, _NEGATIVE = np.array([200.0, 75, 20]), np.array([20.0, 95, 180])
# What a plot is drawn in, and the page's own colours that take their place in light and dark.
_INK, _A, _B, _CLEAN = "#010203", "#0a0b01", "#0a0b02", "#0a0b03"
_ON_THE_PAGE = {
    _INK: "currentColor", _A: "var(--a)", _B: "var(--b)", _CLEAN: "var(--muted)",
}  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """One picture of one example.

    Attributes:
        source: The picture as a data URI.
        alt: What it shows.
        caption: The predicted label, or "".
    """

    source: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Grid:
    """One feature of some examples: a column for the input and each perturbation.

    Attributes:
        feature: Its name.
        columns: The headings.
        scales: The value at full colour of each column.
        colour: Whether they have three channels.
        rows: The example's heading and its pictures.
    """

    feature: str
    columns: tuple[str, ...]
    scales: tuple[str, ...]
    colour: bool
    rows: tuple[tuple[str, tuple[Picture, ...]], ...]


def grids(explanation: Explanation) -> tuple[Grid, ...]:
    """Pictures of the examples that show most, for every feature that is an image.

    Raises:
        ImportError: Matplotlib is missing.
    """
    examples = chosen(explanation, _EXAMPLES)
    return tuple(_grid(explanation, name, examples) for name in image_features(explanation))


def _grid(explanation: Explanation, name: str, examples: Sequence[int]) -> Grid:
    a, b = names(explanation)
    sides = (explanation.a, explanation.b)
    clean = _pixels(explanation.inputs[name], examples)
    first, second = (_pixels(side.perturbations[name], examples) for side in sides)
    low, high = _range(clean)
    moved = (first, second, second - first)
    scales = [_largest(values) for values in moved]
    predictions = (explanation.a.predictions, explanation.b.predictions, np.zeros(0))
    whats = (f"perturbation by {a}", f"perturbation by {b}", "difference of the perturbations")
    rows = []
    for row, example in enumerate(examples):
        before = _predicted(explanation.clean_predictions, example)
        pictures = [_picture(_grey(clean[row], low, high), "input", before, example)]
        for what, values, scale, predicted in zip(whats, moved, scales, predictions, strict=True):
            pixels = _signed(values[row], scale)
            pictures.append(_picture(pixels, what, _predicted(predicted, example), example))
        rows.append((_heading(explanation, example), tuple(pictures)))
    full = tuple(f"full colour at {number(scale)}" if scale else "all zero" for scale in scales)
    return Grid(
        feature=name,
        columns=("input", a, b, "difference, b less a"),
        scales=(f"{number(low)} to {number(high)}", *full),
        colour=clean.shape[-1] == 3,
        rows=tuple(rows),
    )


def _heading(explanation: Explanation, example: int) -> str:
    labels = explanation.labels
    if not 0 < labels.ndim < 3 or labels.dtype.kind not in "iubf":
        return f"example {example}"
    label = labels[example] if labels.ndim == 1 else labels[example].argmax()
    return f"example {example}, label {shown(label)}"


def _predicted(predictions: Array, example: int) -> str:
    if predictions.ndim != 1 or example >= len(predictions):
        return ""
    return f"predicted {shown(predictions[example])}"


def _pixels(values: Array, examples: Sequence[int]) -> Array:
    """Some examples as (n, H, W, C) in float64; of a large one every second pixel, or fewer."""
    images = as_images(values[list(examples)])
    if images is None:
        raise ValueError(f"expected images, got values of shape {values.shape}")
    every = math.ceil(max(images.shape[1:3]) / _PIXELS)
    pixels: Array = images[:, ::every, ::every].astype(np.float64)
    return pixels


def _range(clean: Array) -> tuple[float, float]:
    """Black and white of the inputs: [0, 1] where they lie within, else their own range."""
    found = clean[np.isfinite(clean)]
    if not found.size or (found.min() >= 0 and found.max() <= 1):
        return 0.0, 1.0
    return float(found.min()), float(found.max())


def _largest(values: Array) -> float:
    found = np.abs(values[np.isfinite(values)])
    return float(found.max()) if found.size else 0.0


def _grey(pixels: Array, low: float, high: float) -> Array:
    scaled = np.clip((np.nan_to_num(pixels) - low) / ((high - low) or 1.0), 0, 1)
    return np.broadcast_to(scaled, (*scaled.shape[:2], 3)) * 255


def _signed(pixels: Array, scale: float) -> Array:
    """White at zero, orange above and blue below; colour pictures: each channel around grey."""
    part = np.clip(np.nan_to_num(pixels) / (scale or 1.0), -1, 1)
    if part.shape[-1] == 3:
        around: Array = (part + 1) * 127.5
        return around
    colour = np.where(part > 0, _POSITIVE, _NEGATIVE)
    mixed: Array = 255 + np.abs(part) * (colour - 255)
    return mixed


def _picture(pixels: Array, what: str, caption: str, example: int) -> Picture:
    from matplotlib import image

    file = io.BytesIO()
    image.imsave(file, np.rint(pixels).astype(np.uint8), format="png")
    content = base64.b64encode(file.getvalue()).decode("ascii")
    alt = f"{what}, example {example}" + (f", {caption}" if caption else "")
    return Picture(f"data:image/png;base64,{content}", alt, caption)


def curve(explanation: Explanation) -> str:
    """Accuracy by the length of the step under both sides as an SVG element; "" without points.

    Raises:
        ImportError: Matplotlib is missing.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    if not explanation.a.curve and not explanation.b.curve:
        return ""
    look: dict[Any, Any] = {
        "svg.fonttype": "none", "svg.hashsalt": "torchfgsm", "font.family": "sans-serif",
        "text.color": _INK, "axes.labelcolor": _INK, "axes.edgecolor": _INK,
        "xtick.color": _INK, "ytick.color": _INK,
    }  # fmt: skip
    file = io.StringIO()
    with matplotlib.rc_context(look):
        figure = Figure(figsize=(6.4, 3.2), layout="constrained")
        FigureCanvasSVG(figure)
        _drawn(figure.add_subplot(), explanation)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    content = file.getvalue()
    content = content[content.index("<svg") :]
    for drawn, own in _ON_THE_PAGE.items():
        content = content.replace(drawn, own)
    return content


def _drawn(axes: Any, explanation: Explanation) -> None:
    """The two lines, that of the clean examples, and a mark at each side's own step."""
    steps = []
    sides = zip((explanation.a, explanation.b), "ab", (_A, _B), "os", ("-", "--"), strict=True)
    for side, letter, colour, mark, line in sides:
        points = sorted(side.curve)
        if points:
            steps += [step for step, _ in points]
            axes.plot(*zip(*points, strict=True), mark + line, color=colour, label=letter, ms=4)
    axes.axhline(explanation.clean_accuracy, color=_CLEAN, lw=1, ls=":", label="clean")
    positive = [step for step in steps if step > 0]
    if len(positive) == len(steps) and max(steps) > 20 * min(steps):
        axes.set_xscale("log")
    axes.set(xlabel="length of the step", ylabel="accuracy", ylim=(-0.03, 1.03))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
