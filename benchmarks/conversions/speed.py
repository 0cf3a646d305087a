"""Speed of converted modules: `python -m benchmarks.conversions.speed`.

Forward and input gradient of a converted Keras model, of the same architecture written by hand in
torch with the same weights, and of TensorFlow's compiled function in its own process. Images are
(N, H, W, C), as Keras has them; weights are frozen, the mode is eval, everyone has one thread. The
gradients are compared before anything is timed. Writes results/conversion_speed.csv; the page
docs/conversions.md shows it (`python -m benchmarks.conversions.table --from-csv`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import rows
from benchmarks.conversions.twins import TWINS, Twin
from benchmarks.rows import Row
from benchmarks.speed.contest import Pace, Provider, compete
from torchfgsm.converters import ConvertedModel, load
from torchfgsm.originals.environment import KERAS_3
from torchfgsm.originals.process import Worker

CSV = Path(__file__).parents[1] / "results" / "conversion_speed.csv"
WORKER = Path(__file__).with_name("speed_worker.py")
REFERENCE = "by hand"
_CASES = (("CNN", 32, 1), ("CNN", 32, 32), ("ResNet50", 32, 1), ("ResNet50", 64, 8))
_QUICK = (("CNN", 32, 2),)
# Of the gradient's norm: a relu within rounding of zero makes the gradient of all that it sees
# jump, and a large batch has such relus. The conversion itself is verified elsewhere, and sharply.
_TOLERANCE = 0.1


@dataclass(frozen=True)
class Case:
    """A model and a batch: images (N, H, W, 3) with labels."""

    path: Path
    model: ConvertedModel
    twin: Twin
    worker: Worker
    tensorflow: str
    x: Tensor
    y: Tensor


def main(arguments: list[str] | None = None) -> int:
    """Measures every case; 0 when every provider was timed."""
    parser = argparse.ArgumentParser(prog="benchmarks.conversions.speed", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one tiny case")
    parser.add_argument("-o", "--out", type=Path, default=CSV, metavar="CSV")
    options = parser.parse_args(arguments)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    complete = True
    try:
        for found in measure(_QUICK if options.quick else _CASES, quick=options.quick):
            rows.write(options.out, found)
            for row in found:
                text = f"{row.p50_ms:.4g} ms, {row.ratio:.3g}" if row.p50_ms else row.reason
                print(f"{row.model} x{row.batch} {row.provider}: {text}", file=sys.stderr)
                complete &= row.status == "ok"
    finally:
        torch.set_num_threads(before)
    return 0 if complete else 1


def measure(cases: tuple[tuple[str, int, int], ...], *, quick: bool) -> Iterator[list[Row]]:
    """The rows, case by case."""
    pace = Pace(0.2, 0.5) if quick else Pace(30.0, 20.0)
    with tempfile.TemporaryDirectory() as folder, Worker(KERAS_3, WORKER) as worker:
        for name, size, batch in cases:
            case = make(name, size, batch, worker, Path(folder))
            row = Row(
                benchmark="conversion",
                provider="",
                attack="input gradient",
                batch=batch,
                example=case.x[0].numel(),
                model=f"{name}, {size}x{size}",
                labels="given",
            )
            providers = [provider(case, who) for who in MAKERS]
            yield compete(row, providers, torch.device("cpu"), pace, reference=REFERENCE)


def make(name: str, size: int, batch: int, worker: Worker, folder: Path) -> Case:
    """Builds the model in Keras, converts it and gives the twin its weights."""
    path = folder / f"{name}-{size}.keras"
    built = worker.call("build", name=name, size=size, path=str(path))
    model = load(path, worker=worker, verify=False)
    named = dict([*model.named_parameters(), *model.named_buffers()])
    weights = {n: t for n, t in named.items() if n.startswith("weights.")}
    twin = TWINS[name]().eval()
    twin.take(model.keras_arrays(weights))
    for module in (model, twin):
        module.requires_grad_(False)
    random = torch.Generator().manual_seed(0)
    x = torch.rand(batch, size, size, 3, generator=random)
    y = torch.randint(10, (batch,), generator=random)
    return Case(path, model, twin, worker, built.values["tensorflow"], x, y)


def input_gradient(model: Callable[[Tensor], Tensor], case: Case) -> Tensor:
    """The gradient of the summed cross-entropy, (N, H, W, 3)."""
    x = case.x.clone().requires_grad_()
    loss = F.cross_entropy(model(x), case.y, reduction="sum")
    return torch.autograd.grad(loss, x)[0]


def _by_hand(case: Case) -> Callable[[], Tensor]:
    # A view: the strides say channels_last, and torch's convolutions follow them.
    return lambda: input_gradient(lambda x: case.twin(x.permute(0, 3, 1, 2)), case)


def _by_hand_contiguous(case: Case) -> Callable[[], Tensor]:
    return lambda: input_gradient(lambda x: case.twin(x.permute(0, 3, 1, 2).contiguous()), case)


def _converted(case: Case) -> Callable[[], Tensor]:
    model: nn.Module = case.model
    return lambda: input_gradient(model, case)


def _tensorflow(case: Case) -> Callable[[], Tensor]:
    batch = {"x": case.x.numpy(), "y": case.y.numpy()}
    reply = case.worker.call("prepare", batch, path=str(case.path))
    expected = torch.from_numpy(reply.arrays["gradient"])

    def call() -> Tensor:
        case.worker.call("gradient")
        return expected

    return call


def _round_trip(case: Case) -> Callable[[], Tensor]:
    expected = input_gradient(case.model, case)

    def call() -> Tensor:
        case.worker.call("nothing")
        return expected

    return call


@dataclass(frozen=True)
class Maker:
    """Who computes the gradient, how, and what is worth knowing about it."""

    name: str
    make: Callable[[Case], Callable[[], Tensor]]
    note: str = ""


MAKERS = (
    Maker(REFERENCE, _by_hand, "the permuted view as it is (channels_last)"),
    Maker("by hand, contiguous", _by_hand_contiguous, "copied to (N, C, H, W) first"),
    Maker("torchfgsm", _converted, "the converted module"),
    Maker("TensorFlow", _tensorflow, "tf.function, oneDNN on; with the round trip"),
    Maker("round trip", _round_trip, "what TensorFlow's process costs by itself"),
)


def provider(case: Case, maker: Maker) -> Provider:
    """Someone who takes part, checked against the module written by hand."""
    expected = _by_hand(case)()

    def check(found: object) -> str:
        if not isinstance(found, Tensor) or found.shape != expected.shape:
            return f"expected a tensor of {tuple(expected.shape)}"
        far = float((found - expected).norm() / expected.norm())
        return "" if far <= _TOLERANCE else f"{far:.1e} away from the gradient by hand"

    version = case.tensorflow if maker.name == "TensorFlow" else ""
    return Provider(
        maker.name, lambda: maker.make(case), check, version=lambda: version, note=maker.note
    )


if __name__ == "__main__":
    sys.exit(main())
