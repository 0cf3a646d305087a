"""NSL 1.4.0; its own code runs untouched.

Shared by all handlers:
    model: path of a .keras or .h5 file, or of a SavedModel folder that Keras wrote. Loaded once.
    output: "logits" (a final softmax or sigmoid is cut off; the default) or "probabilities" (the
        model as it is).
    dtype: "float32" (default) or "float64": the model is rebuilt, and float arrays cast, to it.
    loss: {"class": a Keras loss, plus its arguments: from_logits, label_smoothing, reduction};
        a list of them for a model with several outputs. Default: SparseCategoricalCrossentropy.
        from_logits is as the output says unless given.
    x/<name>: one array for each input, named as the model's inputs (any name where there is one
        input). y/<i>: labels of output i; "y" alone where there is one. w: sample weights.
    seed: integer or absent; seeds TensorFlow's generator before the work.

Handlers:
    versions() -> values python, numpy, tensorflow, keras, library, library_version
    signatures() -> values {function: [[parameter, kind, default], ...]}; default is text, or null
        where the parameter has none
    load(model, output, dtype) -> values input_names, output_names, logits (what was cut, or why
        nothing), weights (names, in Keras' order), trainable (names)
    perturb(model, params, loss, output, dtype, seed; x, y, w) by
        AdversarialRegularization.perturb_on_batch. params: AdvNeighborConfig's keywords
        (feature_mask, clip_value_min and clip_value_max may come as arrays instead,
        "feature_mask/<input>" and so on; without an input's name, as a number in params or an
        array "clip_value_min", they reach NSL as they are, and it ignores them: its features are
        a dict).
        -> arrays adv/<name>, gradient/<name> (of the weighted labeled loss at x), loss (scalar)
    function(params={"function", "norm", "radius"}; g/<name>, mask/<name>) by
        maximize_within_unit_norm ("direction"), project_to_ball ("project"), "normalize" or
        "apply_feature_mask", norms jointly over the names
        -> arrays result/<name>
    train(model, params, loss, output, dtype, training, optimizer, seed; x, y, w) by calling
        AdversarialRegularization: params as in perturb, and multiplier. w must be [B, 1], as in
        the original. training (default false) is Keras' flag of the same name.
        -> values loss (with layer losses), labeled_loss, scaled_adversarial_loss;
        arrays grad/<weight> for the trainable weights; with optimizer={"sgd": rate} also
        after/<weight> for all weights after one step. The model itself is not changed.
    oracle(model, loss, output, dtype="float64", reduction="sum"|"mean", want; x, y, w): the
        original model's own values, without NSL. want: list out of "input_gradient", "loss",
        "losses", "parameter_gradient", "logits", "label_slope" -> arrays gradient/<name>, loss
        (scalar; "mean" divides the weighted sum by the number of losses, which is B), losses (per
        example, unweighted), grad/<weight>, logits (of the output asked for); for one output of
        logits label_slope/<name> (the gradient with the label's logit for the loss) and label_miss
        [B] (1 less the label's probability; 0 for a shared label). Labels and weights as above.
    training_truth(model, norm, eps, clean, adversarial, smoothing, predicted, training, optimizer;
        x, y one-hot, given): the formula of CleverHans 3's adversarial training with one step, in
        float64: clean and adversarial weigh the two losses; predicted labels or y in the attack;
        given: adversarial examples in place of the attack's
        -> arrays loss, grad/<weight>, with an optimizer after/<trainable weight>

Names of weights are Keras' own (``v.name``); a model in which they are not unique is refused.
"""

from __future__ import annotations

# The stand-in is needed by the imports after it.
# ruff: noqa: E402
import description
import keras_models
import numpy as np
import oracle
import stand_ins
import tensorflow as tf

stand_ins.estimator()

import neural_structured_learning as original
from neural_structured_learning.lib import utils as original_lib

_WEIGHT = "sample_weight"
_PER_FEATURE = ("feature_mask", "clip_value_min", "clip_value_max")


def versions(params, arrays):
    """Returns the versions of this process."""
    return description.versions("nsl", "neural-structured-learning")


def signatures(params, arrays):
    """Returns the signatures of what the port mirrors."""
    wrapper = original.keras.AdversarialRegularization
    return description.signatures(
        {
            "AdvNeighborConfig": original.configs.AdvNeighborConfig,
            "AdvRegConfig": original.configs.AdvRegConfig,
            "make_adv_reg_config": original.configs.make_adv_reg_config,
            "gen_adv_neighbor": original.lib.gen_adv_neighbor,
            "adversarial_loss": original.keras.adversarial_loss,
            "AdversarialRegularization": wrapper,
            "AdversarialRegularization.perturb_on_batch": wrapper.perturb_on_batch,
            "maximize_within_unit_norm": original_lib.maximize_within_unit_norm,
            "project_to_ball": original_lib.project_to_ball,
            "random_in_norm_ball": original_lib.random_in_norm_ball,
            "normalize": original_lib.normalize,
            "apply_feature_mask": original_lib.apply_feature_mask,
        }
    )


def load(params, arrays):
    """Reads the model, and says what it is."""
    return keras_models.describe(keras_models.load(params))


