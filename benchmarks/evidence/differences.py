"""The README's table of the differences between the libraries, and what each does.

`python -m benchmarks.evidence.differences` measures, writes results/differences.csv and the table
in the README; with `--check` it measures nothing and fails when the README is not what the CSV
gives.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks import digits
from benchmarks.evidence import difference_measures as measures
from benchmarks.evidence import difference_training as training
from benchmarks.evidence.difference_measures import Bench, Measured
from benchmarks.marked_block import with_block
from benchmarks.rows import replace_all
from torchfgsm import __version__

CSV = Path(__file__).parents[1] / "results" / "differences.csv"
README = Path(__file__).parents[2] / "README.md"
_HEADINGS = (
    "difference",
    "NSL 1.4.0",
    "CleverHans 3.1.0",
    "CleverHans 4.0.0 tf2",
    "CleverHans 4.0.0 torch",
    "what it does alone",
    "what makes them equal",
)
_SAME = "as 3.1.0"


@dataclass(frozen=True)
class Topic:
    """One row of the table.

    Attributes:
        title: The choice.
        nsl: What NSL does, and so on.
        cleverhans3: See `nsl`.
        tf2: See `nsl`.
        torch: See `nsl`.
        settings: What makes the libraries equal.
        effect: Measures a change of this choice alone.
        settled: Measures what is left with the settings, where they are not the same recipe.
    """

    title: str
    nsl: str
    cleverhans3: str
    tf2: str
    torch: str
    settings: str
    effect: Callable[[Bench], Iterator[Measured]]
    settled: Callable[[Bench], Iterator[Measured]] | None = None


TOPICS = (
    Topic(
        "default labels",
        "the true ones, always",
        "the model's prediction unless `y` is given; ties shared",
        "as 3.1.0, first class of a tie",
        "as tf2",
        "give CleverHans `y`, or give NSL the predicted labels",
        measures.labels,
    ),
    Topic(
        "model output",
        "whatever the loss takes; logits are recovered behind a softmax layer, other probabilities "
        "are clipped at 1e-7",
        "logits; a softmax is refused, unless another op follows it",
        "logits; a softmax is not noticed",
        "as tf2",
        "a model that returns logits, and `from_logits=True` in the loss",
        measures.model_output,
    ),
    Topic(
        "loss reduction, and the guard under the L2 norm (1e-6)",
        "mean over the batch: the guard bites earlier in a larger batch",
        "each example's own loss",
        _SAME,
        "as NSL",
        'NSL: a loss with `reduction="sum"`; torch: batches of one',
        measures.reduction,
    ),
    Topic(
        "norm and step",
        "L2, 0.001",
        "L-inf, 0.3",
        "must be given",
        "must be given",
        '`adv_grad_norm="infinity", adv_step_size=eps`',
        measures.norm_and_step,
    ),
    Topic(
        "clip",
        "off; each side by itself",
        "off; both sides or none",
        _SAME,
        _SAME,
        "the same two bounds, or none",
        measures.clip,
    ),
    Topic(
        "PGD: projection and clip",
        "projects, then clips",
        "clips, projects, clips",
        _SAME,
        _SAME,
        "L-inf, or no clip; L2 with a clip has no common setting",
        measures.order,
    ),
    Topic(
        "mask",
        "`feature_mask` on the gradient, before its norm",
        "none",
        "none",
        "none",
        "L-inf: multiply CleverHans' perturbation by the mask of 0 and 1",
        measures.mask,
        measures.mask_settled,
    ),
    Topic(
        "sample weights",
        "weigh the attack's loss and the training loss, which is divided by the batch size",
        "none",
        "none",
        "none",
        "no weights; under L-inf positive ones leave the attack as it is",
        training.sample_weights,
        training.sample_weights_settled,
    ),
    Topic(
        "gradient through the perturbation",
        "none",
        "flows in training under L2",
        "as 3.1.0 inside an outer tape",
        "none",
        "L-inf or L1, or stop the gradient of CleverHans' adversarial examples",
        training.through_perturbation,
        training.through_perturbation_settled,
    ),
    Topic(
        "weights of the losses",
        "clean 1 : adversarial `multiplier` (0.2)",
        "1 - `adv_coeff` : `adv_coeff` (0.5)",
        "no training loss",
        "no training loss",
        "`multiplier = adv_coeff / (1 - adv_coeff)`, and with SGD the learning rate times "
        "`1 - adv_coeff` (with Adam the same rate)",
        training.weighting,
        training.weighting_settled,
    ),
    Topic(
        "adversarial examples only",
        "not possible: the clean loss always counts",
        "`adv_coeff=1`",
        "no training loss",
        "no training loss",
        "nothing; a large `multiplier` comes near",
        training.adversarial_only,
        training.adversarial_only_settled,
    ),
)
_ALL = "all of these settings"

Rows = list[dict[str, str]]


def measure(bench: Bench) -> Rows:
    """One row per measured number; kind is "effect" or "settled"."""
    versions = {"torchfgsm": __version__} | {
        name: version(name) for name in ("torch", "numpy", "scikit-learn")
    }
    parts = [(t.title, "effect", t.effect) for t in TOPICS]
    parts += [(t.title, "settled", t.settled) for t in TOPICS if t.settled]
    parts += [(_ALL, "settled", measures.all_settled)]
    return [
        {
            "difference": title,
            "kind": kind,
            "measure": name,
            "unit": unit,
            "value": f"{value:.3g}",
            **versions,
        }
        for title, kind, function in parts
        for name, unit, value in function(bench)
    ]


def table(rows: Rows) -> str:
    """The Markdown between the README's markers."""
    lines = ["| " + " | ".join(_HEADINGS) + " |", "|" + "---|" * len(_HEADINGS)]
    for topic in TOPICS:
        left = _values(rows, topic.title, "settled")
        settings = topic.settings + (f" (left: {left})" if left else "")
        effect = _values(rows, topic.title, "effect")
        libraries = (topic.nsl, topic.cleverhans3, topic.tf2, topic.torch)
        lines.append("| " + " | ".join((topic.title, *libraries, effect, settings)) + " |")
    used = ", ".join(f"{name} {rows[0][name]}" for name in ("torchfgsm", "torch", "scikit-learn"))
    return "\n".join(
        [
            *lines,
            "",
            "With all of these settings the four presets give the same perturbations; relative L2 "
            f"difference: {_values(rows, _ALL, 'settled')}.",
            "",
            "Every effect is that of changing this one choice and nothing else, on 397 digits and "
            f"a small CNN, with {used}. Signs are those of the L-inf perturbation; "
            '"away" is the relative L2 difference.',
        ]
    )


