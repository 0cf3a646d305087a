"""Text of a call of CleverHans 4.0.0, whose two ports take the same arguments but for the loss."""

from __future__ import annotations

from torchfgsm.translation.original_call import (
    Call,
    attacked_model,
    called,
    keywords,
    text,
    uses_numpy,
    value,
)

_COMMENT = "model gives logits; y: class numbers"


def _function(call: Call) -> str:
    return "projected_gradient_descent" if "nb_iter" in call.options else "fast_gradient_method"


def _imports(call: Call, port: str, body: list[str], others: list[str]) -> list[str]:
    name = _function(call)
    numpy = ["import numpy as np"] if uses_numpy(body) else []
    return [*numpy, *others, f"from cleverhans.{port}.attacks.{name} import {name}"]


def tf2_lines(call: Call) -> list[str]:
    """The TensorFlow 2 port."""
    given = call.recipe.labels == "given"
    smooth = bool(call.attack_smoothing)
    body, model = attacked_model(call, "tensorflow")
    options = keywords(call.options)
    labels = "y"
    if smooth:
        labels = "labels"
        body += [
            "labels = tf.one_hot(y, model(x).shape[-1])",
            f"labels -= {value(call.attack_smoothing)} * (labels - 1.0 / labels.shape[-1])",
        ]
    entropy = f"tf.nn.{'' if smooth else 'sparse_'}softmax_cross_entropy_with_logits"
    if call.takes_batch_mean:
        body += [
            "def mean_loss(labels, logits):",
            f"    losses = {entropy}(labels=labels, logits=logits)",
            "    return tf.reduce_mean(losses)",
        ]
        options.append("loss_fn=mean_loss")
    elif smooth:
        options.append(f"loss_fn={entropy}")
    taken = [f"y={labels}"] if given else []
    body += called(f"x_adv = {_function(call)}(", [model, "x", *options, *taken])
    if call.weights is not None:
        adversarial = "tf.stop_gradient(x_adv)" if call.stops_gradient else "x_adv"
        body += _tf2_training(call, adversarial)
    others = ["import tensorflow as tf"] if any("tf." in line for line in body) else []
    return text(_COMMENT, _imports(call, "tf2", body, others), body)


def _tf2_training(call: Call, adversarial: str) -> list[str]:
    name = "Categorical" if call.smoothing else "SparseCategorical"
    options = ["from_logits=True"]
    found, labels = [], "y"
    if call.smoothing:
        options.append(f"label_smoothing={value(call.smoothing)}")
        found, labels = ["rows = tf.one_hot(y, model(x).shape[-1])"], "rows"
    found += called(f"loss = tf.keras.losses.{name}Crossentropy(", options)
    return [*found, *_weighted(call, f"loss({labels}, model(", adversarial)]


def torch_lines(call: Call) -> list[str]:
    """The PyTorch port."""
    body, model = attacked_model(call, "torch")
    if call.recipe.model_mode == "eval":
        body.append("model.eval()")
    options = keywords(call.options)
    if "clip_min" in call.options and "nb_iter" in call.options:
        options.append("sanity_checks=False")
    labels = "y"
    if call.attack_smoothing:
        labels = "labels"
        body += [
            "labels = F.one_hot(y, model(x).shape[-1]).to(x.dtype)",
            f"labels -= {value(call.attack_smoothing)} * (labels - 1.0 / labels.shape[-1])",
        ]
    given = call.recipe.labels == "given"
    start = f"{_function(call)}("
    if call.takes_batches_of_one:
        taken = [f"y={labels}[i : i + 1]"] if given else []
        body += ["def one(i):"]
        body += called(f"return {start}", [model, "x[i : i + 1]", *options, *taken], indent="    ")
        body += ["x_adv = torch.cat([one(i) for i in range(len(x))])"]
    else:
        taken = [f"y={labels}"] if given else []
        body += called(f"x_adv = {start}", [model, "x", *options, *taken])
    if call.weights is not None:
        body += ["model.zero_grad()", *_torch_training(call)]
    others = ["import torch"] if any("torch." in line for line in body) else []
    if any("F." in line for line in body):
        others.append("import torch.nn.functional as F")
    return text(_COMMENT, _imports(call, "torch", body, others), body)


def _torch_training(call: Call) -> list[str]:
    smoothing = f", label_smoothing={value(call.smoothing)}" if call.smoothing else ""
    found = ["def loss(v):", f"    return F.cross_entropy(model(v), y{smoothing})"]
    return [*found, *_weighted(call, "loss(", "x_adv.detach()", closing=")")]


def _weighted(call: Call, loss: str, adversarial: str, closing: str = "))") -> list[str]:
    """The line of the training loss, with factors of 1 left out."""
    terms = []
    for factor, example in zip(call.weights or (), ("x", adversarial), strict=True):
        scale = "" if factor == 1 else f"{value(factor)} * "
        if factor:
            terms.append(f"{scale}{loss}{example}{closing}")
    return [f"training_loss = {' + '.join(terms) or '0.0'}"]
