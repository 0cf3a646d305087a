"""`torchfgsm attack`: the rows of `torchfgsm.attack`, broken-off runs, memory, refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx2torch")

from attack_files import PGD, classes, inputs, made, refused, run  # noqa: E402
from onnx_models import FLOAT, dense  # noqa: E402
from processes import environment  # noqa: E402

from torchfgsm import Recipe, attack, converters  # noqa: E402
from torchfgsm.cli.attack.command import _generator  # noqa: E402

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(model_file: Path) -> converters.ConvertedModel:
    return converters.load(model_file, verify=False)


RECIPES: dict[str, tuple[tuple[Any, ...], Recipe]] = {
    "step": (("--eps", 0.1), Recipe(step=0.1)),
    "step in L2, bounded": (
        ("--eps", 0.1, "--norm", "l2", "--clip-min", -1, "--clip-max", 1),
        Recipe(step=0.1, norm="l2", clip_min=-1, clip_max=1),
    ),
    "targets": (("--eps", 0.1, "--targeted"), Recipe(step=0.1, targeted=True)),
    "iterated": (
        ("--iterations", 3, "--eps", 0.2, "--step-size", 0.1, "--no-random-start"),
        Recipe(step=0.1, iterations=3, epsilon=0.2),
    ),
    "random start": (
        ("--iterations", 5, "--eps", 0.2, "--seed", 7),
        Recipe(step=0.1, iterations=5, epsilon=0.2, random_start="uniform"),
    ),
    "nsl": (("--recipe", "nsl"), Recipe.nsl()),
    "nsl iterated": (
        ("--recipe", "nsl", "--norm", "linf", "--step-size", 0.1, "--iterations", 2, "--eps", 0.15,
         "--random-start", "--clip-min", -1),
        Recipe.nsl(0.1, "infinity", -1, None, 2, 0.15, True),
    ),
    "cleverhans3": (("--recipe", "cleverhans3"), Recipe.cleverhans3()),
    "cleverhans3 iterated": (
        ("--recipe", "cleverhans3", "--iterations", 4, "--norm", "l2"),
        Recipe.cleverhans3(nb_iter=4, ord=2),
    ),
    "cleverhans-tf2": (
        ("--recipe", "cleverhans-tf2", "--eps", 0.1, "--norm", "l1"),
        Recipe.cleverhans_tf2(0.1, 1),
    ),
    "cleverhans-torch iterated": (
        ("--recipe", "cleverhans-torch", "--iterations", 2, "--eps", 0.2, "--step-size", 0.1),
        Recipe.cleverhans_torch(0.2, np.inf, 0.1, 2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_the_rows_are_those_of_the_function(
    model_file: Path, model: Any, data_file: Path, tmp_path: Path, name: str
) -> None:
    arguments, recipe = RECIPES[name]
    out = tmp_path / "out.npy"
    found = made(model_file, data_file, out, *arguments, "--batch-size", 20)
    x, y = torch.from_numpy(inputs()), torch.from_numpy(classes())
    seed = 7 if "--seed" in arguments else 0
    expected = [
        attack(model, x[i : i + 20], y[i : i + 20], recipe=recipe,
               generator=_generator(seed, i // 20, torch.device("cpu")))
        for i in (0, 20, 40)
    ]  # fmt: skip
    assert np.array_equal(found, torch.cat(expected).numpy())
    assert found.dtype == np.float32
    assert np.array_equal(np.load(tmp_path / "out.labels.npy"), classes())
    written = json.loads((tmp_path / "out.recipe.json").read_text())
    assert Recipe(**written["recipe"]) == recipe
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "in.npz", "out.labels.npy", "out.npy", "out.recipe.json"
    ]  # fmt: skip


def test_random_starts_differ_by_batch_and_seed(
    model_file: Path, tmp_path: Path, data_file: Path
) -> None:
    data = tmp_path / "same.npy"
    np.save(data, np.repeat(inputs(1), 8, axis=0))
    one = made(model_file, data, tmp_path / "a.npy", *PGD, "--batch-size", 4)
    two = made(model_file, data, tmp_path / "b.npy", *PGD, "--batch-size", 4, "--seed", 1)
    assert not np.array_equal(one[:4], one[4:])
    assert not np.array_equal(one, two)


@pytest.mark.parametrize("recipe", ["native", "cleverhans3"])
def test_predicted_labels_are_written(
    model_file: Path, model: Any, data_file: Path, tmp_path: Path, recipe: str
) -> None:
    """CleverHans 3's are rows of probabilities, which ties share."""
    out = tmp_path / "out.npy"
    arguments = ("--recipe", recipe, "--eps", 0.1)
    found = made(model_file, data_file, out, *arguments, "--predicted-labels")
    x = torch.from_numpy(inputs())
    preset = Recipe(step=0.1) if recipe == "native" else Recipe.cleverhans3(eps=0.1)
    assert np.array_equal(found, attack(model, x, recipe=preset).numpy())
    labels = np.load(tmp_path / "out.labels.npy")
    predicted = model(x).detach().argmax(1).numpy()
    assert np.array_equal(labels if recipe == "native" else labels.argmax(1), predicted)
    data = tmp_path / "x.npy"
    np.save(data, inputs())
    assert np.array_equal(made(model_file, data, out, *arguments, "--force"), found)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_numbers_of_every_kind_and_names_of_arrays(
    model_file: Path, model: Any, tmp_path: Path, save: Any
) -> None:
    """Values stay in their unit; labels (N, 1) are those of Keras' data sets."""
    images = np.random.default_rng(3).integers(0, 256, size=(9, 6))
    y = torch.from_numpy(classes(9))
    kinds: tuple[Any, ...] = (np.uint8, np.dtype(">f8"), np.dtype("<f2"), np.int64)
    for number, dtype in enumerate(kinds):
        data = tmp_path / f"{number}.npz"
        save(data, images=images.astype(dtype), digits=classes(9).reshape(9, 1).astype(np.uint8))
        keys = ("--x-key", "images", "--y-key", "digits")
        out = tmp_path / f"out{number}.npy"
        found = made(model_file, data, out, "--eps", 2, *keys, "--batch-size", 4)
        x = torch.from_numpy(images.astype(np.float32))
        assert np.array_equal(found, attack(model, x, y, recipe=Recipe(step=2.0)).numpy())


