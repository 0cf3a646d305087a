"""CleverHans 3.1.0, served in TensorFlow 1 mode.

model, output, dtype, seed and x/<name> are as in ``nsl.py`` (one input only). Labels are one-hot
or soft, float, [B, classes]. The attack sees CallableModelWrapper(model, "logits"); with
output="probabilities" the softmax passes through tf.identity, because the wrapper refuses an
operation named Softmax. Each call has a graph and a session of its own.

Handlers:
    versions(), signatures(), load(...) as in ``nsl.py``
    perturb(model, params, output, dtype, seed; x, ...) by attack.generate. params: "attack", one
        of FastGradientMethod, ProjectedGradientDescent, BasicIterativeMethod, MadryEtAl, and its
        keywords. Arrays y, y_target, clip_min, clip_max, eps, eps_iter become the keywords of the
        same name.
        -> arrays adv/<name>, gradient/<name> (of the attack's loss at x: summed over the batch,
        negative where targeted), loss [B] (the same sign), labels [B, classes] (those used)
    function(params={"function", "norm", "radius", "clip_min", "clip_max"}; g/<name>, x/<name>) by
        optimize_linear with eps 1 ("direction"), clip_eta ("project") or "zero_out_clipped_grads"
        -> arrays result/<name>
    train(model, params, output, dtype, training, optimizer, seed; x, y) by
        CrossEntropy.fprop(x, y). params: smoothing, pass_y, adv_coeff, attack (a name as above, or
        absent), attack_params, weight_decay (a float: adds that times WeightDecay).
        -> values loss, clean_loss and adversarial_loss (each by a CrossEntropy of its own, with
        the same smoothing); arrays grad/<weight>; with optimizer={"sgd": rate} also after/<weight>
        after one step as cleverhans.train makes it (which leaves the moving statistics of a Keras
        BatchNormalization as they are).
"""

# The imports below have an order of their own.
# ruff: noqa: E402
from __future__ import annotations

import contextlib

import keras_models  # first: it needs TensorFlow 2's names
import stand_ins

stand_ins.cleverhans_3()
tf = stand_ins.tensorflow_1()

import description
from cleverhans import attacks, utils_tf
from cleverhans import loss as original_loss
from cleverhans import model as original_model
from cleverhans.attacks import fast_gradient_method

_ATTACKS = (
    "FastGradientMethod",
    "ProjectedGradientDescent",
    "BasicIterativeMethod",
    "MadryEtAl",
)
_KEYWORDS = ("y", "y_target", "clip_min", "clip_max", "eps", "eps_iter")


def versions(params, arrays):
    """Returns the versions of this process."""
    return description.versions("cleverhans3", "cleverhans")


def signatures(params, arrays):
    """Returns the signatures of what the port mirrors."""
    found = {name: getattr(attacks, name) for name in _ATTACKS}
    found.update({f"{name}.parse_params": kind.parse_params for name, kind in found.items()})
    found["FastGradientMethod.generate"] = attacks.FastGradientMethod.generate
    found["FastGradientMethod.generate_np"] = attacks.FastGradientMethod.generate_np
    found["CallableModelWrapper"] = original_model.CallableModelWrapper
    for name in ("CrossEntropy", "WeightedSum", "WeightDecay"):
        found[name] = getattr(original_loss, name)
    found["CrossEntropy.fprop"] = original_loss.CrossEntropy.fprop
    found["optimize_linear"] = fast_gradient_method.optimize_linear
    found["clip_eta"] = utils_tf.clip_eta
    found["zero_out_clipped_grads"] = utils_tf.zero_out_clipped_grads
    return description.signatures(found)


def load(params, arrays):
    """Reads the model, and says what it is."""
    with _session(params):
        return keras_models.describe(keras_models.build(params))


def perturb(params, arrays):
    """Perturbs a batch by the attack that ``params`` names."""
    with _session(params) as session:
        loaded, caller, x, feed = _inputs(params, arrays)
        options = dict(params["params"])
        attack = _attack(options.pop("attack"), _wrapper(loaded, params), session, params)
        for name in _KEYWORDS:
            if name in arrays:
                options[name] = _placeholder(arrays[name], x.dtype, feed)
        adversarial = attack.generate(x, **options)
        # What the attack does first: the label it takes, and the gradient that it follows.
        labels, _ = attack.get_or_guess_labels(x, dict(options))
        labels = labels / tf.reduce_sum(labels, 1, keepdims=True)
        loss = attack.loss_fn(labels=labels, logits=attack.model.get_logits(x))
        if attack.y_target is not None:
            loss = -loss
        (gradient,) = tf.gradients(loss, x)
        fetches = {
            f"adv/{caller}": adversarial,
            f"gradient/{caller}": gradient,
            "loss": loss,
            "labels": labels,
        }
        return {"logits": loaded.logits}, session.run(fetches, feed)


