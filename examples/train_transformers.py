"""Trains a small vision transformer on digits with Hugging Face's Trainer.

Run: python examples/train_transformers.py
"""

import tempfile
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

from torchfgsm import Recipe, Weighting, adversarial_loss, fgsm

EPS = 0.1  # in the input's units: pixels lie in [0, 1]
RECIPE = Recipe.cleverhans3(eps=EPS, clip_min=0.0, clip_max=1.0)
WEIGHTING = Weighting.from_cleverhans(adv_coeff=0.5)


def cross_entropy(output: Any, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output.logits, labels)


class AdversarialTrainer(Trainer):
    """Trains with adversarial examples; evaluates on clean ones as always."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The loss is a mean of each batch: the Trainer is to average over accumulated ones.
        self.model_accepts_loss_kwargs = False

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        """The weighted loss in training, the model's own in evaluation."""
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs, **kwargs)
        losses = adversarial_loss(
            model,
            inputs["pixel_values"],
            inputs["labels"],
            recipe=RECIPE,
            weighting=WEIGHTING,
            loss_fn=cross_entropy,
        )
        return (losses.loss, losses.output) if return_outputs else losses.loss


def rows(x: Tensor, y: Tensor) -> list[dict[str, Tensor]]:
    return [{"pixel_values": a, "labels": b} for a, b in zip(x, y, strict=True)]


def vision_transformer() -> ViTForImageClassification:
    """Of a few weights, which are drawn here: nothing is fetched from the hub."""
    return ViTForImageClassification(
        ViTConfig(
            image_size=8,
            patch_size=2,
            num_channels=1,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_labels=10,
            initializer_range=0.2,
        )
    )


def main() -> None:
    torch.set_num_threads(1)  # so small a model gains nothing from more
    torch.manual_seed(0)
    digits = load_digits()
    x = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None]
    y = torch.tensor(digits.target)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=8,
            per_device_train_batch_size=32,
            learning_rate=4e-3,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_strategy="no",
            use_cpu=True,
        )
        model = vision_transformer()
        trainer = AdversarialTrainer(model, arguments, train_dataset=rows(x[:1400], y[:1400]))
        trainer.train()
        model.eval()
        test_x, test_y = x[1400:], y[1400:]
        attacked = fgsm(
            model, test_x, test_y, eps=EPS, loss_fn=cross_entropy, clip_min=0.0, clip_max=1.0
        )
        clean, robust = (
            (trainer.predict(rows(inputs, test_y)).predictions.argmax(axis=1) == test_y.numpy())
            .mean()
            .item()
            for inputs in (test_x, attacked)
        )
        print(f"clean {clean:.1%}  robust {robust:.1%}")


if __name__ == "__main__":
    main()
