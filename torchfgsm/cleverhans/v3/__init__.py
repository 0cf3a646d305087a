"""CleverHans 3.1.0 in PyTorch.

Sessions are gone (`sess` stays in place, unused) and symbolic tensors are tensors. Labels are
one-hot rows, as in the original.
"""

from torchfgsm.cleverhans.v3.attacks import (
    BasicIterativeMethod,
    CallableModelWrapper,
    FastGradientMethod,
    MadryEtAl,
    ProjectedGradientDescent,
    clip_eta,
    optimize_linear,
    zero_out_clipped_grads,
)
from torchfgsm.cleverhans.v3.loss import CrossEntropy, WeightDecay, WeightedSum

__all__ = [
    "BasicIterativeMethod",
    "CallableModelWrapper",
    "CrossEntropy",
    "FastGradientMethod",
    "MadryEtAl",
    "ProjectedGradientDescent",
    "WeightDecay",
    "WeightedSum",
    "clip_eta",
    "optimize_linear",
    "zero_out_clipped_grads",
]