def test_files_are_as_numpy_writes_them(
    model_file: Path, data_file: Path, tmp_path: Path, capsys: Capture
) -> None:
    out, again = tmp_path / "out.npy", tmp_path / "again.npy"
    arguments = (model_file, "--data", data_file, "-o", out, "--eps", 0.1)
    code, text, lines = run(capsys, *arguments)
    assert code == 0
    assert text.splitlines()[0] == f"written: {out}, 50 rows"
    assert "100%  50/50 rows" in lines[-2]
    assert "the data lie in " in lines[-1]
    np.save(again, np.load(out))
    assert again.read_bytes() == out.read_bytes()
    assert out.stat().st_mode & 0o777 == 0o644 & ~_umask()
    assert "is there already; --force" in refused(capsys, *arguments[:-1], 0.2)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_an_exported_program(model: Any, data_file: Path, tmp_path: Path, capsys: Capture) -> None:
    path, out = tmp_path / "model.pt2", tmp_path / "out.npy"
    batch = torch.export.Dim("batch")
    network = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    program = torch.export.export(network, (torch.zeros(2, 6),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    arguments = (path, "--data", data_file, "-o", out, "--eps", 0.1)
    assert "--allow-unsafe" in refused(capsys, *arguments)
    assert run(capsys, *arguments, "--allow-unsafe", "--batch-size", 16)[0] == 0
    x, y = torch.from_numpy(inputs()), torch.from_numpy(classes())
    expected = attack(network, x, y, recipe=Recipe(step=0.1))
    assert np.allclose(np.load(out), expected.numpy(), rtol=0, atol=1e-6)


MEMORY = """
import re, sys
from torchfgsm import cli
model, small, *large = sys.argv[1:]
def run(data):
    given = ["attack", model, "--no-verify", "--eps", "0.1", "--batch-size", "200"]
    assert cli.main([*given, "--data", data, "-o", data + ".out.npy"]) == 0
    # Not ru_maxrss, in which the memory of the process that started this one counts.
    print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
run(small)
for data in large:
    run(data)
"""


def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    """Of 80 MB of inputs and as much output."""
    model, width = tmp_path / "wide.onnx", 1024
    onnx.save(dense(np.ones((width, 2)), np.zeros(2), [], [("z", FLOAT, [2])]), model)
    kinds: dict[str, Callable[..., None]] = {
        "compressed.npz": np.savez_compressed, "stored.npz": np.savez,
    }  # fmt: skip
    for name, save in kinds.items():
        save(tmp_path / name, x=np.zeros((20000, width), np.float32), y=np.zeros(20000, np.int8))
    np.save(tmp_path / "plain.npy", np.zeros((20000, width), np.float32))
    np.savez_compressed(tmp_path / "small.npz", x=np.zeros((1000, width), np.float32))
    files = [str(tmp_path / name) for name in ("small.npz", *kinds, "plain.npy")]
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(model), *files],
        env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    small, *large = [int(line) for line in done.stdout.splitlines() if line.isdigit()]
    assert len(large) == 3
    assert max(large) - small < 16_000, (small, large)  # in kB
