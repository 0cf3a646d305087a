"""The fields of `Recipe` that concern the loss, its gradient and the direction."""

from __future__ import annotations

from collections.abc import Mapping

from torchfgsm.explanation.choice import (
    ANY,
    FGM,
    FGM_3,
    GOODFELLOW,
    KERAS,
    KURAKIN,
    LINEAR,
    LINEAR_3,
    MIYATO,
    NEIGHBOR,
    UNIT_NORM,
    Choice,
    origins,
)

LOSS_CHOICES: Mapping[str, Choice] = {
    "labels": Choice(
        {
            "given": "the loss is taken against the labels that are given",
            "predicted": "the loss is taken against the model's own prediction",
        },
        origins(
            (f"{KERAS}.perturb_on_batch", "NSL takes the labels in its input and predicts none"),
            ("attacks.attack.Attack.get_or_guess_labels", "CleverHans 3 predicts without `y`"),
            (FGM, "CleverHans 4 predicts without `y`"),
            (FGM, "CleverHans 4 predicts without `y`"),
        ),
        {ANY: KURAKIN},
    ),
    "ties": Choice(
        {
            "first": "of several equal maxima the first class is the predicted label",
            "shared": "several equal maxima share the predicted label evenly",
        },
        origins(
            (f"{KERAS}.perturb_on_batch", "NSL predicts no label"),
            (FGM_3, "CleverHans 3 marks every maximum and divides by their number"),
            (FGM, "CleverHans 4 takes `tf.argmax`"),
            (FGM, "CleverHans 4 takes `torch.max`"),
        ),
    ),
    "targeted": Choice(
        {
            False: "the step climbs the loss of the label",
            True: "the step descends the loss of a target",
        },
        origins(
            (f"{NEIGHBOR}._compute_perturbations", "NSL knows no targets"),
            (FGM_3, "CleverHans 3 is told by `y_target`"),
            ("utils.compute_gradient", "CleverHans 4 is told by `targeted`"),
            (FGM, "CleverHans 4 is told by `targeted`"),
        ),
    ),
    "model_output": Choice(
        {
            "logits": "the model's output is taken for logits",
            "probabilities": "the model's output is taken for probabilities and clipped at 1e-7, "
            "where a sure prediction has no gradient",
            "with_head": "what the model gives is taken for logits, with its softmax or sigmoid "
            "where it has one",
        },
        origins(
            (
                f"{KERAS}._compute_total_loss",
                "the Keras loss decides by `from_logits`, and finds the logits behind a softmax",
            ),
            (
                FGM_3,
                "CleverHans 3 refuses a softmax, or finds the logits behind it",
            ),
            (FGM, "CleverHans 4 does not notice a softmax"),
            (FGM, "CleverHans 4 does not notice a softmax"),
        ),
    ),
    "reduction": Choice(
        {
            "sum": "each example's own loss is differentiated",
            "mean": "the mean over the batch is differentiated: gradients shrink with its size, "
            "which the guard under the L2 norm sees",
        },
        origins(
            (f"{KERAS}._compute_total_loss", "NSL takes the Keras loss's `reduction`"),
            (FGM_3, "`tf.gradients` adds up the losses of the examples"),
            ("utils.compute_gradient", "the tape adds up the losses of the examples"),
            (FGM, "`torch.nn.CrossEntropyLoss` averages unless told otherwise"),
        ),
    ),
    "model_mode": Choice(
        {
            "eval": "the model is attacked in eval mode",
            "keep": "the model is attacked in the mode that it is in",
            "keep_and_update": "the model is attacked in the mode that it is in, and BatchNorm "
            "statistics move",
        },
        origins(
            (f"{KERAS}.call", "NSL's `perturb_on_batch` is inference, its training is training"),
            ("loss.CrossEntropy.fprop", "the training flag reaches the passes of the loss alone"),
            (FGM, "`model_fn` gets no training flag"),
            (FGM, "the module's mode is not touched"),
        ),
    ),
    "through_perturbation": Choice(
        {
            False: "the training gradient takes the perturbation for a constant",
            True: "the training gradient flows through an L2 perturbation: a second-order term",
        },
        origins(
            (f"{NEIGHBOR}._apply_perturbations", "NSL stops the gradient there"),
            (LINEAR_3, "CleverHans 3 stops the gradient under L-inf alone"),
            (LINEAR, "CleverHans 4 stops the gradient under L-inf alone"),
            (FGM, "CleverHans 4 makes the perturbation on a leaf of its own"),
        ),
    ),
}

