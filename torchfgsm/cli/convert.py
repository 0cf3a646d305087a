"""The command `torchfgsm convert`: progress on stderr, the summary or JSON on stdout."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from torchfgsm.converters.conversion import convert
from torchfgsm.converters.errors import ConversionError
from torchfgsm.converters.model import ConvertedModel
from torchfgsm.converters.options import Options
from torchfgsm.converters.writing import refuse_target, write_onnx
from torchfgsm.system.arrays import read_arrays

_LABELS = ("y", "label", "labels")


def run(arguments: argparse.Namespace) -> int:
    """Converts a model and returns the exit code, 0.

    Raises:
        ConversionError: the model cannot be converted, or the file not be written.
        EnvironmentUnavailable: the TensorFlow that it needs cannot be had.
    """
    source = Path(arguments.model)
    out = None if arguments.output is None else Path(arguments.output)
    if out is not None:
        refuse_target(out, source, overwrite=arguments.force)
    steps = Steps()
    model, graph = convert(source, _options(arguments, steps))
    if out is not None:
        steps("writing")
        write_onnx(graph, out)
    steps("done")
    summary = describe(model, out)
    print(json.dumps(summary, indent=2) if arguments.json else to_text(summary))
    return 0


class Steps:
    """Prints each step with the seconds since the start."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, step: str) -> None:
        """Prints one line on stderr."""
        seconds = time.monotonic() - self._start
        print(f"torchfgsm: {seconds:5.1f} s  {step}", file=sys.stderr, flush=True)


def describe(model: ConvertedModel, out: Path | None) -> dict[str, Any]:
    """Returns what a converted model is, as JSON values."""
    annotation = model.annotation
    heads = zip(model.output_names, model.found_heads, strict=True)
    return {
        "source": annotation.source,
        "inputs": [_port(port) for port in annotation.inputs],
        "outputs": [_port(port) for port in annotation.outputs],
        "structure": annotation.structure,
        "dtype": str(model.dtype).removeprefix("torch."),
        "weights": _weights(model),
        "logits": {
            name: {"cut": head.kind, "text": head.text, "who_sees_what": head.who_sees_what}
            for name, head in heads
        },
        "only_inference": list(annotation.only_inference),
        "penalties": [vars(penalty) for penalty in annotation.penalties],
        "lost": list(annotation.lost),
        "verification": model.verification.to_dict(),
        "file": None if out is None else {"path": str(out), "bytes": out.stat().st_size},
    }


def to_text(summary: dict[str, Any]) -> str:
    """Returns the summary for people; its last line is the verdict."""
    lines = [f"model: {summary['source']}"]
    for kind in ("input", "output"):
        for port in summary[f"{kind}s"]:
            sizes = ", ".join("?" if n is None else str(n) for n in port["shape"][1:])
            lines.append(f"{kind} {port['name']!r}: (N, {sizes}) {port['dtype']}")
    lines.append(_count(summary["weights"]))
    lines += [f"logits: {head['text']}" for head in summary["logits"].values()]
    cut = [head["who_sees_what"] for head in summary["logits"].values() if head["cut"]]
    lines += [f"head: {text}" for text in dict.fromkeys(cut)]
    lines += [f"only for inference: {name}" for name in summary["only_inference"]]
    lines += [f"lost: {text}" for text in summary["lost"]]
    if summary["file"]:
        file = summary["file"]
        lines.append(f"written: {file['path']}, {file['bytes'] / 1e6:.1f} MB")
    verification = summary["verification"]
    return "\n".join([*lines, f"{verification['title']}: {verification['verdict']}"])


def _count(weights: list[dict[str, Any]]) -> str:
    sizes = dict.fromkeys(("trainable", "frozen", "statistic"), 0)
    for weight in weights:
        sizes[weight["kind"]] += int(np.prod(weight["shape"]))
    return (
        f"weights: {sizes['trainable']} numbers to train, {sizes['frozen']} frozen, "
        f"{sizes['statistic']} moving statistics, in {len(weights)} arrays"
    )


def _weights(model: ConvertedModel) -> list[dict[str, Any]]:
    rows = []
    for name, weight in model.weight_names().items():
        kind = "trainable" if weight.trainable else "frozen"
        rows.append(
            {
                "name": weight.name,
                "parameter": f"weights.{name}",
                "shape": list(weight.shape),
                "kind": "statistic" if weight.statistic else kind,
            }
        )
    return rows


def _port(port: Any) -> dict[str, Any]:
    return {"name": port.name, "dtype": port.dtype, "shape": [None, *port.shape]}


def _options(arguments: argparse.Namespace, steps: Steps) -> Options:
    return Options(
        dtype=None if arguments.dtype is None else getattr(torch, arguments.dtype),
        data=None if arguments.data is None else read_data(Path(arguments.data)),
        verify=not arguments.no_verify,
        verify_training=arguments.verify_training,
        custom_objects=arguments.custom_objects,
        allow_unsafe=arguments.allow_unsafe,
        input_names=names(arguments.inputs),
        output_names=names(arguments.outputs),
        timeout=arguments.timeout,
        progress=steps,
    )


def names(text: str | None) -> list[str] | None:
    """Returns the names in a comma-separated list, None without one."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def read_data(path: Path) -> Any:
    """Returns the inputs in an .npz file: one array, or a dict of several; labels are left out.

    Raises:
        ConversionError: there is no such file, or it holds something else.
    """
    try:
        arrays = {k: v for k, v in read_arrays(path).items() if k not in _LABELS}
    except (FileNotFoundError, ValueError) as error:
        raise ConversionError(str(error)) from error
    if not arrays:
        raise ConversionError(f"{path}: expected the model's inputs, found no arrays")
    return next(iter(arrays.values())) if len(arrays) == 1 else arrays
