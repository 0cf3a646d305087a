"""Losses as NSL takes them, and `nsl.keras.adversarial_loss`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from torchfgsm import losses as keras_losses
from torchfgsm.core.gradient import leaf
from torchfgsm.losses.keras import KerasLoss
from torchfgsm.losses.output_form import OutputForm, form_of
from torchfgsm.models.calling import call_model, takes_by_name
from torchfgsm.models.features import Features
from torchfgsm.nsl.configs import AdvRegConfig
from torchfgsm.nsl.lib import gen_adv_neighbor

LossFn = Callable[..., Tensor]

# Keras' names of its loss functions.
_NAMED_LOSSES: dict[str, type[Any]] = {
    "binary_crossentropy": keras_losses.BinaryCrossentropy,
    "binary_focal_crossentropy": keras_losses.BinaryFocalCrossentropy,
    "categorical_crossentropy": keras_losses.CategoricalCrossentropy,
    "categorical_focal_crossentropy": keras_losses.CategoricalFocalCrossentropy,
    "categorical_hinge": keras_losses.CategoricalHinge,
    "cosine_similarity": keras_losses.CosineSimilarity,
    "hinge": keras_losses.Hinge,
    "huber": keras_losses.Huber,
    "kl_divergence": keras_losses.KLDivergence,
    "log_cosh": keras_losses.LogCosh,
    "mean_absolute_error": keras_losses.MeanAbsoluteError,
    "mean_absolute_percentage_error": keras_losses.MeanAbsolutePercentageError,
    "mean_squared_error": keras_losses.MeanSquaredError,
    "mean_squared_logarithmic_error": keras_losses.MeanSquaredLogarithmicError,
    "poisson": keras_losses.Poisson,
    "sparse_categorical_crossentropy": keras_losses.SparseCategoricalCrossentropy,
    "squared_hinge": keras_losses.SquaredHinge,
}
_ALIASES = {
    "bce": "binary_crossentropy",
    "huber_loss": "huber",
    "kld": "kl_divergence",
    "kullback_leibler_divergence": "kl_divergence",
    "logcosh": "log_cosh",
    "mae": "mean_absolute_error",
    "mape": "mean_absolute_percentage_error",
    "mse": "mean_squared_error",
    "msle": "mean_squared_logarithmic_error",
}
_ALIASES |= {name.upper(): _ALIASES[name] for name in ("bce", "kld", "mae", "mape", "mse", "msle")}
_CLASSES = {made.__name__: made for made in _NAMED_LOSSES.values()}


def apply_loss(loss_fn: LossFn, y_true: Any, y_pred: Any, sample_weight: Tensor | None) -> Tensor:
    """Calls a loss in Keras' order; weights only where there are any."""
    if sample_weight is None:
        return loss_fn(y_true, y_pred)
    return loss_fn(y_true, y_pred, sample_weight)


def refuse_torch_loss(loss_fn: object) -> None:
    """Refuses torch's own losses, whose argument order would be silently wrong.

    Raises:
        TypeError: A loss of `torch.nn` or something that cannot be called.
    """
    module = type(loss_fn).__module__ if isinstance(loss_fn, nn.Module) else None
    module = module or getattr(loss_fn, "__module__", None) or ""
    if module.startswith("torch.nn"):
        raise TypeError(
            f"{loss_fn!r} takes (output, target) but NSL's losses take (y_true, y_pred, "
            "sample_weight): use torchfgsm.losses, or lambda y, p, w=None: your_loss(p, y)"
        )
    if not callable(loss_fn):
        raise TypeError(f"a loss must be callable or a name, got {loss_fn!r}")


def adversarial_loss(
    features: Any,
    labels: Any,
    model: Any,
    loss_fn: LossFn,
    sample_weights: Tensor | None = None,
    adv_config: AdvRegConfig | None = None,
    predictions: Any = None,
    labeled_loss: Tensor | None = None,
    gradient_tape: None = None,
    model_kwargs: dict[str, Any] | None = None,
) -> Tensor:
    """The loss on adversarial neighbors, as `nsl.keras.adversarial_loss`.

    Args:
        features: A tensor (N, ...), or a dict or list of these. With `predictions` or
            `labeled_loss` they must be the tensors these were computed from, requiring grad.
        labels: Labels as `loss_fn` takes them.
        model: Called on the features, clean and adversarial, in its own mode, as `call_base` says.
        loss_fn: `loss_fn(y_true, y_pred)`, or with weights `loss_fn(y_true, y_pred, weights)`.
            Losses of `torchfgsm.losses` follow a model that states that it gives logits, as Keras'
            do behind a softmax or sigmoid layer.
        sample_weights: Weights (N,) or (N, 1), or None.
        adv_config: How neighbors are made; the multiplier is not applied.
        predictions: `model(features)` where it is known.
        labeled_loss: The loss on `features` where it is known.
        gradient_tape: Unused.
        model_kwargs: Keyword arguments of the model.

    Returns:
        The unscaled loss on the adversarial neighbors.

    Raises:
        TypeError: A loss of `torch.nn`.
        ValueError: As `gen_adv_neighbor`.
    """
    refuse_torch_loss(loss_fn)
    loss_fn = following(of_tensors(loss_fn), form_of(model))
    config = adv_config or AdvRegConfig()
    kwargs = model_kwargs or {}

    def call(inputs: Any) -> Any:
        return call_base(model, inputs, **kwargs)

    def weighted(y_true: Any, y_pred: Any) -> Tensor:
        return apply_loss(loss_fn, y_true, y_pred, sample_weights)

    if labeled_loss is None:
        if predictions is None:
            # The attack needs the path from the features, also where the caller's grad is off.
            with torch.enable_grad():
                features = requiring_grad(features)
                labeled_loss = weighted(labels, call(features))
        else:
            labeled_loss = weighted(labels, predictions)
    neighbors, _ = gen_adv_neighbor(
        features,
        labeled_loss,
        config.adv_neighbor_config,
        pgd_model_fn=call,
        pgd_loss_fn=weighted,
        pgd_labels=labels,
    )
    return weighted(labels, call(neighbors))


