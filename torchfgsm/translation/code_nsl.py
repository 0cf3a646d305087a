"""Text of a call of NSL 1.4.0."""

from __future__ import annotations

from torchfgsm.translation.original_call import Call, called, keywords, text, uses_numpy, value

_LOSS = "tf.keras.losses.SparseCategoricalCrossentropy("
_HEAD = "adv_model = nsl.keras.AdversarialRegularization("


def lines(call: Call) -> list[str]:
    """Through `AdversarialRegularization`, whose features are a dict."""
    bounds = ("clip_value_min", "clip_value_max")
    options = keywords({n: v for n, v in call.options.items() if n not in bounds})
    # Bounds are looked up by the feature's name; a plain number would be ignored.
    options += [f"{n}={{name: {value(call.options[n])}}}" for n in bounds if n in call.options]
    loss = [f"from_logits={call.recipe.model_output != 'probabilities'}"]
    if call.takes_batches_of_one:
        loss.append('reduction="sum"')
    labels = "y" if call.recipe.labels == "given" else "labels"
    body = ["name = model.input_names[0]"]
    body += called("config = nsl.configs.make_adv_reg_config(", options)
    body += called(_HEAD, ["model", 'label_keys=["label"]', "adv_config=config"])
    body += called(f"loss = {_LOSS}", loss)
    body.append('adv_model.compile(optimizer="sgd", loss=loss)')
    if call.recipe.labels == "predicted":
        body.append("labels = tf.argmax(model(x), axis=-1)")
    body.append(f'batch = {{name: x, "label": {labels}}}')
    body.append("x_adv = adv_model.perturb_on_batch(batch)[name]")
    if call.weights is not None:
        body += [
            "adv_model(batch)",
            "training_loss = tf.add_n(adv_model.losses)  # what adv_model.fit minimises",
        ]
    imports = ["import neural_structured_learning as nsl", "import tensorflow as tf"]
    if uses_numpy(body):
        imports.insert(1, "import numpy as np")
    return text("model gives logits; y: class numbers", imports, body)
