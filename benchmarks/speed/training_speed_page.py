"""The page about the speed of a training step: `python -m benchmarks.speed.training_speed_page`.

Writes docs/training_speed.md from results/training_step.csv alone; `--check` fails when the page
is not that of the rows.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import page_command
from benchmarks.speed.training_processes import KEPT_MEMORY

Rows = Sequence[dict[str, str]]

CSV = Path(__file__).parents[1] / "results" / "training_step.csv"
PAGE = Path(__file__).parents[2] / "docs" / "training_speed.md"

TENSORFLOW = "nsl, tf.function"
TRAIN_ON_BATCH = "nsl, train_on_batch"
PLAIN = "torchfgsm, step, own process"
LAST = "torchfgsm, step, channels_last, own process"
KEPT = "torchfgsm, step, kept memory"
BOTH = "torchfgsm, step, channels_last, kept memory"
BY_HAND = "by hand, channels_last, kept memory"
SHARED = "torchfgsm, step"

_OWN_PROCESS = {
    TENSORFLOW: "NSL's `adversarial_loss` in a `tf.function`",
    TRAIN_ON_BATCH: "NSL's `AdversarialRegularization.train_on_batch`",
    PLAIN: "`adversarial_step`",
    LAST: "`adversarial_step`, channels_last",
    KEPT: "`adversarial_step`, kept memory",
    BOTH: "`adversarial_step`, both",
    BY_HAND: "by hand in torch, both",
}
_ONE_PROCESS = {
    SHARED: "`adversarial_step`",
    "torchfgsm, step, channels_last": "`adversarial_step`, channels_last",
    "by hand, two forwards": "by hand, two forward passes",
    "usual, autograd.grad": "usual loop, three forward passes",
    "cleverhans": "usual loop, CleverHans' attack",
    "torchattacks": "usual loop, torchattacks'",
    "foolbox": "usual loop, foolbox'",
    "art": "usual loop, ART's",
}

_TOP = """\
# How long a training step takes, beside TensorFlow

Written by `python -m benchmarks.speed.training_speed_page` from
`benchmarks/results/training_step.csv`, which `python -m benchmarks.speed.training_step` measures.
Every step fills the gradients of `L(x) + 0.2 * L(x_adv)`, L-inf 8/255 within [0, 1], in training
mode. They were equal to those by hand before anything was timed: in float64 within 1e-9 of the
norm; CleverHans' and ART's, in float32, within 1e-2. TensorFlow has images (N, H, W, C) and oneDNN
on; `train_on_batch` also makes SGD's step and Keras' metrics. Here TensorFlow and torch have
processes of their own:"""

_SETTINGS = """\
## What to set

