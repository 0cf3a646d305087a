"""`torchfgsm explain`: what it prints and writes is that of the function; refusals are one line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx2torch")
pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from attack_files import classes, inputs  # noqa: E402

from torchfgsm import cli, converters  # noqa: E402
from torchfgsm.cli.inputs import models  # noqa: E402
from torchfgsm.explanation.explaining import explain  # noqa: E402
from torchfgsm.explanation.report import document, page  # noqa: E402
from torchfgsm.libraries.configuration import Configuration  # noqa: E402
from torchfgsm.parity import recorded  # noqa: E402

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("one_thread")


def run(capsys: Capture, *arguments: Any) -> tuple[int, str, list[str]]:
    code = cli.main(["explain", "--no-verify", *map(str, arguments)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err.splitlines()


def refused(capsys: Capture, *arguments: Any) -> str:
    """The one line that a refusal says, after the steps of conversion and explanation."""
    code, out, lines = run(capsys, *arguments)
    said = [line for line in lines if line.startswith("torchfgsm: ") and " s  " not in line]
    assert (code, out, len(said)) == (2, "", 1), lines
    assert lines[-1] == said[0]
    return said[0]


def test_the_report_is_that_of_the_function(
    model_file: Path, data_file: Path, tmp_path: Path, capsys: Capture
) -> None:
    options = (
        model_file, "--data", data_file, "--set-a", "adv_step_size=0.2", "adv_grad_norm=l2",
        "--set-b", "eps=1/10", "ord=L2", "--count", 40,
    )  # fmt: skip
    html, markdown = tmp_path / "out.html", tmp_path / "out.md"
    code, out, _ = run(capsys, *options, "--json", "--html", html, "--markdown", markdown)
    assert code == 0
    x, y = torch.from_numpy(inputs()[:40]), torch.from_numpy(classes()[:40])
    expected = explain(
        converters.load(model_file, verify=False), x, y,
        a=Configuration.of("nsl", {"adv_step_size": 0.2, "adv_grad_norm": "l2"}),
        b=Configuration.of("cleverhans3", {"eps": 0.1, "ord": 2}),
    )  # fmt: skip
    found = json.loads(out)
    facts = found.pop("facts")
    assert facts["data"] == f"{data_file}, 40 of 50 rows"
    assert found == {n: v for n, v in expected.to_dict().items() if n != "facts"}
    assert found["differs"]
    code, out, lines = run(capsys, *options)
    assert (code, out.splitlines()[2:4]) == (0, expected.to_text().splitlines()[2:4])
    assert not any(line.startswith("written") for line in lines)
    for text in (html.read_text(), markdown.read_text()):
        assert "Most moved features" in text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.npz", "out.html", "out.md"]


def test_nothing_differs_is_no_failure(
    model_file: Path, data_file: Path, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "out.html"
    same = ("--b", "nsl", "--set-b", "multiplier=0.7")
    code, out, lines = run(capsys, model_file, "--data", data_file, *same, "--html", path)
    assert code == 0
    assert "Nothing differs: NSL 1.4.0 (a) and NSL 1.4.0 (b) give the same" in out
    assert lines[-1] == f"written: {path}"
    assert "Nothing differs" in path.read_text()


def test_pictures_of_digits(tmp_path: Path, capsys: Capture) -> None:
    """The recorded digits model, channels last as in Keras."""
    model = recorded.FOLDER / "digits.onnx"
    data, path = tmp_path / "in.npz", tmp_path / "out.html"
    x = np.random.default_rng(0).uniform(0, 1, (6, 8, 8, 1))
    np.savez(data, images=x, digits=np.arange(6).reshape(6, 1))
    keys = ("--x-key", "images", "--y-key", "digits")
    assert run(capsys, model, "--data", data, *keys, "--html", path)[0] == 0
    assert path.read_text().count("data:image/png") == 6 * 4


def _bad(folder: Path) -> dict[str, tuple[list[Any], str]]:
    """Name -> (arguments after the model, what the line must say)."""
    x, y = inputs(), classes()
    arrays: dict[str, dict[str, Any]] = {
        "good": {"x": x, "y": y},
        "few": {"x": x, "y": y[:3]},
        "none": {"x": x},
    }
    for name, given in arrays.items():
        np.savez(folder / f"{name}.npz", **given)
    np.save(folder / "plain.npy", x)
    (folder / "old.html").write_text("older")
    good = ["--data", folder / "good.npz"]
    return {
        "library": (
            [*good, "--a", "cleverhans4"],
            "--a cleverhans4: unknown library 'cleverhans4': did you mean 'cleverhans-tf2' or "
            "'cleverhans-torch'?",
        ),
        "near library": (
            [*good, "--b", "cleverhans"],
            "did you mean 'cleverhans3', 'cleverhans-tf2' or 'cleverhans-torch'?",
        ),
        "other's option": (
            [*good, "--set-a", "eps=0.1"], "did you mean 'adv_step_size'? (options: --set-a)"
        ),
        "commas": ([*good, "--set-b", "eps=0.1,ord=2"], "separate options by spaces"),
        "near option": (
            [*good, "--set-a", "adv_stepsize=1"], "did you mean 'adv_step_size'? (options: --set-a)"
        ),
        "no value": ([*good, "--set-b", "eps"], "expected name=value, such as eps=0.1, got 'eps'"),
        "bad value": ([*good, "--set-b", "ord=3"], "must be numpy.inf, 1 or 2, got 3"),
        "missing": ([*good, "--b", "cleverhans-tf2"], "has no default for eps, norm: give it"),
        "targets": ([*good, "--set-b", "targeted=true"], "use torchfgsm.explain in Python"),
        "suffix": ([*good, "--html", folder / "out.htm"], "with the suffix .html"),
        "markdown": ([*good, "--markdown", folder / "a" / "b.md"], "expected an existing folder"),
        "old": ([*good, "--html", folder / "old.html"], "is there already; --force"),
        "count": ([*good, "--count", 0], "--count must be at least 1, got 0"),
        "batch size": ([*good, "--batch-size", 0], "--batch-size must be at least 1"),
        "seed": ([*good, "--seed", -1], "--seed must be at least 0"),
        "device": ([*good, "--device", "cuda:99"], "--device cuda:99 cannot be used"),
        "no file": (["--data", folder / "nothing.npz"], "no such file"),
        "no labels": (["--data", folder / "none.npz"], "found no labels: give a .npz file"),
        "few labels": (["--data", folder / "few.npz"], "expected labels (50, ...)"),
        "no archive": (["--data", folder / "plain.npy"], "give a .npz file with an array y"),
        "no key": ([*good, "--x-key", "image"], "found no array 'image'"),
    }  # fmt: skip


def _opened(*_: object) -> None:
    raise AssertionError("the model was opened")


def test_bad_input_is_one_line_before_a_model_is_opened(
    model_file: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "load", _opened)
    cases = _bad(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for name, (arguments, says) in cases.items():
        assert says in refused(capsys, model_file, *arguments), name
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


class Tired(nn.Module):
    """A model that fails at its fourth call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls = nn.Linear(6, 3), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > 3:
            raise RuntimeError("out of breath")
        out: Tensor = self.layer(x)
        return out