def perturb(params, arrays):
    """Perturbs a batch by perturb_on_batch."""
    _seed(params)
    loaded = keras_models.load(params)
    wrapper, batch, inputs = _wrapped(loaded, params, arrays)
    # The call that perturb_on_batch itself makes first: this loss is the one that it follows.
    given = {name: tf.constant(value) for name, value in batch.items()}
    labels, weights = wrapper._extract_labels_and_weights(given)
    _, loss, _, tape = wrapper._forward_pass(given, labels, weights, {"training": False})
    floats = {caller: given[name] for caller, (name, x) in inputs.items() if x.dtype.kind == "f"}
    gradients = tape.gradient(loss, floats)
    perturbed = wrapper.perturb_on_batch(batch)
    results = {f"adv/{caller}": perturbed[name] for caller, (name, _) in inputs.items()}
    results.update(keras_models.numpy_arrays("gradient", gradients))
    results["loss"] = np.asarray(loss)
    return {"logits": loaded.logits}, results


def train(params, arrays):
    """Computes the training loss and its gradients; with an optimizer, makes one step."""
    _seed(params)
    before = tf.keras.backend.floatx()
    # The wrapper is a Keras model too, which casts its inputs to this type.
    tf.keras.backend.set_floatx(params.get("dtype", "float32"))
    try:
        return _train(params, arrays)
    finally:
        tf.keras.backend.set_floatx(before)


def _train(params, arrays):
    loaded = keras_models.build(params)
    model = loaded.model
    wrapper, batch, _ = _wrapped(loaded, params, arrays)
    with tf.GradientTape() as tape:
        given = {name: tf.constant(value) for name, value in batch.items()}
        wrapper(given, training=bool(params.get("training", False)))
        # In the order in which AdversarialRegularization.call adds them; the layers' come last.
        labeled, scaled, *_ = wrapper.losses
        total = tf.add_n(wrapper.losses)
    gradients = tape.gradient(total, {weight.name: weight for weight in model.trainable_weights})
    results = keras_models.numpy_arrays("grad", gradients)
    if params.get("optimizer"):
        optimizer = tf.keras.optimizers.SGD(params["optimizer"]["sgd"])
        optimizer.apply_gradients([(gradients[w.name], w) for w in model.trainable_weights])
        results.update(
            keras_models.numpy_arrays("after", {weight.name: weight for weight in model.weights})
        )
    values = {
        "loss": float(total),
        "labeled_loss": float(labeled),
        "scaled_adversarial_loss": float(scaled),
        "logits": loaded.logits,
    }
    return values, results


def function(params, arrays):
    """Returns one of NSL's helper functions of g/<name> as result/<name>."""
    options = params["params"]
    tensors = _tensors(arrays, "g")
    norm = original.configs.NormType(options["norm"]) if "norm" in options else None
    if options["function"] == "direction":
        found = original_lib.maximize_within_unit_norm(tensors, norm)
    elif options["function"] == "project":
        found = original_lib.project_to_ball(tensors, options["radius"], norm)
    elif options["function"] == "normalize":
        found = {name: original_lib.normalize(g, norm) for name, g in tensors.items()}
    else:
        masks = _tensors(arrays, "mask")
        found = {n: original_lib.apply_feature_mask(g, masks[n]) for n, g in tensors.items()}
    return {}, keras_models.numpy_arrays("result", found)


def _tensors(arrays, prefix):
    return {name: tf.constant(a) for name, a in keras_models.select(arrays, prefix).items()}


def _seed(params):
    if params.get("seed") is not None:
        tf.random.set_seed(params["seed"])


def _wrapped(loaded, params, arrays):
    """The compiled wrapper, its batch (a dict of arrays), and the inputs by their caller's name."""
    inputs = keras_models.match_inputs(loaded, arrays)
    dtype = loaded.dtype
    labels = keras_models.labels(arrays, dtype)
    batch = dict(inputs.values())
    batch.update({f"label_{i}": value for i, value in enumerate(labels)})
    if "w" in arrays:
        # NSL multiplies them by float32 ones; the loss casts the product to its own type.
        batch[_WEIGHT] = keras_models.cast(arrays["w"], "float32")
    options = dict(params.get("params") or {})
    multiplier = {"multiplier": options.pop("multiplier")} if "multiplier" in options else {}
    neighbor = original.configs.AdvNeighborConfig(**options, **_per_feature(arrays, inputs, dtype))
    wrapper = original.keras.AdversarialRegularization(
        loaded.model,
        label_keys=tuple(f"label_{i}" for i in range(len(labels))),
        sample_weight_key=_WEIGHT if "w" in arrays else None,
        adv_config=original.configs.AdvRegConfig(**multiplier, adv_neighbor_config=neighbor),
    )
    if dtype == "float64":
        wrapper._autocast = False  # or Keras would cast the weights
    losses = keras_models.keras_losses(params, len(labels))
    wrapper.compile(optimizer="sgd", loss=losses if len(losses) > 1 else losses[0])
    return wrapper, batch, inputs


def _per_feature(arrays, inputs, dtype):
    """Masks and bounds that came as arrays, by the model's names of the inputs."""
    found = {}
    for option in _PER_FEATURE:
        # NSL compares a mask with float32 numbers; TensorFlow casts an array to the features' type.
        type_ = "float32" if option == "feature_mask" else dtype
        if option in arrays:
            found[option] = keras_models.cast(arrays[option], type_)
        parts = keras_models.select(arrays, option)
        if parts:
            found[option] = {inputs[k][0]: keras_models.cast(v, type_) for k, v in parts.items()}
    return found


HANDLERS = {
    "versions": versions,
    "signatures": signatures,
    "allow_unsafe": keras_models.allow_unsafe,
    "load": load,
    "perturb": perturb,
    "train": train,
    "function": function,
    "oracle": oracle.oracle,
    "training_truth": oracle.training_truth,
}
