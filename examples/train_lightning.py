"""Trains a digit classifier with Lightning, which validates its robust accuracy, too.

Run: python examples/train_lightning.py
"""

import lightning
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from torchfgsm import Recipe, Weighting, adversarial_loss, fgsm

EPS = 0.1  # in the input's units: pixels lie in [0, 1]
RECIPE = Recipe.cleverhans3(eps=EPS, clip_min=0.0, clip_max=1.0)
WEIGHTING = Weighting.from_cleverhans(adv_coeff=0.5)


class Classifier(lightning.LightningModule):
    """Automatic optimisation: Lightning scales, accumulates, clips, reduces and steps as always."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The loss that Lightning backpropagates; adversarial_step would go past Lightning."""
        x, y = batch
        return adversarial_loss(self.network, x, y, recipe=RECIPE, weighting=WEIGHTING).loss

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        """Logs both accuracies; attacks work under Lightning's torch.inference_mode."""
        x, y = batch
        attacked = fgsm(self.network, x, y, eps=EPS, clip_min=0.0, clip_max=1.0)
        for name, inputs in (("clean", x), ("robust", attacked)):
            right = self.network(inputs).argmax(dim=1) == y
            self.log(name, right.float().mean(), batch_size=len(y), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Any optimizer."""
        return torch.optim.Adam(self.parameters(), lr=6e-3)


def main() -> None:
    torch.set_num_threads(1)  # so small a model gains nothing from more
    lightning.seed_everything(0, verbose=False)
    digits = load_digits()
    x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    train = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=32, shuffle=True)
    validation = DataLoader(TensorDataset(x[1400:], y[1400:]), batch_size=200)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=8,
        accumulate_grad_batches=2,
        gradient_clip_val=10.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(Classifier(), train, validation)
    scores = trainer.callback_metrics
    print(f"clean {scores['clean']:.1%}  robust {scores['robust']:.1%}")


if __name__ == "__main__":
    main()
