"""CleverHans 4.0.0's tf2 part.

model, output, dtype, seed and x/<name> are as in ``nsl.py`` (one input only). The library casts its
input to float32 whatever it gets: with dtype="float64" the model computes in float64 (Keras casts
back), but adv and gradient are float32.

Handlers:
    versions(), signatures(), load(...) as in ``nsl.py``
    perturb(model, params, output, dtype, seed; x, ...) params: "attack", fast_gradient_method or
        projected_gradient_descent, and its keywords. Arrays y (integers [B]), clip_min, clip_max,
        eps become the keywords of the same name.
        -> arrays adv/<name>, gradient/<name> (by the library's compute_gradient at x: summed over
        the batch, negative where targeted), loss [B] (the same sign), labels [B] (those used)
    function(params={"function", "norm", "radius"}; g/<name>) by optimize_linear with eps 1
        ("direction") or clip_eta ("project") -> arrays result/<name>

The library has no training loss, so there is no ``train``.
"""

from __future__ import annotations

import description
import keras_models
import numpy as np
import tensorflow as tf
from cleverhans.tf2 import utils as original_utils
from cleverhans.tf2.attacks.fast_gradient_method import fast_gradient_method
from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

_ATTACKS = {
    "fast_gradient_method": fast_gradient_method,
    "projected_gradient_descent": projected_gradient_descent,
}
_KEYWORDS = ("y", "clip_min", "clip_max", "eps")


def versions(params, arrays):
    """Returns the versions of this process."""
    return description.versions("cleverhans-tf2", "cleverhans")


def signatures(params, arrays):
    """Returns the signatures of what the port mirrors."""
    helpers = ("optimize_linear", "clip_eta", "compute_gradient", "random_lp_vector")
    return description.signatures(
        {**_ATTACKS, **{name: getattr(original_utils, name) for name in helpers}}
    )


def load(params, arrays):
    """Reads the model, and says what it is."""
    return keras_models.describe(keras_models.load(params))


def perturb(params, arrays):
    """Perturbs a batch by the attack that ``params`` names."""
    if params.get("seed") is not None:
        tf.random.set_seed(params["seed"])
    loaded = keras_models.load(params)
    model = loaded.model
    caller, x = keras_models.only_input(loaded, arrays)
    options = dict(params["params"])
    attack = _ATTACKS[options.pop("attack")]
    options.update({name: arrays[name] for name in _KEYWORDS if name in arrays})
    adversarial = attack(model, x, **options)
    # What the attack does first: the label it takes, and the gradient that it follows.
    y = options.get("y")
    if y is None:
        y = tf.argmax(model(x), 1)
    targeted = options.get("targeted", False)
    loss_fn = tf.nn.sparse_softmax_cross_entropy_with_logits
    gradient = original_utils.compute_gradient(model, loss_fn, tf.cast(x, tf.float32), y, targeted)
    loss = loss_fn(labels=y, logits=model(x))
    return {"logits": loaded.logits}, {
        f"adv/{caller}": np.asarray(adversarial),
        f"gradient/{caller}": np.asarray(gradient),
        "loss": np.asarray(-loss if targeted else loss),
        "labels": np.asarray(y),
    }


def function(params, arrays):
    """Returns one of CleverHans' helper functions of g/<name> as result/<name>."""
    options, results = params["params"], {}
    for name, g in keras_models.select(arrays, "g").items():
        if options["function"] == "direction":
            found = original_utils.optimize_linear(tf.constant(g), 1.0, options["norm"])
        else:
            found = original_utils.clip_eta(tf.constant(g), options["norm"], options["radius"])
        results[f"result/{name}"] = np.asarray(found)
    return {}, results


HANDLERS = {
    "versions": versions,
    "signatures": signatures,
    "allow_unsafe": keras_models.allow_unsafe,
    "load": load,
    "perturb": perturb,
    "function": function,
}
