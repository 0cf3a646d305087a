"""Neural Structured Learning 1.4.0 in PyTorch: the names of `nsl.configs`, `nsl.lib`, `nsl.keras`.

The Keras machinery of `compile` and `fit` has no counterpart: `AdversarialRegularization` takes the
loss at construction and returns the losses of a batch, for any loop and optimizer.
"""

from torchfgsm.nsl.configs import AdvNeighborConfig, AdvRegConfig, NormType, make_adv_reg_config
from torchfgsm.nsl.keras import AdversarialRegularization, Losses
from torchfgsm.nsl.lib import (
    apply_feature_mask,
    gen_adv_neighbor,
    maximize_within_unit_norm,
    normalize,
    project_to_ball,
    random_in_norm_ball,
)
from torchfgsm.nsl.loss import adversarial_loss

__all__ = [
    "AdvNeighborConfig",
    "AdvRegConfig",
    "AdversarialRegularization",
    "Losses",
    "NormType",
    "adversarial_loss",
    "apply_feature_mask",
    "gen_adv_neighbor",
    "make_adv_reg_config",
    "maximize_within_unit_norm",
    "normalize",
    "project_to_ball",
    "random_in_norm_ball",
]