GRADIENT_CHOICES: Mapping[str, Choice] = {
    "nonfinite": Choice(
        {
            "zero": "NaN and infinite entries of the gradient count as 0",
            "propagate": "NaN entries of the gradient make the perturbation NaN",
            "ignore": "NaN entries of the gradient have sign 0, but spread under L2 and L1",
        },
        origins(
            (f"{NEIGHBOR}._compute_gradient", "NSL replaces them before everything else"),
            (LINEAR_3, "CleverHans 3 takes `tf.sign` of what comes"),
            (LINEAR, "CleverHans 4 takes `tf.sign` of what comes"),
            (LINEAR, "CleverHans 4 takes `torch.sign` of what comes"),
        ),
    ),
    "zero_gradient": Choice(
        {
            "stay": "an example whose gradient is all zero stays where it is",
            "refuse": "an example whose gradient is all zero is an error",
        },
        origins(
            (UNIT_NORM, "NSL's guard makes 0 of it"),
            (LINEAR_3, "CleverHans 3's guard makes 0 of it"),
            (LINEAR, "CleverHans 4's guard makes 0 of it"),
            (LINEAR, "CleverHans 4's own L1 step stops with an AssertionError there"),
        ),
    ),
    "missing_gradient": Choice(
        {
            "stay": "a feature without a path to the loss stays as it is",
            "refuse": "a feature without a path to the loss is an error",
        },
        origins(
            (f"{NEIGHBOR}._compute_gradient", "NSL warns once"),
            (FGM_3, "CleverHans 3 has one input and fails without its gradient"),
            (
                "utils.compute_gradient",
                "CleverHans 4 has one input and fails without its gradient",
            ),
            (FGM, "CleverHans 4 has one input and fails without its gradient"),
        ),
    ),
    "clip_grad": Choice(
        {
            False: "the gradient is taken as it is at the bounds of the range",
            True: "gradient entries whose step would be clipped away count as 0",
        },
        origins(
            (f"{NEIGHBOR}._compute_perturbations", "NSL has no such option"),
            ("utils_tf.zero_out_clipped_grads", "CleverHans 3 is told by `clip_grad`"),
            (FGM, "CleverHans 4 has no such option"),
            ("utils.zero_out_clipped_grads", "CleverHans 4 has the function and does not call it"),
        ),
    ),
    "norm": Choice(
        {
            "linf": "every entry moves by the step along its gradient's sign",
            "l2": "the step goes along the gradient, divided by its L2 norm",
            "l1": "the step moves the entries with the largest gradient alone",
        },
        origins(
            (UNIT_NORM, "NSL's `adv_grad_norm` is L2 unless told otherwise"),
            (LINEAR_3, "CleverHans 3's `ord` is L-inf unless told otherwise"),
            (LINEAR, "CleverHans 4's `norm` must be given"),
            (LINEAR, "CleverHans 4's `norm` must be given"),
        ),
        {"linf": GOODFELLOW, "l2": MIYATO},
    ),
    "guard": Choice(
        {
            0.0: "nothing is put under the L2 norm that a gradient is divided by",
            ANY: "the squared L2 norm that a gradient is divided by is at least {}: smaller "
            "gradients make shorter steps",
        },
        origins(
            (UNIT_NORM, "NSL's floor is `epsilon ** 2`"),
            (LINEAR_3, "CleverHans 3's is `avoid_zero_div`"),
            (LINEAR, "CleverHans 4's is `avoid_zero_div`"),
            (LINEAR, "CleverHans 4's is `avoid_zero_div`"),
        ),
    ),
    "joint": Choice(
        {
            True: "the norm is taken over all features of an example together",
            False: "each feature of an example has a norm of its own",
        },
        origins(
            (UNIT_NORM, "NSL takes a structure of features"),
            (LINEAR_3, "CleverHans 3 takes one input"),
            (LINEAR, "CleverHans 4 takes one input"),
            (LINEAR, "CleverHans 4 takes one input"),
        ),
    ),
    "scalar_examples": Choice(
        {
            "each": "in an input of shape (N,) each entry is an example",
            "joint": "an input of shape (N,) has one norm for the whole batch",
        },
        origins(
            (UNIT_NORM, "NSL's norm leaves the first dimension out"),
            (LINEAR_3, "CleverHans 3's norm leaves the first dimension out"),
            (LINEAR, "CleverHans 4's norm leaves the first dimension out"),
            (LINEAR, "without other dimensions torch takes the norm of all"),
        ),
    ),
}
