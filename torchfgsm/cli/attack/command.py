"""Runs `torchfgsm attack`: progress on stderr, what was written on stdout."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from torchfgsm.cli.attack.output import Output
from torchfgsm.cli.attack.recipes import recipe_of
from torchfgsm.cli.attack.spans import Spans
from torchfgsm.cli.inputs import models
from torchfgsm.cli.inputs.rows import Rows, array_of, device_of, inputs_of, labels_of, opened
from torchfgsm.core.model_gradient import run_on_model
from torchfgsm.core.preparation import prepared
from torchfgsm.core.recipe import Recipe
from torchfgsm.system.progress import Bar
from torchfgsm.version import __version__

Array = npt.NDArray[Any]


def run(options: argparse.Namespace) -> int:
    """Attacks all rows of a file and returns the exit code, 0.

    Raises:
        ConversionError: The model cannot be converted.
        EnvironmentUnavailable: The TensorFlow that it needs cannot be had.
        OSError: A file cannot be read or written.
        ValueError: Bad options or data; an earlier run of something else.
    """
    recipe, device = recipe_of(options), device_of(options.device)
    if options.batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1, got {options.batch_size}")
    if options.seed < 0:
        raise ValueError(f"--seed must be at least 0, got {options.seed}")
    data = Path(options.data)
    with opened(data, options.x_key, options.y_key) as (x, found):
        y = None if options.predicted_labels else found
        if y is None and (recipe.labels == "given" or recipe.targeted):
            kind = "targeted attacks" if recipe.targeted else f"--recipe {options.recipe}"
            raise ValueError(f"{data}: {kind} need labels: give a .npz file with an array y")
        with Output(Path(options.output), [data, Path(options.model)]) as output:
            output.begin(_about(options, recipe, device, y), force=options.force)
            if not output.made:
                with _resumable(output):
                    if output.rows < x.shape[0]:
                        _attack_rows(options, recipe, device, x, y, output)
                    output.finish()
    done = "complete already, by this same command" if output.made else "written"
    print(f"{done}: {output.path}, {x.shape[0]} rows")
    print(f"labels of the attack, {'predicted' if y is None else 'given'}: {output.labels_path}")
    print(f"recipe: {output.recipe_path}")
    return 0


def _about(
    options: argparse.Namespace, recipe: Recipe, device: torch.device, y: Rows | None
) -> dict[str, Any]:
    """Everything on which the bytes of the output depend."""
    return {
        "recipe": dataclasses.asdict(recipe),
        "labels": "predicted" if y is None else "given",
        "model": models.origin(options),
        "data": {
            "sha256": models.digest(options.data),
            "x": options.x_key,
            "y": None if y is None else options.y_key or "y",
        },
        "batch size": options.batch_size,
        "seed": options.seed,
        "device": device.type,
        "version": {"torchfgsm": __version__, "torch": str(torch.__version__)},
    }


def _attack_rows(
    options: argparse.Namespace,
    recipe: Recipe,
    device: torch.device,
    x: Rows,
    y: Rows | None,
    output: Output,
) -> None:
    """Attacks the rows that are not done yet."""
    model, dtype = models.load(options, device)
    total, size = x.shape[0], options.batch_size
    if output.rows:
        print(f"torchfgsm: going on after {output.rows} rows of {total}", file=sys.stderr)
    for source in (x, y):
        if source is not None:
            source.skip(output.rows)
    spans = Spans()
    with Bar("attacking", "rows") as bar:
        bar(output.rows, total)
        for first in range(output.rows, total, size):
            count = min(size, total - first)
            inputs = inputs_of(x.read(count), dtype, device)
            labels = None if y is None else labels_of(y.read(count), device)
            generator = _generator(options.seed, first // size, device)
            try:
                batches = _attack(model, inputs, labels, recipe, generator)
            except (RuntimeError, TypeError, ValueError) as error:
                raise ValueError(f"rows {first} to {first + count - 1}: {error}") from error
            if not first:
                output.create(*batches, total)
            output.write(*batches)
            spans.add(array_of(inputs), batches[0])
            bar(output.rows, total)
    for note in spans.notes(recipe):
        print(f"torchfgsm: {note}", file=sys.stderr)


@contextlib.contextmanager
def _resumable(output: Output) -> Iterator[None]:
    """Says of a refusal of the system, and of what breaks a run off, what is not lost."""
    try:
        yield
    except (KeyboardInterrupt, OSError) as error:
        if not output.kept:
            raise
        known = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else OSError
        raise known(
            f"{str(error) or 'interrupted'}; {output.kept} rows are kept, and the same command "
            "goes on after them"
        ) from error


def _attack(
    model: nn.Module, x: Tensor, y: Tensor | None, recipe: Recipe, generator: torch.Generator
) -> tuple[Array, Array]:
    """Adversarial examples as `torchfgsm.attack` makes them, and the labels that it took."""
    gradient, call = prepared(model, x, y, recipe=recipe, generator=generator, validate=True)
    (moved,) = run_on_model(gradient, call)
    return array_of(moved), array_of(gradient.y)


def _generator(seed: int, batch: int, device: torch.device) -> torch.Generator:
    """The random numbers of one batch, which do not depend on those of others."""
    (mixed,) = np.random.SeedSequence((seed, batch)).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(mixed) >> 1)
