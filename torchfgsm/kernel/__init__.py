"""The native CUDA kernels behind `torchfgsm::perturb`, and what runs them."""

from torchfgsm.kernel.cubins import cache_folder
from torchfgsm.kernel.errors import KernelUnavailable
from torchfgsm.kernel.op import turn, why_not

__all__ = ["KernelUnavailable", "cache_folder", "turn", "why_not"]
