"""The model that `torchfgsm attack` takes: a converted one, or an exported program of torch."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from torchfgsm.cli.inputs import exported

_PIECE = 1 << 20


def load(options: argparse.Namespace, device: torch.device) -> tuple[nn.Module, torch.dtype]:
    """The model on a device, and the floating dtype in which it computes.

    Raises:
        ConversionError: As `torchfgsm.converters.load`.
        ValueError: A model with several inputs or outputs; an exported program that cannot be read
            or whose reading was not allowed.
    """
    path = Path(options.model)
    if path.suffix == ".pt2":
        model, dtype = exported.load(path, allowed=options.allow_unsafe)
        return model.to(device), dtype
    return _converted(options, path, device)


def _converted(
    options: argparse.Namespace, path: Path, device: torch.device
) -> tuple[nn.Module, torch.dtype]:
    from torchfgsm import converters
    from torchfgsm.cli.convert import Steps, names

    model = converters.load(
        path,
        verify=not options.no_verify,
        custom_objects=options.custom_objects,
        allow_unsafe=options.allow_unsafe,
        input_names=names(options.inputs),
        output_names=names(options.outputs),
        timeout=options.timeout,
        progress=Steps(),
    )
    if len(model.input_names) != 1 or model.annotation.structure != "single":
        raise ValueError(
            f"{path}: expected a model with one input and one output, got the inputs "
            f"{list(model.input_names)} and the outputs {list(model.output_names)}: use "
            "torchfgsm.attack in Python"
        )
    return model.to(device), model.dtype


def digest(path: Path | str) -> str:
    """The SHA-256 of a file, or of all files in a folder with their names.

    Raises:
        FileNotFoundError: There is none.
    """
    path, found = Path(path), hashlib.sha256()
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    for file in sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]:
        if path.is_dir():
            found.update(f"{file.relative_to(path)}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while piece := stream.read(_PIECE):
                found.update(piece)
    return found.hexdigest()


def origin(options: argparse.Namespace) -> dict[str, Any]:
    """What the loaded model depends on."""
    found: dict[str, Any] = {"sha256": digest(options.model)}
    if options.custom_objects is not None:
        found["custom objects"] = digest(options.custom_objects)
    ports = {"inputs": options.inputs, "outputs": options.outputs}
    return {**found, **{name: value for name, value in ports.items() if value is not None}}
