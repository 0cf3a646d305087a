"""Data-parallel training: two processes that train on halves of a batch equal one on all of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import SUPPORT, environment

ROOT = Path(__file__).parents[2]
RECIPES = ["NSL", "attack in eval mode", "three steps", "own prediction", "adversarial only"]

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="this torch is built without torch.distributed"
)


def torchrun(script: Path, *arguments: str) -> str:
    """The output of a script that runs in two processes."""
    result = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", str(script), *arguments),
        ],
        capture_output=True,
        text=True,
        timeout=180,
        env=environment(),
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    path = tmp_path_factory.mktemp("ddp") / "found.json"
    torchrun(SUPPORT / "training_ddp_worker.py", str(path))
    results: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return results


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("way", ["step", "loss", "FSDP loss"])
def test_two_shards_have_the_gradients_of_the_whole_batch(
    found: dict[str, dict[str, Any]], way: str, name: str
) -> None:
    if way == "FSDP loss" and not hasattr(torch.cpu.Stream, "record_event"):
        pytest.skip(f"torch {torch.__version__} shards no model on a CPU")
    assert found[f"{way}, {name}"]["distance"] <= 1e-12


@pytest.mark.parametrize(
    "name",
    [
        *[f"{way}, {name}" for way in ("step", "loss") for name in RECIPES],
        "loss, second order",
        "step, accumulated",
        "step, compiled",
        "step, find_unused_parameters",
        "step, gradient_as_bucket_view",
    ],
)
def test_gradients_are_reduced_once_a_step(found: dict[str, dict[str, Any]], name: str) -> None:
    assert found[name]["reductions"] == 1
    assert found[name]["distance"] <= 1e-12


@pytest.mark.parametrize("name", ["none", "fgsm", "pgd", "cleverhans", "kept"])
def test_an_attack_leaves_training_of_a_static_graph_synchronous(
    found: dict[str, dict[str, Any]], name: str
) -> None:
    assert found[f"attacked first, {name}"]["apart"] == 0


def test_a_tensor_parallel_model_takes_steps(found: dict[str, dict[str, Any]]) -> None:
    assert found["tensor parallel step"]["distance"] <= 1e-12


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("FSDP step", "adversarial_loss"),
        ("FSDP second order", "through_perturbation=False"),
        ("static graph step", "without static_graph"),
        ("static graph loss", "without static_graph"),
    ],
)
def test_what_would_train_wrongly_is_refused_before_it_runs(
    found: dict[str, dict[str, Any]], name: str, message: str
) -> None:
    assert message in found[name]["error"]
    assert found[name]["calls"] == 0


@pytest.mark.slow
def test_the_example_trains_in_two_processes() -> None:
    printed = torchrun(ROOT / "examples" / "train_ddp.py")
    assert "2 processes" in printed
    assert printed.count("robust") == 1
