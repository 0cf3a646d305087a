"""The page about adversarial training, from the rows alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from benchmarks.training.rows import TRANSLATED, Rows, of, values

_TOP = """\
# Adversarial training: the two losses, the learning rate, robustness

Written by `python -m benchmarks.training.robust_training` from
`benchmarks/results/robust_training.csv`. Every original is NSL's or CleverHans' own code, run live;
`pytest tests/benchmarks/test_training_parity.py -m slow` compares them with this package."""

_MAPPING = """\
## One multiplier, one scale

NSL trains on `L(x) + m * L(x_adv)`, CleverHans 3 on `(1 - a) * L(x) + a * L(x_adv)`. With

    m = a / (1 - a)          a = m / (1 + m)

the ratio is the same and NSL's loss is `1 / (1 - a)` times CleverHans': twice as large at
CleverHans' `a = 0.5`, ten times at 0.9. The optimum is the same, a step is not:

- **SGD, with or without momentum:** NSL's learning rate is CleverHans' times `1 - a`.
- **Adam:** leave the rate as it is. Adam divides by the gradients' own size; only epsilon is in
  their units, so NSL's is CleverHans' over `1 - a`.
- Regularisers added to the loss and the norm at which gradients are clipped are in the loss's
  units, too: NSL's are CleverHans' over `1 - a`.
- `a = 1` (adversarial examples only) has no multiplier.

```python
from torchfgsm import Weighting

cleverhans = Weighting.from_cleverhans(0.25)
assert abs(cleverhans.to_nsl() - 1 / 3) < 1e-15  # NSL's multiplier with the same ratio
assert cleverhans.clean == 0.75  # and what NSL's learning rate for SGD is multiplied by
```

How far NSL's update is from CleverHans 3's, relative to its length, after 100 steps in float64
(L-inf, true labels, no BatchNorm, which the two libraries train differently):"""

_MAPPING_END = """\
Where Adam's epsilon is scaled, what is left comes from TensorFlow 1 and Keras, which round the
powers of the betas to float32 differently; in torch, where nothing does, the two are equal."""

_CORRESPONDS = (
    (
        "`nsl.keras.AdversarialRegularization` with `compile` and `fit`",
        '`Recipe.nsl(...)` with `model_mode="keep_and_update"`, `Weighting.from_nsl(multiplier)`, '
        "`adversarial_step`",
    ),
    (
        "`cleverhans.loss.CrossEntropy` with `FastGradientMethod`",
        "`Recipe.cleverhans3(...)`, `Weighting.from_cleverhans(adv_coeff)`, `pass_y` as there, "
        "`adversarial_step`; under L2 `adversarial_loss(...).loss.backward()`, for the "
        "second-order term",
    ),
    (
        "`SGD`, `GradientDescentOptimizer`, `MomentumOptimizer`",
        "`torch.optim.SGD` with the same rate and momentum; where the rate changes on the way, "
        "Keras' velocity keeps the old one",
    ),
    (
        "`Adam`, `AdamOptimizer`",
        "`torch.optim.Adam`, with `eps / sqrt(1 - beta2 ** t)` in step t",
    ),
    (
        "`BatchNormalization` of momentum p",
        "`BatchNorm` of momentum 1 - p; with CleverHans 3 of momentum 0: nothing in "
        "`cleverhans.train` moves Keras' statistics, which its attack uses",
    ),
    ("the losses that `fit` reports", "means over the epoch's batches up to there"),
)

_ADAM = """\
TensorFlow's Adam adds epsilon to the root of the second moment before the bias of that is
corrected ("epsilon hat"). At Keras' defaults (1e-7, beta2 0.999) the first step's is torch's 3e-6,
and the difference is gone after some thousand steps. This makes it the same:

```python
import torch

adam = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=1e-3)
steps = 0


def epsilon_as_in_tensorflow(optimizer, args, kwargs):
    global steps
    steps += 1
    for group in optimizer.param_groups:
        group["eps"] = 1e-7 / (1 - group["betas"][1] ** steps) ** 0.5


adam.register_step_pre_hook(epsilon_as_in_tensorflow)
```"""

_ROUNDING = """\
## The same 100 steps

From the same weights, on the same batches of 32: three norms, each with SGD, momentum and Adam.
Entries are relative to a tensor's largest one. In float64 the port is compared with the original
in float64: the largest distance of all nine trainings. In float32 both are: the median, and the
largest in brackets. A sign, a relu or a largest entry within rounding of its kink turns over on
either side by chance, and that training takes a leap.