def train(params, arrays):
    """Computes the training loss and its gradients; with an optimizer, makes one step."""
    with _session(params) as session:
        loaded, _, x, feed = _inputs(params, arrays)
        model = loaded.model
        y = _placeholder(arrays["y"], x.dtype, feed)
        total, clean, adversarial = _training_loss(loaded, params, session, x, y)
        weights = model.trainable_weights
        found = tf.gradients(total, weights, unconnected_gradients="zero")
        gradients = {weight.name: found[i] for i, weight in enumerate(weights)}
        fetches = {"loss": total, "clean_loss": clean, "adversarial_loss": adversarial}
        fetches = {name: value for name, value in fetches.items() if value is not None}
        values, found = session.run((fetches, gradients), feed)
        results = keras_models.numpy_arrays("grad", found)
        if params.get("optimizer"):
            optimizer = tf.train.GradientDescentOptimizer(params["optimizer"]["sgd"])
            # As in cleverhans.train: updates of this collection only, where Keras puts none.
            with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
                step = optimizer.apply_gradients([(gradients[w.name], w) for w in weights])
            session.run(step, feed)
            after = session.run({weight.name: weight for weight in model.weights})
            results.update(keras_models.numpy_arrays("after", after))
        return {**values, "logits": loaded.logits}, results


def function(params, arrays):
    """Returns one of CleverHans' helper functions of g/<name> as result/<name>."""
    options = params["params"]
    with _session(params) as session:
        feed, fetches = {}, {}
        inputs = keras_models.select(arrays, "x")
        for name, g in keras_models.select(arrays, "g").items():
            given = _placeholder(g, None, feed)
            if options["function"] == "direction":
                found = fast_gradient_method.optimize_linear(given, 1.0, options["norm"])
            elif options["function"] == "project":
                found = utils_tf.clip_eta(given, options["norm"], options["radius"])
            else:
                x = _placeholder(inputs[name], None, feed)
                bounds = options["clip_min"], options["clip_max"]
                found = utils_tf.zero_out_clipped_grads(given, x, *bounds)
            fetches[f"result/{name}"] = found
        return {}, session.run(fetches, feed)


@contextlib.contextmanager
def _session(params):
    """A fresh graph, so that weights have the same names in each call, and its session."""
    with tf.Graph().as_default(), tf.Session() as session:
        if params.get("seed") is not None:
            tf.set_random_seed(params["seed"])
        yield session


def _inputs(params, arrays):
    loaded = keras_models.build(params)
    caller, value = keras_models.only_input(loaded, arrays)
    feed = {}
    return loaded, caller, _placeholder(value, None, feed), feed


def _placeholder(value, dtype, feed):
    """A placeholder for ``value``, entered in ``feed``; float values in ``dtype`` if given."""
    value = value if dtype is None else keras_models.cast(value, dtype.as_numpy_dtype)
    shape = (None, *value.shape[1:]) if value.ndim else ()
    placeholder = tf.placeholder(value.dtype, shape)
    feed[placeholder] = value
    return placeholder


def _wrapper(loaded, params):
    model = loaded.model

    def logits(x, **kwargs):
        output = model(x, **kwargs)
        # The wrapper refuses an operation named Softmax; what a user of probabilities does.
        return tf.identity(output) if params.get("output") == "probabilities" else output

    wrapper = original_model.CallableModelWrapper(logits, "logits")
    # A wrapper of a callable does not know its weights; WeightDecay asks for them.
    wrapper.params = model.trainable_weights
    return wrapper


def _attack(name, wrapper, session, params):
    if name not in _ATTACKS:
        raise ValueError(f"expected an attack out of {', '.join(_ATTACKS)}, got {name!r}")
    dtype = params.get("dtype", "float32")
    return getattr(attacks, name)(wrapper, sess=session, dtypestr=dtype)


def _training_loss(loaded, params, session, x, y):
    """The loss asked for, and its clean and adversarial part (None without an attack)."""
    options, wrapper = dict(params.get("params") or {}), _wrapper(loaded, params)
    decay = options.pop("weight_decay", None)
    name = options.pop("attack", None)
    kwargs = {"training": True} if params.get("training") else {}
    attack = _attack(name, wrapper, session, params) if name else None
    cross_entropy = original_loss.CrossEntropy(wrapper, attack=attack, **options)
    objective = cross_entropy
    if decay is not None:
        terms = [(1.0, cross_entropy), (float(decay), original_loss.WeightDecay(wrapper))]
        objective = original_loss.WeightedSum(wrapper, terms)
    total = objective.fprop(x, y, **kwargs)
    smoothing = options.get("smoothing", 0.0)
    clean = original_loss.CrossEntropy(wrapper, smoothing).fprop(x, y, **kwargs)
    adversarial = None
    if attack is not None:
        only = original_loss.CrossEntropy(wrapper, attack=attack, **{**options, "adv_coeff": 1.0})
        adversarial = only.fprop(x, y, **kwargs)
    return total, clean, adversarial


HANDLERS = {
    "versions": versions,
    "signatures": signatures,
    "allow_unsafe": keras_models.allow_unsafe,
    "load": load,
    "perturb": perturb,
    "train": train,
    "function": function,
}
