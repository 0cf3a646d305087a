"""The attacks of CleverHans 3.1.0: `cleverhans.attacks`, `cleverhans.model`, `utils_tf`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchfgsm.cleverhans import ports
from torchfgsm.core.call_checks import refuse_arrays
from torchfgsm.core.recipe import Recipe
from torchfgsm.losses import softmax_cross_entropy
from torchfgsm.models.calling import call_model


class CallableModelWrapper:
    """A callable with the name of what it returns, as `cleverhans.model.CallableModelWrapper`.

    A module is seen as one only where it is `callable_fn` itself: behind a lambda or a function its
    mode and BatchNorm statistics are the caller's business.

    Args:
        callable_fn: From input (N, ...) to output (N, classes).
        output_layer: "logits" or "probs".

    Raises:
        ValueError: Another name of the output.
    """

    def __init__(self, callable_fn: Any, output_layer: str) -> None:
        if output_layer not in ("logits", "probs"):
            raise ValueError(f"output_layer must be 'logits' or 'probs', got {output_layer!r}")
        self.callable_fn = callable_fn
        self.output_layer = output_layer

    def get_logits(self, x: Tensor, **kwargs: Any) -> Tensor:
        """The logits of `x`.

        Raises:
            NotImplementedError: The callable returns probabilities, whose logits are unknown.
        """
        if self.output_layer != "logits":
            raise NotImplementedError(
                "this model was wrapped as 'probs', and attacks need logits: wrap a callable that "
                "returns logits"
            )
        return self._call(x, **kwargs)

    def get_probs(self, x: Tensor, **kwargs: Any) -> Tensor:
        """The probabilities of `x`."""
        output = self._call(x, **kwargs)
        return output if self.output_layer == "probs" else output.softmax(dim=-1)

    def get_params(self) -> list[Tensor]:
        """The parameters of the wrapped module."""
        parameters = getattr(self.callable_fn, "parameters", None)
        return list(parameters()) if parameters is not None else []

    def _call(self, x: Tensor, **kwargs: Any) -> Tensor:
        output: Tensor = call_model(self.callable_fn, x, **kwargs)
        return output


def wrap(model: Any) -> CallableModelWrapper:
    """The model as a wrapper; a plain module or callable is taken to return logits.

    Raises:
        TypeError: Not callable.
    """
    if isinstance(model, CallableModelWrapper):
        return model
    if not callable(model):
        raise TypeError(f"model must be a module, a callable or a wrapper, got {type(model)}")
    return CallableModelWrapper(model, "logits")


class Attack:
    """What all attacks share, as `cleverhans.attacks.Attack`.

    Args:
        model: A `CallableModelWrapper`; a plain module or callable is taken to return logits.
        sess: Unused; kept in place for callers.
        dtypestr: The dtype that `generate_np` casts its input to.
        **kwargs: Unused, as in the original.
    """

    ord: Any
    loss_fn: Callable[..., Tensor]
    y: Any
    y_target: Any
    clip_min: Any
    clip_max: Any
    clip_grad: bool
    sanity_checks: bool

    def __init__(
        self, model: Any, sess: None = None, dtypestr: str = "float32", **kwargs: Any
    ) -> None:
        self.model = wrap(model)
        self.sess = sess
        self.dtypestr = dtypestr

    def generate(self, x: Tensor, **kwargs: Any) -> Tensor:
        """Adversarial examples; differentiable in `x` when it requires grad, else detached.

        Args:
            x: The input (N, ...), floating point.
            **kwargs: See the attack's `parse_params`.

        Returns:
            Adversarial examples in the input's shape and dtype.
        """
        refuse_arrays(x=x)  # labels and bounds may be arrays, as in the original
        return self.generate_on_graph(
            x, keep_graph=x.requires_grad and torch.is_grad_enabled(), **kwargs
        )

    def generate_np(self, x_val: np.ndarray[Any, Any], **kwargs: Any) -> np.ndarray[Any, Any]:
        """As `generate`, from and to numpy arrays of the attack's `dtypestr`.

        Args:
            x_val: The input (N, ...).
            **kwargs: See the attack's `parse_params`; labels and bounds may be arrays.

        Returns:
            An array of the attack's dtype.
        """
        dtype = np.dtype(self.dtypestr)
        parameter = next(iter(self.model.get_params()), None)
        device = parameter.device if parameter is not None else torch.device("cpu")
        x = torch.from_numpy(np.array(x_val, dtype=dtype)).to(device)
        arrays = {
            name: torch.as_tensor(value, device=device) if isinstance(value, np.ndarray) else value
            for name, value in kwargs.items()
        }
        result: np.ndarray[Any, Any] = self.generate(x, **arrays).detach().cpu().numpy()
        return result

    def generate_on_graph(self, x: Tensor, *, keep_graph: bool, **kwargs: Any) -> Tensor:
        """Adversarial examples, differentiable in parameters and input with `keep_graph`.

        Args:
            x: The input (N, ...).
            keep_graph: Keep the perturbation in autograd's graph (a second-order term under L2).
            **kwargs: See the attack's `parse_params`.

        Returns:
            Adversarial examples.

        Raises:
            NotImplementedError: The model was wrapped as "probs"; L1 steps are iterated.
            ValueError: Bad parameters, labels or input.
        """
        self.parse_params(**kwargs)
        self.check_input(x)
        if self.model.output_layer != "logits":
            self.model.get_logits(x)
        recipe, tensors = self.recipe()
        labels = self.y_target if self.y_target is not None else self.y
        return ports.generate(
            self.model.callable_fn,
            x,
            None if labels is None else _one_hot_rows(labels, x),
            recipe,
            loss_fn=self.loss_fn,
            keep_graph=keep_graph,
            **tensors,
        )

    def parse_params(self, **kwargs: Any) -> bool:
        """Takes the attack's parameters; subclasses name them."""
        raise NotImplementedError("subclasses name their parameters")

    def check_input(self, x: Tensor) -> None:
        """Refuses input outside of the range, with sanity checks."""
        ports.check_range(x, self.clip_min, self.clip_max, sanity_checks=self.sanity_checks)

    def recipe(self) -> tuple[Recipe, dict[str, Any]]:
        """The parameters as a recipe, and those that are tensors."""
        raise NotImplementedError("subclasses have a recipe")

    def _check_params(self, kwargs: dict[str, Any]) -> None:
        """The checks that all attacks share."""
        if self.y is not None and self.y_target is not None:
            raise ValueError("Must not set both y and y_target")
        ports.norm_name(self.ord)
        if self.clip_grad and (self.clip_min is None or self.clip_max is None):
            raise ValueError("Must set clip_min and clip_max if clip_grad is set")
        if kwargs:
            warnings.warn(f"unused attack parameters: {sorted(kwargs)}", UserWarning, stacklevel=5)


