"""The model with NSL's training loss: `nsl.keras.AdversarialRegularization`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from torchfgsm.core.checks import refuse_other_dtype
from torchfgsm.core.weighting import Weighting
from torchfgsm.losses.output_form import OutputForm, forms_of
from torchfgsm.models.calling import call_model, detached
from torchfgsm.models.features import is_differentiable, normal
from torchfgsm.models.keras_mode import warn_if_untrained
from torchfgsm.models.modes import attack_mode
from torchfgsm.nsl.configs import AdvRegConfig
from torchfgsm.nsl.keras_methods import WithoutKerasMethods, as_batch
from torchfgsm.nsl.lib import gen_adv_neighbor
from torchfgsm.nsl.loss import (
    adversarial_loss,
    call_base,
    following,
    per_output,
    reduced_loss,
    requiring_grad,
    resolve,
)


class Losses(NamedTuple):
    """What one batch gives.

    Attributes:
        outputs: The base model's outputs on the clean input.
        loss: `labeled_loss + scaled_adversarial_loss`.
        labeled_loss: The loss on the clean input.
        scaled_adversarial_loss: The loss on the adversarial input times the multiplier.
    """

    outputs: Any
    loss: Tensor
    labeled_loss: Tensor
    scaled_adversarial_loss: Tensor


class AdversarialRegularization(WithoutKerasMethods):
    """A model with NSL's training loss, as `nsl.keras.AdversarialRegularization`.

    Args:
        base_model: The model. With `input_names` (every converted model) it is called on its
            inputs in that order; otherwise by keyword where its `forward` names the features, on
            the tensor where there is one feature, on the dict of features where there are several.
        label_keys: Names of the labels in the input, one per output of the model; where the model
            gives a dict, in the alphabetical order of its outputs' names (`tf.nest`).
        sample_weight_key: Name of the sample weights in the input, or None.
        adv_config: The multiplier, and how neighbors are made.
        base_with_labels_in_features: Whether the model is called on a dict with labels and weights.
        loss: What Keras' `compile` takes: `loss(y_true, y_pred[, sample_weight])`, a name, or a
            list (by output, as `label_keys`) or dict (by output name) of these. Losses without a
            `reduction`, and losses of `torchfgsm.losses` unless they say otherwise, are averaged
            over all their elements, those of `ignore_class` among them. Losses by name and of
            `torchfgsm.losses` follow a converted model whose softmax or sigmoid was cut off: as
            Keras behind such a layer they take its logits, other losses (mean squared error) the
            probabilities.
        loss_weights: Factor of each output's loss, as a list or dict; default 1.

    Raises:
        TypeError: A loss of `torch.nn`; label keys that are not names.
        ValueError: An unknown name of a loss; numbers of losses and labels that differ.
    """

    def __init__(
        self,
        base_model: nn.Module,
        label_keys: Sequence[str] = ("label",),
        sample_weight_key: str | None = None,
        adv_config: AdvRegConfig | None = None,
        base_with_labels_in_features: bool = False,
        *,
        loss: Any,
        loss_weights: Any = None,
    ) -> None:
        super().__init__()
        _refuse_other_keys(label_keys)
        self.base_model = base_model
        self.label_keys = tuple(label_keys)
        self.sample_weight_key = sample_weight_key
        self.adv_config = adv_config or AdvRegConfig()
        self.base_with_labels_in_features = base_with_labels_in_features
        names = _output_names(base_model)
        found = [resolve(fn) for fn in per_output(loss, names, self.label_keys, "loss")]
        forms = _output_forms(base_model, names, len(found))
        self._losses = [following(fn, form) for fn, form in zip(found, forms, strict=True)]
        self._loss_weights = [
            float(weight)
            for weight in per_output(
                1.0 if loss_weights is None else loss_weights,
                names,
                self.label_keys,
                "loss_weights",
            )
        ]

    def forward(self, inputs: Mapping[str, Tensor]) -> Losses:
        """The losses of one batch; two forward passes of the base model, clean first.

        Args:
            inputs: Features, labels and sample weights by name, each (N, ...).

        Returns:
            Outputs and losses. `loss` is differentiable in the parameters unless grad is disabled.

        Raises:
            TypeError: The input is no dict.
            ValueError: Labels missing from the input.
        """
        keep = torch.is_grad_enabled()
        warn_if_untrained(self.base_model)
        with torch.inference_mode(False), torch.enable_grad():
            inputs = normal(as_batch(inputs))
            labels, weights, features = self._take_apart(inputs)
            features = requiring_grad(features)
            outputs = self._call_base(features, inputs)
            labeled_loss = self._total_loss(labels, outputs, weights)
            adv_loss = adversarial_loss(
                features,
                labels,
                lambda x: self._call_base(x, inputs),
                self._total_loss,
                sample_weights=weights,
                adv_config=self.adv_config,
                labeled_loss=labeled_loss,
            )
            weighting = Weighting.from_nsl(self.adv_config.multiplier)
            loss = weighting.combine(labeled_loss, adv_loss)
            scaled = weighting.adversarial * adv_loss
        if keep:
            return Losses(outputs, loss, labeled_loss, scaled)
        return Losses(detached(outputs), loss.detach(), labeled_loss.detach(), scaled.detach())

    def perturb_on_batch(self, x: Mapping[str, Any], **config_kwargs: Any) -> dict[str, Any]:
        """Adversarial neighbors of a batch; the base model runs in eval mode.

        Args:
            x: Features, labels and sample weights by name: tensors or arrays.
            **config_kwargs: Fields of `AdvNeighborConfig` in place of the configured ones; None
                leaves a field as it is.

        Returns:
            A dict with the input's keys in its order, holding tensors: adversarial features,
            detached, and labels and weights as they were. The first step is weighted by the sample
            weights, later ones are not, as in the original.

        Raises:
            KeyError: A label that is missing from the input.
            TypeError: An unknown field.
        """
        given = {name: value for name, value in config_kwargs.items() if value is not None}
        config = dataclasses.replace(self.adv_config.adv_neighbor_config, **given)
        x = as_batch(x)
        missing = [key for key in self.label_keys if key not in x]
        if missing:
            raise KeyError(f"labels {missing} are not in the input, which has {list(x)}")
        inputs = {
            name: value.clone() if isinstance(value, Tensor) else torch.as_tensor(value)
            for name, value in x.items()
        }
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            attack_mode(self.base_model, "eval"),
        ):
            inputs = {name: value.clone() for name, value in inputs.items()}
            labels, weights, features = self._take_apart(inputs)
            features = requiring_grad(features)
            outputs = self._call_base(features, inputs)
            neighbors, _ = gen_adv_neighbor(
                features,
                self._total_loss(labels, outputs, weights),
                config,
                pgd_model_fn=lambda inner: self._call_base(inner, inputs),
                pgd_loss_fn=self._total_loss,
                pgd_labels=labels,
            )
        return {
            name: neighbors[name].detach() if name in neighbors else value
            for name, value in inputs.items()
        }

    def _take_apart(
        self, inputs: Mapping[str, Tensor]
    ) -> tuple[list[Tensor], Tensor | None, dict[str, Tensor]]:
        """Labels, sample weights and features of a batch."""
        missing = [key for key in self.label_keys if key not in inputs]
        if missing:
            raise ValueError(
                f"labels {missing} are not in the input, which has {list(inputs)}; to predict "
                "without labels call the base model"
            )
        labels = [inputs[key].detach() for key in self.label_keys]
        weights = inputs.get(self.sample_weight_key) if self.sample_weight_key else None
        others = {*self.label_keys, self.sample_weight_key}
        features = {name: value for name, value in inputs.items() if name not in others}
        for name, value in features.items():
            if is_differentiable(value):
                refuse_other_dtype(self.base_model, f"feature {name!r}", value)
        return labels, weights.detach() if weights is not None else None, features

    def _call_base(self, features: dict[str, Tensor], inputs: Mapping[str, Tensor]) -> Any:
        if self.base_with_labels_in_features and not hasattr(self.base_model, "input_names"):
            return call_model(self.base_model, {**inputs, **features})
        names = getattr(self.base_model, "input_names", None) or features
        extra = names is not features and all(name in features for name in names)
        return call_base(self.base_model, {n: features[n] for n in names} if extra else features)

    def _total_loss(
        self, labels: list[Tensor], outputs: Any, weights: Tensor | None = None
    ) -> Tensor:
        found = _as_list(outputs)
        if len(found) != len(labels):
            raise ValueError(
                f"the model has {len(found)} outputs and {len(labels)} labels {self.label_keys}"
            )
        terms = [
            factor * reduced_loss(loss_fn, label, output, weights)
            for factor, loss_fn, label, output in zip(
                self._loss_weights, self._losses, labels, found, strict=True
            )
        ]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total


def _as_list(outputs: Any) -> list[Any]:
    """The outputs in `tf.nest`'s order: a dict's by name."""
    if isinstance(outputs, Mapping):
        outputs = [outputs[name] for name in sorted(outputs)]
    if not isinstance(outputs, (list, tuple)):
        return [outputs]
    return [output for entry in outputs for output in _as_list(entry)]


def _output_names(model: nn.Module) -> list[str]:
    """The names of the outputs in the order in which labels meet them; none where unknown."""
    names = list(getattr(model, "output_names", None) or [])
    annotation = getattr(model, "annotation", None)
    return sorted(names) if getattr(annotation, "structure", None) == "dict" else names


def _output_forms(model: nn.Module, names: list[str], count: int) -> list[OutputForm | None]:
    """The form of each output, in the order of `names`."""
    own = list(getattr(model, "output_names", None) or [])
    forms = forms_of(model, count)
    return [forms[own.index(name)] for name in names] if len(own) == count else forms


def _refuse_other_keys(label_keys: Any) -> None:
    if isinstance(label_keys, AdvRegConfig):
        raise TypeError(
            "the second argument is label_keys, as in NSL, and the configuration came there: give "
            "it as adv_config=..."
        )
    if isinstance(label_keys, str) or not all(isinstance(key, str) for key in label_keys):
        raise TypeError(
            f"label_keys must be a list of names, such as ['label'], got {label_keys!r}"
        )