def _values(rows: Rows, title: str, kind: str) -> str:
    found = [row for row in rows if (row["difference"], row["kind"]) == (title, kind)]
    return "; ".join(row["measure"].format(_shown(row)) for row in found)


def _shown(row: Mapping[str, str]) -> str:
    value = float(row["value"])
    if row["unit"] == "share":
        return f"{100 * value:.2g}%"
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"


def write_csv(rows: Rows) -> None:
    """Writes the rows, the old ones are gone."""
    CSV.parent.mkdir(exist_ok=True)
    replace_all(CSV, rows)


def read_csv() -> Rows:
    """The rows of the last measurement."""
    with CSV.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def main(argv: Iterable[str] | None = None) -> int:
    """Measures and writes, or checks; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.evidence.differences", description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when the README is stale")
    arguments = parser.parse_args(None if argv is None else list(argv))
    readme = README.read_text(encoding="utf-8")
    if arguments.check:
        if with_block(readme, "differences", table(read_csv())) == readme:
            return 0
        print("the README's table is not that of the CSV: run `make bench`", file=sys.stderr)
        return 1
    data = digits.load()
    rows = measure(Bench(digits.trained_cnn(data), data.x, data.y))
    write_csv(rows)
    README.write_text(with_block(readme, "differences", table(rows)), encoding="utf-8")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