def _one_hot_rows(labels: Any, x: Tensor) -> Tensor:
    """Label rows that add up to 1, as `fgm` divides them."""
    rows = torch.as_tensor(labels, device=x.device)
    if rows.dim() < 2 or rows.shape[0] != x.shape[0]:
        raise ValueError(
            f"CleverHans 3 takes one-hot labels (N, classes): expected ({x.shape[0]}, classes), "
            f"got {tuple(rows.shape)}; use torch.nn.functional.one_hot(y, classes).float()"
        )
    rows = rows.to(x.dtype)
    return rows / rows.sum(dim=1, keepdim=True)


class FastGradientMethod(Attack):
    """One step along the gradient, as `cleverhans.attacks.FastGradientMethod`."""

    def parse_params(
        self,
        eps: Any = 0.3,
        ord: Any = math.inf,
        loss_fn: Callable[..., Tensor] = softmax_cross_entropy,
        y: Tensor | None = None,
        y_target: Tensor | None = None,
        clip_min: Any = None,
        clip_max: Any = None,
        clip_grad: bool = False,
        sanity_checks: bool = True,
        **kwargs: Any,
    ) -> bool:
        """Takes the parameters of one attack.

        Args:
            eps: Length of the step in the input's units, a number or a tensor that broadcasts.
            ord: numpy.inf, 1 or 2.
            loss_fn: `loss_fn(labels=, logits=)` -> per-example losses.
            y: One-hot labels (N, classes); None: the model's prediction, ties shared.
            y_target: One-hot labels to move towards.
            clip_min: Lower bound of the range, a number or tensor; both bounds or neither.
            clip_max: Upper bound of the range.
            clip_grad: Ignore gradient entries whose step would be clipped away.
            sanity_checks: Refuse input outside of the range.
            **kwargs: Unused, with a warning, as in the original.

        Returns:
            True.

        Raises:
            ValueError: An unknown norm, both `y` and `y_target`, `clip_grad` without a range.
        """
        self.eps, self.ord, self.loss_fn = eps, ord, loss_fn
        self.y, self.y_target = y, y_target
        self.clip_min, self.clip_max, self.clip_grad = clip_min, clip_max, clip_grad
        self.sanity_checks = sanity_checks
        self._check_params(kwargs)
        return True

    def recipe(self) -> tuple[Recipe, dict[str, Any]]:
        """The parameters as a recipe, and those that are tensors."""
        numbers, tensors = ports.split(eps=self.eps, clip_min=self.clip_min, clip_max=self.clip_max)
        recipe = Recipe.cleverhans3(
            ord=self.ord,
            clip_grad=self.clip_grad,
            targeted=self.y_target is not None,
            **numbers,
        )
        return recipe, ports.renamed(tensors, eps="step")