- **Memory format** ({last} of the processor's time): `model.to(memory_format=torch.channels_last)`
  and the same for `x`. The step keeps it; L2 and L1 copy the input's gradient into rows.
- **Kept memory** ({kept}; both: {both}): start Python with
  `{variables}`. glibc then keeps what
  is freed for the next step; the process never gives back what it once needed.
- **Threads:** `OMP_NUM_THREADS` to the cores that are free; each operation waits for all."""

_LEFT = """\
TensorFlow's lead is oneDNN: with it off, its step on MNIST CNN at batch 128 takes 1.6 times as
long, and more than torch's. torch calls oneDNN for convolutions alone: of that step, with both
settings, its profiler finds 55% in convolutions, 16% in max pooling and the zeros that its backward
pass begins with, 10% in ReLU, 10% in dense layers, 8% in copies to another layout around pooling
and at `Flatten`, which reads channels first. `torch.compile` of the model took twice as long."""


def page(found: Rows) -> str:
    """The text of the page."""
    timed = [row for row in found if row["status"] == "ok" and row["device"].startswith("cpu")]
    parts = [
        _TOP,
        _table(timed, _OWN_PROCESS, TENSORFLOW),
        _units(timed),
        "## Who wins",
        _verdict(timed),
        _settings(timed),
        *_rest(timed),
        "## Beside other torch loops",
        "All in one process, whose memory glibc keeps for the most part; in brackets over "
        "`adversarial_step`:",
        _table(timed, _ONE_PROCESS, SHARED),
    ]
    return "\n\n".join(parts) + "\n"


def cases(timed: Rows) -> list[tuple[str, str]]:
    """Models and batch sizes."""
    return list(dict.fromkeys((row["model"], row["batch"]) for row in timed))


def cpu_ratios(timed: Rows, provider: str, other: str) -> dict[tuple[str, str], float]:
    """The processor's time of one provider over another's, by case."""
    return {
        case: _value(timed, case, provider, "cpu_ms") / _value(timed, case, other, "cpu_ms")
        for case in cases(timed)
    }


def _value(timed: Rows, case: tuple[str, str], provider: str, field: str) -> float:
    of = [r for r in timed if (r["model"], r["batch"]) == case and r["provider"] == provider]
    if len(of) != 1:
        raise ValueError(
            f"expected one timed row of {provider} for {', batch '.join(case)}, found {len(of)}: "
            "run python -m benchmarks.speed.training_step on a CPU, with --wheels, into a new CSV"
        )
    return float(of[0][field])


def _table(timed: Rows, titles: Mapping[str, str], base: str) -> str:
    named = cases(timed)
    headings = ["step", *(f"{model}, batch {batch}" for model, batch in named)]
    lines = [headings, ["---", *["---:"] * len(named)]]
    for provider, title in titles.items():
        ratios = cpu_ratios(timed, provider, base)
        cells = [
            f"{_value(timed, case, provider, 'p50_ms'):.0f} / "
            f"{_value(timed, case, provider, 'cpu_ms'):.0f} ({ratios[case]:.2f})"
            for case in named
        ]
        lines.append([title, *cells])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _units(timed: Rows) -> str:
    (threads,) = {row["threads"] for row in timed}
    versions = sorted({row["provider_version"] for row in timed if row["provider"] == TENSORFLOW})
    torch = sorted({row["torch"] for row in timed})
    spreads = [float(row["p80_ms"]) / float(row["p20_ms"]) for row in timed]
    wide = sum(spread > 1.25 for spread in spreads)
    return (
        "Milliseconds of one step by the clock / of the processor, medians (in brackets: the "
        f"processor's over those of the first line). {_threads(threads)}, shared machine: read the "
        f"ratios. In {wide} of {len(spreads)} rows the middle 60% of the rounds are more than a "
        f"quarter apart. NSL {' or '.join(versions)}, torch {' or '.join(torch)}."
    )


def _threads(count: str) -> str:
    return "One thread" if count == "1" else f"{count} threads"


def _verdict(timed: Rows) -> str:
    plain, both = (cpu_ratios(timed, name, TENSORFLOW) for name in (PLAIN, BOTH))
    batch = cpu_ratios(timed, BOTH, TRAIN_ON_BATCH)
    lines = []
    for case in cases(timed):
        winner = "TensorFlow" if both[case] > 1.05 else "torch" if both[case] < 0.95 else "a draw"
        lines.append(
            f"- {case[0]}, batch {case[1]}: {winner}. The step takes {plain[case]:.2f} times the "
            f"processor's time of NSL's compiled loop as it is, {both[case]:.2f} times with both "
            f"settings below; that is {batch[case]:.2f} times `train_on_batch`."
        )
    return "\n".join(lines)


def _settings(timed: Rows) -> str:
    variables = " ".join(f"{name}={value}" for name, value in KEPT_MEMORY.items())
    last, kept, both = (_range(cpu_ratios(timed, name, PLAIN)) for name in (LAST, KEPT, BOTH))
    return _SETTINGS.format(variables=variables, last=last, kept=kept, both=both)


def _range(ratios: Mapping[tuple[str, str], float]) -> str:
    return f"{min(ratios.values()):.2f} to {max(ratios.values()):.2f}"


def _rest(timed: Rows) -> list[str]:
    return [
        "## What is left, and why",
        "Not this package: with the same settings its step takes "
        f"{_range(cpu_ratios(timed, BOTH, BY_HAND))} times the processor's time of the step "
        "written by hand in torch.\n" + _LEFT,
    ]


def main(arguments: list[str] | None = None) -> int:
    """Writes the page, or checks it; returns the exit code."""
    return page_command.run("speed.training_speed_page", __doc__, page, (CSV, PAGE), arguments)


if __name__ == "__main__":
    sys.exit(main())
