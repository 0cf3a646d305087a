"""`torchfgsm attack` with bad options, models and data: one line each, and nothing is written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx2torch")

from attack_files import classes, inputs, refused  # noqa: E402

from torchfgsm.parity import recorded  # noqa: E402

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("one_thread")


def _bad_input(folder: Path) -> dict[str, tuple[list[Any], str]]:
    """Name -> (arguments after the model, what the line must say)."""
    x, y = inputs(), classes()
    arrays: dict[str, dict[str, Any]] = {
        "good": {"x": x, "y": y},
        "columns": {"x": np.asfortranarray(x), "y": y},
        "words": {"x": np.array([["a"] * 6] * 50), "y": y},
        "objects": {"x": np.array([{}], dtype=object)},
        "few": {"x": x, "y": y[:-1]},
        "other": {"image": x},
        "empty": {"x": x[:0], "y": y[:0]},
        "wide": {"x": np.zeros((50, 7), np.float32), "y": y},
        "range": {"x": x, "y": y + 1},
        "infinite": {"x": np.where(np.arange(50)[:, None] == 33, np.inf, x), "y": y},
    }
    for name, given in arrays.items():
        np.savez(folder / f"{name}.npz", **given)
    np.save(folder / "plain.npy", x)
    content = (folder / "plain.npy").read_bytes()
    (folder / "short.npy").write_bytes(content[:-100])
    archive = bytearray((folder / "good.npz").read_bytes())
    archive[400] ^= 255  # in the numbers of x
    (folder / "damaged.npz").write_bytes(archive)
    (folder / "text.npy").write_text("no array")
    good, out = folder / "good.npz", folder / "out.npy"

    def on(name: str, *more: Any, step: bool = True) -> list[Any]:
        return ["--data", folder / name, "-o", out, *(("--eps", 0.1) if step else ()), *more]

    iterated = ("--recipe", "cleverhans-torch", "--iterations", 2)
    return {
        "no file": (on("none.npy"), "no such file"),
        "no model": (on("good.npz"), "no such file"),
        "columns": (on("columns.npz"), "ascontiguousarray"),
        "text": (on("words.npz"), "expected numbers, got the dtype <U1"),
        "objects": (on("objects.npz"), "expected numbers, got the dtype object"),
        "fewer labels": (on("few.npz"), "expected labels (50, ...)"),
        "name": (on("other.npz"), "no array 'x', only ['image']; --x-key"),
        "name of labels": (on("good.npz", "--y-key", "z"), "no array 'z'"),
        "labels in .npy": (on("plain.npy", "--y-key", "y"), "--y-key names an array in a .npz"),
        "no rows": (on("empty.npz"), "non-empty array"),
        "shape": (on("wide.npz"), "rows 0 to 31: input 'x': expected (N, 6) float32, got (32, 7)"),
        "classes": (on("range.npz"), "rows 0 to 31: "),
        "infinite": (on("infinite.npz"), "rows 32 to 49: x has a NaN or infinite entry"),
        "truncated": (on("short.npy"), "the file ends too early"),
        "damaged": (on("damaged.npz"), "Bad CRC-32"),
        "no array": (on("text.npy"), "expected a .npy or .npz file of plain arrays"),
        "no step": (on("good.npz", step=False), "needs --eps: the length of the step"),
        "no ball": (
            on("good.npz", "--iterations", 2, step=False), "needs --eps: the radius of the ball"),
        "no iterations": (
            on("good.npz", "--step-size", 2), "--step-size belongs to iterated steps"),
        "no start": (on("good.npz", "--random-start"), "--random-start belongs to iterated steps"),
        "iterations": (on("good.npz", "--iterations", 0), "--iterations must be at least 1"),
        "no ball either": (on("good.npz", *iterated, step=False), "needs --eps: the radius"),
        "l1": (on("good.npz", *iterated, "--norm", "l1"), "does not take norm 1"),
        "l1 of NSL": (
            on("good.npz", "--recipe", "nsl", "--iterations", 2, "--norm", "l1"),
            "NSL projects to balls of the norms l2 and linf only"),
        "long steps": (
            on("good.npz", *iterated, "--step-size", 0.2), "longer than the ball's radius 0.1"),
        "recipe": (on("good.npz", "--recipe", "nsls"), "unknown recipe 'nsls': did you mean 'nsl'"),
        "older recipe": (
            on("good.npz", "--recipe", "cleverhans4"),
            "did you mean 'cleverhans-tf2' or 'cleverhans-torch'?"),
        "older number": (on("good.npz", "--steps", 2), "--steps: did you mean --iterations?"),
        "older step": (on("good.npz", "--step=2"), "--step: did you mean --step-size?"),
        "older radius": (on("good.npz", "--epsilon", 2), "--epsilon: did you mean --eps?"),
        "other's radius": (on("good.npz", "--pgd-epsilon", 2), "--pgd-epsilon: did you mean --eps"),
        "one side": (
            on("good.npz", "--recipe", "cleverhans3", "--clip-min", 0), "or to neither"),
        "negative": (on("good.npz", "--eps", -1, step=False), "--eps must be finite and at least"),
        "targets of NSL": (on("good.npz", "--recipe", "nsl", "--targeted"), "no targeted attacks"),
        "no labels": (on("plain.npy", "--recipe", "nsl"), "--recipe nsl need labels"),
        "no targets": (on("plain.npy", "--targeted"), "targeted attacks need labels"),
        "batch size": (on("good.npz", "--batch-size", 0), "--batch-size must be at least 1"),
        "seed": (on("good.npz", "--seed", -1), "--seed must be at least 0"),
        "device": (on("good.npz", "--device", "cuda:99"), "--device cuda:99 cannot be used"),
        "suffix": (["--data", good, "-o", folder / "out.npz", "--eps", 1], "suffix .npy"),
        "folder": (["--data", good, "-o", folder / "a" / "b.npy", "--eps", 1], "existing folder"),
        "itself": (
            ["--data", folder / "plain.npy", "-o", folder / "plain.npy", "--eps", 1],
            "another file for the output"),
    }  # fmt: skip


def test_bad_input_is_one_line_and_leaves_nothing(
    model_file: Path, tmp_path: Path, capsys: Capture
) -> None:
    cases = _bad_input(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for name, (arguments, says) in cases.items():
        model = tmp_path / "none.onnx" if name == "no model" else model_file
        options = ["--no-verify", "--batch-size", 32, *arguments]
        assert says in refused(capsys, model, *options), name
        left = {path: path.read_bytes() for path in tmp_path.iterdir() if ".part" not in path.name}
        assert left == before, name
        for path in set(tmp_path.iterdir()) - set(before):
            assert name in ("infinite", "damaged", "truncated"), path  # after a first batch
            path.unlink()


def test_a_model_with_two_inputs_is_for_python(tmp_path: Path, capsys: Capture) -> None:
    data = tmp_path / "in.npy"
    np.save(data, np.zeros((2, 4, 8, 1), np.float32))
    model = recorded.FOLDER / "digits-two-inputs.onnx"
    arguments = (model, "--no-verify", "--data", data, "-o", tmp_path / "out.npy", "--eps", 0.1)
    assert "got the inputs ['top', 'bottom']" in refused(capsys, *arguments)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_not_writable(
    model_file: Path, data_file: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    arguments = (model_file, "--data", data_file, "-o", folder / "out.npy", "--eps", 0.1)
    assert "out.npy.part: could not be written: Permission denied" in refused(capsys, *arguments)
