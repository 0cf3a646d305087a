"""CleverHans 3.1.0's training losses in PyTorch: the names of `cleverhans.loss`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchfgsm.cleverhans.v3.attacks import Attack, wrap
from torchfgsm.core.gradient import refuse_underivable
from torchfgsm.core.weighting import Weighting
from torchfgsm.losses import softmax_cross_entropy


class Loss:
    """What all losses share, as `cleverhans.loss.Loss`.

    Args:
        model: A wrapper, module or callable; see `wrap`.
        hparams: Kept for the caller.
        attack: An attack with `generate(x, **params)`, or None.

    Raises:
        TypeError: An attack that cannot generate.
    """

    def __init__(
        self, model: Any, hparams: dict[str, Any] | None = None, attack: Any = None
    ) -> None:
        if attack is not None and not hasattr(attack, "generate"):
            raise TypeError(f"attack must have a method generate, got {type(attack).__name__}")
        self.model = wrap(model)
        self.hparams = hparams
        self.attack = attack

    def fprop(self, x: Tensor, y: Tensor, **kwargs: Any) -> Tensor:
        """The scalar loss of a batch."""
        raise NotImplementedError("subclasses compute the loss")


class CrossEntropy(Loss):
    """Cross-entropy on clean and adversarial examples, as `cleverhans.loss.CrossEntropy`.

    The attack runs in eval mode, the two loss passes in the model's own mode, clean first. Under
    L2 the gradient flows through the perturbation of this package's own attacks (a second-order
    term); the result of any other attack counts as constant.

    Args:
        model: A wrapper, module or callable; see `wrap`.
        smoothing: Label smoothing in [0, 1] of both terms.
        attack: An attack, or None for clean examples only.
        pass_y: Attack against the (unsmoothed) labels instead of the model's prediction.
        adv_coeff: Weight of the adversarial term; the clean one has 1 - adv_coeff. At 1 the clean
            forward pass is left out.
        attack_params: Keyword arguments of `attack.generate`.
        **kwargs: Keyword arguments of the model in the loss passes.

    Raises:
        ValueError: Smoothing outside of [0, 1].
    """

    def __init__(
        self,
        model: Any,
        smoothing: float = 0.0,
        attack: Any = None,
        pass_y: bool = False,
        adv_coeff: float = 0.5,
        attack_params: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if smoothing < 0 or smoothing > 1:
            raise ValueError(f"smoothing must be in [0, 1], got {smoothing}")
        super().__init__(model, {"smoothing": smoothing, "adv_coeff": adv_coeff}, attack)
        self.smoothing = smoothing
        self.pass_y = pass_y
        self.adv_coeff = adv_coeff
        self.attack_params = attack_params
        self.kwargs = kwargs

    def fprop(self, x: Tensor, y: Tensor, **kwargs: Any) -> Tensor:
        """The weighted mean loss of a batch.

        Args:
            x: The input (N, ...).
            y: One-hot or soft labels (N, classes).
            **kwargs: Keyword arguments of the model in the loss passes.

        Returns:
            A scalar, differentiable in the parameters and in `x`.

        Raises:
            ValueError: Labels that are not rows of floating-point numbers.
        """
        kwargs = {**kwargs, **self.kwargs}
        if y.dim() < 2 or not y.is_floating_point():
            raise ValueError(
                f"y must be one-hot or soft labels (N, classes), got {tuple(y.shape)} of {y.dtype}"
            )
        adversarial = self._attacked(x, y) if self.attack is not None else None
        labels = y - self.smoothing * (y - 1.0 / y.shape[-1])
        if adversarial is None:
            return self._mean_loss(x, labels, kwargs)
        weighting = Weighting.from_cleverhans(self.adv_coeff)
        clean_loss = None if weighting.clean == 0 else self._mean_loss(x, labels, kwargs)
        return weighting.combine(clean_loss, self._mean_loss(adversarial, labels, kwargs))

    def _attacked(self, x: Tensor, y: Tensor) -> Tensor:
        params = dict(self.attack_params or {})
        if self.pass_y:
            params["y"] = y
        if isinstance(self.attack, Attack):
            keep_graph = torch.is_grad_enabled()
            adversarial = self.attack.generate_on_graph(x, keep_graph=keep_graph, **params)
            if keep_graph:
                refuse_underivable([adversarial])
            return adversarial
        generated: Tensor = self.attack.generate(x, **params)
        return generated.detach()

    def _mean_loss(self, x: Tensor, labels: Tensor, kwargs: dict[str, Any]) -> Tensor:
        logits = self.model.get_logits(x, **kwargs)
        return softmax_cross_entropy(labels=labels, logits=logits).mean()


class WeightedSum(Loss):
    """A weighted sum of losses, as `cleverhans.loss.WeightedSum`.

    Args:
        model: A wrapper, module or callable; see `wrap`.
        terms: Pairs (weight, loss); weights are floats or 0-d arrays or tensors.
    """

    def __init__(self, model: Any, terms: list[tuple[Any, Loss]]) -> None:
        super().__init__(model, {"terms": terms})
        self.terms = terms

    def fprop(self, x: Tensor, y: Tensor, **kwargs: Any) -> Tensor:
        """The weighted sum of the terms' losses.

        Args:
            x: The input (N, ...).
            y: Labels as the terms take them.
            **kwargs: Passed to every term.

        Returns:
            A scalar.

        Raises:
            TypeError: A weight that is not a float.
            ValueError: No terms, or a term whose loss is not a scalar.
        """
        if not self.terms:
            raise ValueError("WeightedSum needs at least one (weight, loss) term")
        total: Tensor | None = None
        for weight, loss in self.terms:
            if (not isinstance(weight, float) and np.ndim(weight) != 0) or isinstance(weight, int):
                raise TypeError(f"a weight must be a float, got {weight!r}")
            value = loss.fprop(x, y, **kwargs)
            if value.dim():
                raise ValueError(f"{type(loss).__name__}.fprop returned a non-scalar value")
            total = weight * value if total is None else total + weight * value
        return total  # type: ignore[return-value]  # there is at least one term


class WeightDecay(Loss):
    """Half the squared norm of all weights of rank 2 and more, as `cleverhans.loss.WeightDecay`."""

    def fprop(self, x: Tensor, y: Tensor, **kwargs: Any) -> Tensor:
        """The penalty; `x` and `y` are not used.

        Returns:
            A scalar: the sum of w**2 / 2; biases and other vectors are left out.

        Raises:
            ValueError: The model has no such weights.
        """
        terms = [(w.square().sum() / 2) for w in self.model.get_params() if w.dim() > 1]
        if not terms:
            raise ValueError("the model has no weights of rank 2 or more to decay")
        return torch.stack(terms).sum()
