"""The table of a translation: what settles a field on which two recipes still differ.

A recipe is written in the other library's options, and compared with what these mean there. Each
field that differs is settled by its first entry that applies, or the translation is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torchfgsm.core.recipe import Recipe
from torchfgsm.translation.entries import (
    CLEVERHANS,
    Applies,
    Entry,
    Question,
    condition,
    idle,
    outside,
    refused,
)
from torchfgsm.translation.reach import (
    ball_is_idle,
    clips,
    clips_crossed,
    ends_at_the_edge,
    finite,
    is_random,
    start_radius,
    step_towards_loss,
)

_IN_RANGE = (
    "The input lies within the bounds: CleverHans clips it before the first step of PGD, NSL after"
)


def _same_step(q: Question) -> bool:
    return step_towards_loss(q.source) == step_towards_loss(q.target)


def _both(test: Callable[[Recipe], bool]) -> Applies:
    return lambda q: test(q.source) and test(q.target)


def _neither(test: Callable[[Recipe], bool]) -> Applies:
    return lambda q: not test(q.source) and not test(q.target)


_sign_alone = _both(lambda r: r.norm != "l2")
_balls_idle = _both(ball_is_idle)
_one_step = _both(
    lambda r: ends_at_the_edge(r) or (r.epsilon is None and r.iterations == 1 and not is_random(r))
)


def _same_bounds(q: Question) -> bool:
    pairs = (q.source.clip_min, q.target.clip_min), (q.source.clip_max, q.target.clip_max)
    return all(finite(a) == finite(b) for a, b in pairs)


def _takes_its_bounds(recipe: Recipe) -> bool:
    one_sided = (recipe.clip_min is None) != (recipe.clip_max is None)
    return recipe.one_sided_clip == "allowed" or not one_sided


def _starts_uniformly(recipe: Recipe) -> bool:
    return is_random(recipe) and recipe.norm == "l2" and recipe.random_start != "cube"


LOGITS = (
    "Give a model that returns logits, not probabilities: NSL's Keras loss recovers the logits "
    "behind a softmax layer, CleverHans does not"
)
LABELS = (
    outside(
        "Pass y_target, the targets, as one-hot rows",
        lambda q: q.source.targeted and q.target.targeted,
        ("cleverhans3",),
    ),
    outside(
        "Pass y, the targets",
        lambda q: q.source.targeted and q.target.targeted,
        CLEVERHANS,
    ),
    outside(
        "Pass y, the labels: without them CleverHans attacks the model's own prediction",
        lambda q: q.source.labels == "given",
        CLEVERHANS,
    ),
    refused(
        "NSL attacks the labels that it trains on, CleverHans the model's prediction unless it "
        "gets pass_y=True; translate the attack alone, or with pass_y=True",
        lambda q: q.trains,
        ("nsl",),
    ),
    outside(
        "Pass the model's own prediction on the clean input as labels: NSL attacks the labels that "
        "it is given",
        to=("nsl",),
    ),
)
TABLE: Mapping[str, tuple[Entry, ...]] = MappingProxyType(
    {
        "labels": LABELS,
        "ties": (
            idle(
                "labels are given, so that none is predicted",
                lambda q: q.source.labels == "given",
            ),
            condition(
                "No two classes share the model's largest output: CleverHans 3 divides the "
                "predicted label evenly among them, all others take the first",
            ),
        ),
        "targeted": (
            idle("a step towards a label is one of negative length away from it", _same_step),
            refused("this library has no step towards a label"),
        ),
        "model_output": (
            outside(
                "Give a Keras loss with from_logits=False and a model whose probabilities Keras "
                "does not trace back to logits",
                lambda q: q.source.model_output == "probabilities",
                ("nsl",),
            ),
            outside(
                "Give the logarithm of the model's clipped probabilities for logits, as Keras "
                "computes it",
                lambda q: q.source.model_output == "probabilities",
                CLEVERHANS,
            ),
            outside(
                LOGITS,
                lambda q: q.source.model_output == "logits" and q.origin == "nsl",
            ),
            condition(
                "The model returns logits: CleverHans 4 takes the output of a softmax for logits, "
                "Keras' loss and CleverHans 3 take what comes before it",
            ),
        ),
        "reduction": (
            idle("a positive factor on the gradient changes no sign and no maximum", _sign_alone),
            outside(
                'Give the Keras loss reduction="sum": with the mean over the batch the guard under '
                "the L2 norm (1e-6) bites earlier, the larger the batch is",
                lambda q: q.source.reduction == "sum",
                ("nsl",),
            ),
            outside(
                "Pass a loss_fn that takes the mean over the batch, and attack the same batches: "
                "the guard under the L2 norm (1e-6) depends on their size",
                lambda q: q.source.reduction == "mean",
                ("cleverhans3", "cleverhans-tf2"),
            ),
            outside(
                "Attack batches of one: the loss is the mean over the batch, which the guard under "
                "the L2 norm (1e-6) sees",
                lambda q: q.source.reduction == "sum",
                ("cleverhans-torch",),
            ),
        ),
        "nonfinite": (
            condition(
                "All gradients are finite: NSL sets NaN and infinite entries to 0, CleverHans "
                "follows them",
                lambda q: "zero" in (q.source.nonfinite, q.target.nonfinite),
            ),
            condition(
                "No gradient has a NaN: its sign is NaN in TensorFlow and 0 in torch",
                lambda q: "zero" not in (q.source.nonfinite, q.target.nonfinite),
            ),
        ),
        "zero_gradient": (
            idle("where the one refuses an all-zero gradient there is nothing to be equal to"),
        ),
        "missing_gradient": (
            idle("the only input leads to the loss, or there is nothing to attack"),
        ),
        "clip_grad": (
            idle(
                "an L-inf step out of the range is clipped away in any case",
                lambda q: q.source.norm == "linf" and (q.source.step or 0.0) >= 0,
            ),
            refused(
                "only CleverHans 3 leaves out gradient entries whose step would be clipped away; "
                "under L2 and L1 that changes all the others"
            ),
        ),
        "norm": (refused("this library does not have the norm"),),
        "guard": (
            idle("the guard is under the L2 norm alone", _sign_alone),
            refused("the guard under the L2 norm is fixed in this library"),
        ),
        "joint": (idle("there is one input, over which the norm is taken either way"),),
        "scalar_examples": (
            idle("each entry has its own sign", _both(lambda r: r.norm == "linf")),
            condition(
                "The input has an axis besides that of the batch: CleverHans 4's torch port takes "
                "one of shape (N,) for a single example"
            ),
        ),
        "step": (
            idle("no step is made", _both(lambda r: step_towards_loss(r) == 0.0)),
            idle(
                "one L-inf step that is longer than the ball's radius ends at its edge",
                lambda q: ends_at_the_edge(q.source) and _same_step(q),
            ),
            idle("the sign says whether the step goes up or down the loss", _same_step),
            refused("this library cannot make a step of this length"),
        ),
        "iterations": (
            idle("no step is made", _both(lambda r: step_towards_loss(r) == 0.0)),
            refused("this library cannot make this number of steps"),
        ),
        "epsilon": (
            idle("no perturbation reaches the edge of the ball", _balls_idle),
            idle(
                "one L-inf step that is longer than the ball's radius ends at its edge",
                lambda q: ends_at_the_edge(q.source) and _same_step(q),
            ),
            refused("this library cannot keep the perturbation in such a ball"),
        ),
        "order": (
            idle("nothing is clipped", _neither(clips)),
            idle("there is one step and no ball", _one_step),
            condition(_IN_RANGE, _both(lambda r: r.norm == "linf")),
            condition(_IN_RANGE, _balls_idle),
            refused(
                "iterated L2 steps with a clip: NSL projects to the ball and then clips, "
                "CleverHans clips, projects and clips again, and no option changes that; use "
                "L-inf, or leave out the clip or the ball"
            ),
        ),
        "random_start": (
            idle("nothing starts at random", _neither(is_random)),
            idle(
                "under L-inf all libraries draw from the same cube",
                _both(lambda r: is_random(r) and r.norm == "linf"),
            ),
            idle(
                "the draws are uniform in the ball, and off centre under L1 alone",
                _both(_starts_uniformly),
            ),
            refused(
                "the random start has another law: uniform in a cube in CleverHans 4's torch "
                "port, uniform in the L2 ball in the others"
            ),
        ),
        "random_radius": (
            idle(
                "the start is drawn from the same radius",
                lambda q: start_radius(q.source) == start_radius(q.target),
            ),
            refused(
                "NSL draws the random start from the whole ball (pgd_epsilon), or from the length "
                "of a step without one; CleverHans' rand_init_eps or rand_minmax must be that"
            ),
        ),
        **{
            bound: (
                idle("an infinite bound clips nothing", _same_bounds),
                refused("this library cannot clip to this range"),
            )
            for bound in ("clip_min", "clip_max")
        },
        "one_sided_clip": (
            idle("both bounds are there, or none", _both(_takes_its_bounds)),
            refused("CleverHans refuses a range with one bound: give the other one as inf or -inf"),
        ),
        "crossed_clip": (
            idle("the lower bound is not above the upper one", _neither(clips_crossed)),
            refused("where the bounds cross NSL takes the upper one, CleverHans the lower one"),
        ),
        "through_perturbation": (
            idle("the perturbation alone is translated", lambda q: not q.trains),
            idle("a sign and the place of a maximum have no derivative", _sign_alone),
            outside(
                "Stop the gradient of the adversarial examples in the training loss: under L2 "
                "CleverHans lets it flow through the perturbation (a second-order term)",
                lambda q: not q.source.through_perturbation,
            ),
            refused(
                "CleverHans' training gradient flows through an L2 perturbation (a second-order "
                "term), which this library has not; where you can do without it, set "
                "through_perturbation=False"
            ),
        ),
        "model_mode": (
            outside(
                "Call model.eval() before the attack: it runs in the mode that the model is in",
                lambda q: q.source.model_mode == "eval",
                ("cleverhans-torch",),
            ),
            condition(
                "The model is in eval mode when CleverHans 4's torch port attacks it, as Keras "
                "models are",
                lambda q: q.source.model_mode == "keep" and q.origin == "cleverhans-torch",
            ),
            refused("this library does not attack a model in training mode"),
        ),
    }
)