class ProjectedGradientDescent(Attack):
    """Iterated steps, each projected, as `cleverhans.attacks.ProjectedGradientDescent`.

    Args:
        model: As in `Attack`.
        sess: Unused.
        dtypestr: As in `Attack`.
        default_rand_init: Whether `rand_init=None` means a random start.
        **kwargs: Unused.
    """

    def __init__(
        self,
        model: Any,
        sess: None = None,
        dtypestr: str = "float32",
        default_rand_init: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, sess, dtypestr, **kwargs)
        self.default_rand_init = default_rand_init

    def parse_params(
        self,
        eps: Any = 0.3,
        eps_iter: Any = 0.05,
        nb_iter: int = 10,
        y: Tensor | None = None,
        ord: Any = math.inf,
        loss_fn: Callable[..., Tensor] = softmax_cross_entropy,
        clip_min: Any = None,
        clip_max: Any = None,
        y_target: Tensor | None = None,
        rand_init: bool | None = None,
        rand_init_eps: float | None = None,
        clip_grad: bool = False,
        sanity_checks: bool = True,
        **kwargs: Any,
    ) -> bool:
        """Takes the parameters of one attack.

        Args:
            eps: Radius of the ball in the input's units.
            eps_iter: Length of one step, at most `eps`.
            nb_iter: Number of steps.
            y: One-hot labels (N, classes); None: the prediction on the clean input.
            ord: numpy.inf or 2.
            loss_fn: `loss_fn(labels=, logits=)` -> per-example losses.
            clip_min: Lower bound of the range, a number or tensor; both bounds or neither.
            clip_max: Upper bound of the range.
            y_target: One-hot labels to move towards.
            rand_init: Start at a random point of the ball; None: `default_rand_init`.
            rand_init_eps: Radius of the random start; None: `eps`.
            clip_grad: Ignore gradient entries whose step would be clipped away.
            sanity_checks: Refuse input outside of the range and a radius above the range.
            **kwargs: Unused, with a warning, as in the original.

        Returns:
            True.

        Raises:
            ValueError: As `FastGradientMethod.parse_params`, or `eps_iter` above `eps`.
        """
        self.eps, self.eps_iter, self.nb_iter = eps, eps_iter, nb_iter
        self.ord, self.loss_fn = ord, loss_fn
        self.y, self.y_target = y, y_target
        self.clip_min, self.clip_max, self.clip_grad = clip_min, clip_max, clip_grad
        self.rand_init = self.default_rand_init if rand_init is None else bool(rand_init)
        self.rand_init_eps = rand_init_eps
        self.sanity_checks = sanity_checks
        self._check_params(kwargs)
        ports.check_radius(ord, eps, eps_iter, clip_min, clip_max, sanity_checks=sanity_checks)
        return True

    def recipe(self) -> tuple[Recipe, dict[str, Any]]:
        """The parameters as a recipe, and those that are tensors."""
        numbers, tensors = ports.split(
            eps=self.eps, eps_iter=self.eps_iter, clip_min=self.clip_min, clip_max=self.clip_max
        )
        recipe = Recipe.cleverhans3(
            nb_iter=self.nb_iter,
            ord=self.ord,
            rand_init=self.rand_init,
            rand_init_eps=self.rand_init_eps,
            clip_grad=self.clip_grad,
            targeted=self.y_target is not None,
            **numbers,
        )
        return recipe, ports.renamed(tensors, eps="epsilon", eps_iter="step")


class BasicIterativeMethod(ProjectedGradientDescent):
    """PGD without a random start, as `cleverhans.attacks.BasicIterativeMethod`."""

    def __init__(
        self, model: Any, sess: None = None, dtypestr: str = "float32", **kwargs: Any
    ) -> None:
        super().__init__(model, sess, dtypestr, default_rand_init=False, **kwargs)


class MadryEtAl(ProjectedGradientDescent):
    """PGD from a random start, as `cleverhans.attacks.MadryEtAl`."""

    def __init__(
        self, model: Any, sess: None = None, dtypestr: str = "float32", **kwargs: Any
    ) -> None:
        super().__init__(model, sess, dtypestr, default_rand_init=True, **kwargs)


def optimize_linear(grad: Tensor, eps: Any, ord: Any = math.inf) -> Tensor:
    """The perturbation of norm `eps` with the largest inner product with each gradient.

    Mirrors `cleverhans.attacks.fast_gradient_method.optimize_linear`.

    Args:
        grad: Gradients (N, ...).
        eps: Length of the perturbation, a number or a tensor that broadcasts.
        ord: numpy.inf, 1 or 2.

    Returns:
        Perturbations in the gradient's shape and dtype; differentiable in `grad` under L2.

    Raises:
        NotImplementedError: Another norm.
    """
    return ports.linear_optimum(grad, eps, ord, nan_has_sign=False)


def clip_eta(eta: Tensor, ord: Any, eps: Any) -> Tensor:
    """Perturbations projected to the ball of radius `eps`; L1 by Duchi et al. 2008.

    Mirrors `cleverhans.utils_tf.clip_eta`. The derivative at the bound is 1 in all three norms.

    Args:
        eta: Perturbations (N, ...).
        ord: numpy.inf, 1 or 2.
        eps: Radius of the ball.

    Returns:
        Projected perturbations.

    Raises:
        ValueError: Another norm.
    """
    return ports.clipped_eta(eta, ord, eps)


def zero_out_clipped_grads(grad: Tensor, x: Tensor, clip_min: Any, clip_max: Any) -> Tensor:
    """The gradient with 0 where `x` is at a bound and the step would point out of the range.

    Mirrors `cleverhans.utils_tf.zero_out_clipped_grads`.
    """
    return ports.without_clipped(grad, x, clip_min, clip_max)
