"""The command `torchfgsm explain`: why two libraries differ on a model and data of one's own."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from torchfgsm.cli.inputs.option_values import parsed
from torchfgsm.libraries.configuration import LIBRARIES, Configuration

if TYPE_CHECKING:
    from torchfgsm.explanation.result import Explanation

_COUNT = 256


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command, but for those on how a model is converted."""
    known = ", ".join(LIBRARIES)
    parser.add_argument(
        "model",
        help="a .keras, .h5, .pb, .tflite or .onnx file, a SavedModel folder, or a .pt2 file of "
        "torch.export (with --allow-unsafe)",
    )
    parser.add_argument(
        "--data", required=True, metavar="FILE.npz", help="arrays x and y: inputs and labels"
    )
    parser.add_argument("--x-key", default="x", help="the inputs in the file; default x")
    parser.add_argument("--y-key", help="the labels in the file; default y")
    for side, default in (("a", "nsl"), ("b", "cleverhans3")):
        parser.add_argument(
            f"--{side}", default=default, metavar="LIBRARY", help=f"{known}; default {default}"
        )
        parser.add_argument(
            f"--set-{side}", nargs="+", action="extend", default=[], metavar="NAME=VALUE",
            help=f"options of {side} by the library's own names, or fields of its recipe",
        )  # fmt: skip
    parser.add_argument(
        "--model-output", choices=("logits", "probabilities"),
        help="what the model gives; default: what it looks like on the data",
    )  # fmt: skip
    parser.add_argument(
        "--count", type=int, default=_COUNT, help=f"explain the first rows; default {_COUNT}"
    )
    parser.add_argument(
        "--batch-size", type=int, help="how many examples an attack sees at once; default all"
    )
    parser.add_argument("--seed", type=int, default=0, help="of random starts; default 0")
    parser.add_argument("--device", help="such as cpu or cuda:0; default a GPU if there is one")
    parser.add_argument("--html", metavar="OUT.html", help="write the report as a page too")
    parser.add_argument("--markdown", metavar="OUT.md", help="write the report as Markdown too")
    parser.add_argument("--json", action="store_true", help="write JSON to stdout")
    parser.add_argument("--force", action="store_true", help="replace older output files")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Explains the difference, prints it, and returns the exit code, 0.

    Raises:
        ConversionError: The model cannot be converted.
        EnvironmentUnavailable: The TensorFlow that it needs cannot be had.
        ImportError: A package that the page needs is missing.
        OSError: A file cannot be read or written.
        ValueError: Bad options or data; a model that fails.
    """
    from torchfgsm.explanation.report import saving

    sides = [_side(name, options) for name in "ab"]
    outputs = _outputs(options)
    _check_numbers(options)
    explanation = _explained(options, *sides)
    # All are made before the first is written.
    made = [(path, render(explanation)) for path, render in outputs]
    for path, content in made:
        saving.write(path, content)
        print(f"written: {path}", file=sys.stderr)
    if options.json:
        print(json.dumps(explanation.to_dict(), indent=2))
    else:
        print(explanation.to_text())
    return 0


def _side(name: str, options: argparse.Namespace) -> Configuration:
    library = getattr(options, name)
    try:
        given = parsed(getattr(options, f"set_{name}"))
        configuration = Configuration.of(library, given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"--{name} {library}: {error} (options: --set-{name})") from None
    if configuration.recipe.targeted:
        raise ValueError(
            f"--{name} {library}: targeted attacks need targets: use torchfgsm.explain in Python"
        )
    return configuration


def _outputs(options: argparse.Namespace) -> list[tuple[Path, Callable[[Explanation], str]]]:
    """The files to write and what makes them, after a look at whether they can be written."""
    from torchfgsm.explanation.report import page, saving
    from torchfgsm.explanation.report.document import to_markdown

    found: list[tuple[Path, Callable[[Explanation], str]]] = []
    sources = [Path(options.model), Path(options.data)]
    for name, suffix, render in (
        (options.html, ".html", page.to_html),
        (options.markdown, ".md", to_markdown),
    ):
        if name is not None:
            path = Path(name)
            saving.refuse_target(path, [suffix], overwrite=options.force, sources=sources)
            found.append((path, render))
    if options.html is not None:
        page.check_packages()
    return found


def _check_numbers(options: argparse.Namespace) -> None:
    for name, least in (("count", 1), ("batch_size", 1), ("seed", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            option = "--" + name.replace("_", "-")
            raise ValueError(f"{option} must be at least {least}, got {value}")


def _explained(options: argparse.Namespace, a: Configuration, b: Configuration) -> Explanation:
    from torchfgsm.cli.inputs import models
    from torchfgsm.cli.inputs.rows import device_of, inputs_of, labels_of, opened
    from torchfgsm.explanation.explaining import explain

    device, data = device_of(options.device), Path(options.data)
    with opened(data, options.x_key, options.y_key) as (x, y):
        if y is None:
            raise ValueError(
                f"{data}: found no labels: give a .npz file with an array y; --y-key names another"
            )
        count = min(options.count, x.shape[0])
        rows, labels = x.read(count), labels_of(y.read(count), device)
        model, dtype = models.load(options, device)
        try:
            found = explain(
                model,
                inputs_of(rows, dtype, device),
                labels,
                a=a,
                b=b,
                model_output=options.model_output,
                batch_size=options.batch_size,
                seed=options.seed,
                progress=True,
            )
        except (RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{options.model}: {error}") from error
    facts = {"model": options.model, "data": f"{data}, {count} of {x.shape[0]} rows"}
    return dataclasses.replace(found, facts={**facts, **found.facts})
