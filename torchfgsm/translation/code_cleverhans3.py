"""Text of a call of CleverHans 3.1.0."""

from __future__ import annotations

from torchfgsm.libraries.configuration import training_options
from torchfgsm.translation.original_call import (
    Call,
    attacked_model,
    called,
    keywords,
    text,
    uses_numpy,
    value,
)

_COMMENT = "x, y: tensors of the graph, y class numbers; evaluate x_adv in your session"
_CROSS_ENTROPY = "softmax_cross_entropy_with_logits"


def lines(call: Call) -> list[str]:
    """Through `generate`; with a training loss also through `CrossEntropy`."""
    kind = "ProjectedGradientDescent" if "nb_iter" in call.options else "FastGradientMethod"
    given = call.recipe.labels == "given"
    trains = call.weights is not None
    options = keywords(
        {
            name: option
            for name, option in call.options.items()
            if name not in (*training_options("cleverhans3"), "targeted")
        }
    )
    if "clip_min" in call.options:
        options.append("sanity_checks=False")
    if call.takes_batch_mean:
        options.append("loss_fn=mean_loss")
    body, model = attacked_model(call, "tensorflow")
    if call.takes_batch_mean:
        body += [
            "def mean_loss(labels, logits):",
            f"    losses = {_CROSS_ENTROPY}(labels=labels, logits=logits)",
            "    return tf.reduce_mean(losses)",
        ]
    constant = trains and call.stops_gradient
    if constant:
        body += _constant(kind)
    body.append(f'wrapper = CallableModelWrapper({model}, "logits")')
    body.append(f"attack = {'Constant' if constant else kind}(wrapper)")
    if given or trains:
        body.append("labels = tf.one_hot(y, int(model(x).shape[-1]))")
    labels = "labels"
    if call.attack_smoothing:
        body.append(_smoothed(call.attack_smoothing))
        labels = "smoothed"
    key = "y_target" if call.recipe.targeted else "y"
    if trains:
        body += called("params = dict(", options)
        taken = [f"{key}={labels}", "**params"] if given else ["**params"]
        body += called("x_adv = attack.generate(", ["x", *taken])
        body += _training(call, labels if call.attack_smoothing else None, model)
    else:
        taken = [f"{key}={labels}"] if given else []
        body += called("x_adv = attack.generate(", ["x", *taken, *options])
    return text(_COMMENT, _imports(call, kind, body), body)


def _constant(kind: str) -> list[str]:
    return [
        f"class Constant({kind}):",
        '    """Adversarial examples through which no training gradient flows."""',
        "    def generate(self, x, **kwargs):",
        "        return tf.stop_gradient(super().generate(x, **kwargs))",
    ]


def _smoothed(share: float) -> str:
    return f"smoothed = labels - {value(share)} * (labels - 1.0 / int(labels.shape[-1]))"


def _training(call: Call, attack_labels: str | None, model: str) -> list[str]:
    own = {n: v for n, v in call.options.items() if n in training_options("cleverhans3")}
    params = "params" if attack_labels is None else f"dict(params, y={attack_labels})"
    found = []
    wrapper = "wrapper"
    if model != "model":  # the loss takes the model itself
        wrapper = 'CallableModelWrapper(model, "logits")'
    arguments = [wrapper, "attack=attack", *keywords(own), f"attack_params={params}"]
    found += called("loss = CrossEntropy(", arguments)
    found.append("training_loss = loss.fprop(x, labels)")
    return found


def _imports(call: Call, kind: str, body: list[str]) -> list[str]:
    found = ["import numpy as np"] if uses_numpy(body) else []
    if any("tf." in line for line in body):
        found.append("import tensorflow as tf")
    found.append(f"from cleverhans.attacks import {kind}")
    if call.takes_batch_mean:
        found.append(f"from cleverhans.compat import {_CROSS_ENTROPY}")
    if call.weights is not None:
        found.append("from cleverhans.loss import CrossEntropy")
    return [*found, "from cleverhans.model import CallableModelWrapper"]