CleverHans 3 trains in float64 under L-inf alone; its L2 and L1 steps convert to float32 and fail,
and are run with these two conversions replaced. Keras' fused BatchNormalization, which float64
does not have, takes the moving variance with Bessel's correction, and so does the float64 value
with which its float32 is compared."""


# Radii in the table; the plot has all.
_SHOWN = ("0", "0.05", "0.1", "0.2")


def page(rows: Rows) -> str:
    """The text of docs/training.md."""
    parts = [
        _TOP,
        _MAPPING,
        _mapping(of(rows, part="mapping")),
        _MAPPING_END,
        *_robustness(of(rows, part="robustness")),
        "## What corresponds to what",
        _table(["original", "here"], _CORRESPONDS),
        _ADAM,
        _ROUNDING,
        _rounding(of(rows, part="rounding")),
        _versions(rows),
    ]
    return "\n\n".join(parts) + "\n"


def _table(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    texts = [headings, ["---"] * len(headings), *lines]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in texts)


def _distinct(rows: Rows, field: str) -> list[str]:
    return list(dict.fromkeys(row[field] for row in rows))


def _mapping(rows: Rows) -> str:
    coefficients = _distinct(rows, "measure")
    lines = []
    for optimizer in _distinct(rows, "optimizer"):
        for case in _distinct(of(rows, optimizer=optimizer), "case"):
            found = of(rows, optimizer=optimizer, case=case)
            cells = [f"{median(values(found, measure=a)):.1e}" for a in coefficients]
            lines.append([optimizer, case, *cells])
    return _table(["optimizer", "NSL's", *(f"a = {a}" for a in coefficients)], lines)


def _robustness(rows: Rows) -> list[str]:
    seeds = len(_distinct(rows, "seed"))
    other, exact = TRANSLATED
    return [
        "## Robustness on digits",
        f"A small CNN on 1400 of scikit-learn's digits, {rows[0]['steps']} steps of momentum with "
        "rate 1/32 for both libraries; the other 397 digits attacked by PGD (L-inf, 20 steps, in "
        "the pixels' range [0, 1]), which no training used. Trained in float32; medians over "
        f"{seeds} seeds of the initial weights and of the order, the range in brackets.",
        _accuracies(rows),
        "![accuracy by radius](training.png)",
        "Lines are the originals' medians, marks the port's.",
        "At their defaults the libraries train models of different robustness, because their "
        "defaults are different attacks: NSL's step of 0.001 under L2 changes next to nothing, "
        "CleverHans' of 0.3 moves every pixel by a third of the range. Translated, with NSL's "
        f"rate times `1 - a`, they train the same model: {_same(exact, rows)}. In float32 rounding "
        "grows over the steps until some digits are read otherwise, between the libraries as "
        f"between either of them and its port. The other way round, {_same(other, rows)}: under "
        "L2 CleverHans 3 adds a second-order term that NSL has not, and though a step of 0.001 "
        "makes it tiny, it grows over the steps like rounding.",
    ]


def _same(case: str, rows: Rows) -> str:
    """How far a translated case's accuracies are from its model's, between the originals."""
    gaps = [100 * largest_gap(case, TRANSLATED[case], rows, p) for p in ("float64", "float32")]
    return (
        f'"{case}" is at any radius and seed within {gaps[0]:.2g} points of the accuracy in '
        f"float64, {gaps[1]:.2g} in float32"
    )


def largest_gap(case: str, other: str, rows: Rows, precision: str) -> float:
    """The largest difference of two cases' accuracies at one radius and seed."""
    gaps: list[float] = []
    for measure in _distinct(rows, "measure"):
        if measure.startswith("accuracy"):
            of_both = [
                values(rows, case=name, precision=precision, side="original", measure=measure)
                for name in (case, other)
            ]
            gaps += [abs(a - b) for a, b in zip(*of_both, strict=True)]
    return float(max(gaps))


def _accuracies(rows: Rows) -> str:
    lines = []
    for case in _distinct(rows, "case"):
        for side in _distinct(rows, "side"):
            found = of(rows, case=case, side=side, precision="float32")
            cells = [_spread(values(found, measure=f"accuracy at {r}")) for r in _SHOWN]
            away = [
                f"{max(values(rows, case=case, side=side, precision=p, measure='weights')):.0e}"
                if side == "port"
                else ""
                for p in ("float32", "float64")
            ]
            lines.append([case if side == "original" else "", side, *cells, *away])
    headings = ["trained", "by", "clean", *(f"PGD {r}" for r in _SHOWN[1:])]
    return _table([*headings, "weights away, float32", "float64"], lines)


def _spread(found: Sequence[float]) -> str:
    low, middle, high = (100 * f(found) for f in (min, median, max))
    return f"{middle:.1f}% ({low:.1f} to {high:.1f})"


def _rounding(rows: Rows) -> str:
    lines = []
    for library in _distinct(rows, "library"):
        for model in _distinct(of(rows, library=library), "model"):
            for steps in _distinct(rows, "steps"):
                found = of(rows, library=library, model=model, steps=steps)
                lines.append([library, model, steps, *_distances(found)])
    headings = ["original", "model", "steps", "float64: weights", "statistics", "losses"]
    return _table([*headings, "float32, weights: original", "port"], lines)


def _distances(rows: Rows) -> list[str]:
    exact = of(rows, precision="float64")
    cells = []
    for measure in ("weights", "statistics", "losses"):
        found = values(exact, measure=measure)
        cells.append(f"{max(found):.0e}" if found else "")
    for side in ("original", "port"):
        found = values(rows, precision="float32", side=side, measure="weights")
        cells.append(f"{median(found):.0e} ({max(found):.0e})")
    return cells


def _versions(rows: Rows) -> str:
    def named(field: str) -> str:
        return " or ".join(_distinct(rows, field))

    originals = [
        f"{title} {' or '.join(_distinct(of(rows, library=library), 'library_version'))}"
        for library, title in (("nsl", "NSL"), ("cleverhans3", "CleverHans"))
    ]
    return (
        f"Measured with {', '.join(originals)}, TensorFlow {named('tensorflow')}, torch "
        f"{named('torch')}, torchfgsm {named('torchfgsm')}; {named('device')}."
    )