def call_base(model: Any, features: Any, **kwargs: Any) -> Any:
    """Calls a model on features as `AdversarialRegularization` does.

    The features of a dict go to a module in the order of its `input_names`, where it has these, or
    by keyword, where its `forward` names them; one feature alone as it is, several as the dict.
    Anything else is called on the features themselves.

    Raises:
        ValueError: An input of the model that is not among the features.
    """
    if not isinstance(features, Mapping) or not isinstance(model, nn.Module):
        return call_model(model, features, **kwargs)
    names = getattr(model, "input_names", None)
    unknown = [name for name in names or () if name not in features]
    # Keras calls a Sequential model whose names nobody knows on the features as such.
    nameless = bool(unknown) and len(names or ()) == 1
    if unknown and not (nameless and len(features) == 1):
        raise ValueError(
            f"the model's inputs are {list(names or ())}, features {unknown} are missing from "
            f"{list(features)}"
        )
    by_name = names is not None and not unknown
    if len(features) == 1 and not by_name and not takes_by_name(model, features):
        (features,) = features.values()
    return call_model(model, features, **kwargs)


def requiring_grad(features: Any) -> Any:
    """The features, each floating-point one as a leaf unless it is part of a graph already."""
    apart = Features.take_apart(features)
    return apart.put_together([t if t.requires_grad else leaf(t) for t in apart.tensors])


def reduced_loss(loss_fn: LossFn, y_true: Any, y_pred: Any, sample_weight: Tensor | None) -> Tensor:
    """The loss of one output as NSL's class takes it.

    Per-example losses are averaged over all that there are, also those that count for nothing,
    unless the loss has a reduction of its own.
    """
    if isinstance(loss_fn, KerasLoss):
        return loss_fn.over_all(y_true, y_pred, sample_weight)
    value: Tensor = apply_loss(loss_fn, y_true, y_pred, sample_weight)
    return value.mean() if value.dim() and not hasattr(loss_fn, "reduction") else value


def resolve(loss: Any) -> LossFn:
    """The loss that a name or a callable stands for.

    Raises:
        TypeError: A loss of `torch.nn`.
        ValueError: An unknown name.
    """
    if isinstance(loss, str) and loss not in _CLASSES:
        name = _ALIASES.get(loss, loss)
        if name not in _NAMED_LOSSES:
            known = ", ".join((*_NAMED_LOSSES, *_ALIASES, *_CLASSES))
            raise ValueError(f"unknown loss {loss!r}; known are {known}")
        named: LossFn = _NAMED_LOSSES[name]()
        return named
    loss = _CLASSES[loss]() if isinstance(loss, str) else loss
    refuse_torch_loss(loss)
    return of_tensors(loss)


def of_tensors(loss_fn: LossFn) -> LossFn:
    """A loss as NSL calls it: Keras' objects take labels (N,) for an output (N, 1) of tensors.

    Keras' functions, for which names stand, would spread the two over (N, N): they refuse.
    """
    return loss_fn.as_objects_take_labels() if isinstance(loss_fn, KerasLoss) else loss_fn


def following(loss_fn: LossFn, form: OutputForm | None) -> LossFn:
    """The loss for outputs of a form: Keras' losses know whether they get logits."""
    return loss_fn.following(form) if isinstance(loss_fn, KerasLoss) else loss_fn


def per_output(value: Any, names: list[str], label_keys: tuple[str, ...], what: str) -> list[Any]:
    """One entry per output from what Keras takes: a value for all, a list, or a dict by name."""
    if isinstance(value, Mapping):
        keys = names or [f"output_{i + 1}" for i in range(len(label_keys))]
        missing = [name for name in keys if name not in value]
        if missing:
            raise ValueError(f"{what} for outputs {missing} not found in {list(value)}")
        return [value[name] for name in keys]
    if isinstance(value, (list, tuple)):
        if len(value) != len(label_keys):
            raise ValueError(f"{len(value)} entries of {what} for {len(label_keys)} labels")
        return list(value)
    return [value] * len(label_keys)
