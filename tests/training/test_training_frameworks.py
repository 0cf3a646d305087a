"""Adversarial training where people train: a plain loop, Lightning, Hugging Face's Trainer."""

from __future__ import annotations

import copy
import importlib.util
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from torchfgsm import Weighting, adversarial_loss, adversarial_step, fgsm

EXAMPLES = Path(__file__).parents[2] / "examples"
SCORES = re.compile(r"^(.*?) *clean ([\d.]+)%  robust ([\d.]+)%$", re.MULTILINE)

pytestmark = pytest.mark.usefixtures("one_thread")
# What Lightning itself warns about: torch's newer names, and how many cores are idle.
lightning_warns = pytest.mark.filterwarnings(
    "ignore:`isinstance\\(treespec:FutureWarning", "ignore:.*does not have many workers"
)


def example(name: str, *packages: str) -> Any:
    """An example as a module, where what it needs is installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install '.[test]'")
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[float, float]]:
    """Clean and robust accuracy of each line, in percent."""
    found = SCORES.findall(capsys.readouterr().out)
    return {name: (float(clean), float(robust)) for name, clean, robust in found}


def loader(size: int, dtype: torch.dtype, *shape: int, batch_size: int) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(size, *shape, dtype=torch.float64, generator=generator).to(dtype)
    y = torch.randint(10, (size,), generator=generator)
    return DataLoader(TensorDataset(x, y), batch_size=batch_size)


def test_the_plain_loop_gains_robustness_with_every_weighting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = example("train_loop")
    monkeypatch.setattr(sys, "argv", ["train_loop.py"])
    module.main()
    scores = printed(capsys)
    assert scores.keys() == module.WEIGHTINGS.keys()
    assert all(clean > 85 for clean, _ in scores.values())
    _, undefended = scores.pop("clean")
    assert all(robust > undefended + 10 for _, robust in scores.values())


def test_the_plain_loop_takes_one_weighting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = example("train_loop")
    monkeypatch.setattr(module, "train", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["train_loop.py", "--weighting", "nsl"])
    module.main()
    assert list(printed(capsys)) == ["nsl"]


@lightning_warns
def test_the_lightning_example_trains(capsys: pytest.CaptureFixture[str]) -> None:
    example("train_lightning", "lightning").main()
    ((clean, robust),) = printed(capsys).values()
    assert clean > 85
    assert robust > 60


def lightning_trainer(module: Any, **options: Any) -> Any:
    return module.lightning.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, **options,
    )  # fmt: skip


@lightning_warns
@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_lightning_takes_the_steps_of_the_plain_loop() -> None:
    """It divides the loss by the accumulated batches, clips and steps; nothing else differs."""
    module = example("train_lightning", "lightning")
    model = module.Classifier().double()
    twin, batches = copy.deepcopy(model), loader(32, torch.float64, 64, batch_size=8)
    lightning_trainer(
        module, precision="64-true", accumulate_grad_batches=2, gradient_clip_val=0.1
    ).fit(model, batches)
    half = Weighting(module.WEIGHTING.clean / 2, module.WEIGHTING.adversarial / 2)
    optimizer = twin.configure_optimizers()
    for number, (x, y) in enumerate(batches, start=1):
        adversarial_step(twin.network, x, y, recipe=module.RECIPE, weighting=half)
        if number % 2 == 0:
            norm = nn.utils.clip_grad_norm_(twin.parameters(), 0.1)
            assert norm > 0.1
            optimizer.step()
            optimizer.zero_grad()
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@lightning_warns
def test_robust_accuracy_is_the_same_under_lightnings_inference_mode() -> None:
    module = example("train_lightning", "lightning")
    model, batches = module.Classifier(), loader(64, torch.float32, 64, batch_size=32)
    inference: set[bool] = set()
    # Attacks leave it for their gradients; the accuracy itself is taken in it.
    model.network.register_forward_hook(lambda *_: inference.add(torch.is_inference_mode_enabled()))
    (scores,) = lightning_trainer(module).validate(model, batches, verbose=False)
    assert True in inference
    x, y = batches.dataset[:]
    attacked = fgsm(model.network, x, y, eps=module.EPS, clip_min=0.0, clip_max=1.0)
    for name, inputs in (("clean", x), ("robust", attacked)):
        right = (model.network(inputs).argmax(dim=1) == y).float().mean()
        assert scores[name] == pytest.approx(right.item(), abs=1e-6)


@lightning_warns
@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_lightning_trains_in_bfloat16() -> None:
    module = example("train_lightning", "lightning")
    model, batches = module.Classifier(), loader(32, torch.float32, 64, batch_size=8)
    before = copy.deepcopy(model.state_dict())
    lightning_trainer(module, precision="bf16-mixed").fit(model, batches)
    for name, weights in model.state_dict().items():
        assert weights.dtype == torch.float32
        assert bool(torch.isfinite(weights).all())
        assert not torch.equal(weights, before[name])


def refuse_connection(*_: object) -> None:
    raise AssertionError("the example went to the network")


@pytest.mark.slow
def test_the_transformers_example_trains_without_a_network(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = example("train_transformers", "transformers", "accelerate")
    monkeypatch.setattr(socket.socket, "connect", refuse_connection)
    module.main()
    ((clean, robust),) = printed(capsys).values()
    assert clean > 80
    assert robust > 55


def test_the_trainer_averages_accumulated_batches(tmp_path: Path) -> None:
    """One step of SGD over two batches is that of both as one batch."""
    module = example("train_transformers", "transformers", "accelerate")
    model = module.vision_transformer().double()
    twin = copy.deepcopy(model).train()
    x, y = loader(16, torch.float64, 1, 8, 8, batch_size=8).dataset[:]
    arguments = module.TrainingArguments(
        output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=8,
        gradient_accumulation_steps=2, optim="sgd", learning_rate=0.1, max_grad_norm=0.0,
        lr_scheduler_type="constant", save_strategy="no", report_to="none", disable_tqdm=True,
        use_cpu=True,
    )  # fmt: skip
    trainer = module.AdversarialTrainer(model, arguments, train_dataset=module.rows(x, y))
    trainer.train()
    losses = adversarial_loss(
        twin, x, y, recipe=module.RECIPE, weighting=module.WEIGHTING, loss_fn=module.cross_entropy
    )
    torch.autograd.backward(losses.loss)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert theirs.grad is not None
        assert torch.allclose(ours, theirs - 0.1 * theirs.grad, rtol=1e-9, atol=1e-12)
    evaluated = trainer.evaluate(module.rows(x, y))["eval_loss"]
    clean = module.cross_entropy(model(x), y)
    assert evaluated == pytest.approx(clean.item(), rel=1e-6)