@pytest.mark.parametrize("what", ["model", "to_html", "to_markdown"])
def test_what_fails_on_the_way_leaves_no_file(
    model_file: Path, data_file: Path, tmp_path: Path, capsys: Capture,
    monkeypatch: pytest.MonkeyPatch, what: str,
) -> None:  # fmt: skip
    def broken(_: object) -> str:
        raise ValueError("out of breath")

    if what == "model":
        monkeypatch.setattr(models, "load", lambda *_: (Tired(), torch.float32))
    else:
        owner = page if what == "to_html" else document
        monkeypatch.setattr(owner, what, broken)
    outputs = ("--markdown", tmp_path / "out.md", "--html", tmp_path / "out.html")
    assert "out of breath" in refused(capsys, model_file, "--data", data_file, *outputs)
    assert list(tmp_path.iterdir()) == [data_file]


def test_a_model_that_does_not_fit(model_file: Path, tmp_path: Path, capsys: Capture) -> None:
    data = tmp_path / "in.npz"
    np.savez(data, x=np.zeros((4, 7)), y=np.zeros(4, int))
    assert "expected (N, 6) float32, got (4, 7)" in refused(capsys, model_file, "--data", data)
    assert "no such file" in refused(capsys, tmp_path / "none.onnx", "--data", data)


def test_missing_packages_are_said_before_the_work(
    model_file: Path, data_file: Path, tmp_path: Path, capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with monkeypatch.context() as patched:
        patched.setattr(models, "load", _opened)
        line = refused(capsys, model_file, "--data", data_file, "--html", tmp_path / "out.html")
    assert line.endswith("needs matplotlib: pip install 'torchfgsm[report]'")
    assert run(capsys, model_file, "--data", data_file)[0] == 0  # text needs neither
