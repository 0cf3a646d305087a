"""The fields of `Recipe` that concern the steps, the ball and the range."""

from __future__ import annotations

from collections.abc import Mapping

from torchfgsm.explanation.choice import (
    ANY,
    FGM,
    FGM_3,
    GOODFELLOW,
    MADRY,
    NEIGHBOR,
    PGD,
    PGD_3,
    Choice,
    origins,
)

STEP_CHOICES: Mapping[str, Choice] = {
    "step": Choice(
        {ANY: "a step is {} long, in the input's units"},
        origins(
            (f"{NEIGHBOR}._compute_perturbations", "NSL's `adv_step_size` is 0.001 by default"),
            (FGM_3, "CleverHans 3's `eps` is 0.3 by default, `eps_iter` of iterated attacks 0.05"),
            (FGM, "CleverHans 4's `eps`, or `eps_iter` of iterated attacks, must be given"),
            (FGM, "CleverHans 4's `eps`, or `eps_iter` of iterated attacks, must be given"),
        ),
        {ANY: GOODFELLOW},
    ),
    "iterations": Choice(
        {
            0: "no step is made",
            1: "one step is made, as in FGSM",
            ANY: "the attack makes {} steps, each from where the last one ended",
        },
        origins(
            (f"{NEIGHBOR}.gen_neighbor", "NSL's `pgd_iterations`"),
            (f"{PGD_3}.generate", "CleverHans 3's `nb_iter`, in the iterated attacks alone"),
            (PGD, "CleverHans 4's `nb_iter`, in the iterated attack alone"),
            (PGD, "CleverHans 4's `nb_iter`, in the iterated attack alone"),
        ),
        {0: GOODFELLOW, 1: GOODFELLOW, ANY: MADRY},
    ),
    "epsilon": Choice(
        {
            None: "no ball limits the perturbation",
            ANY: "after each step the perturbation is projected to a ball of radius {}",
        },
        origins(
            ("lib.utils.project_to_ball", "NSL's `pgd_epsilon`, also for one step"),
            ("utils_tf.clip_eta", "CleverHans 3's `eps`, in the iterated attacks alone"),
            ("utils.clip_eta", "CleverHans 4's `eps`, in the iterated attack alone"),
            ("utils.clip_eta", "CleverHans 4's `eps`, in the iterated attack alone"),
        ),
        {ANY: MADRY},
    ),
    "order": Choice(
        {
            "project_clip": "the perturbation is projected, then the sum clipped",
            "clip_project_clip": "the step is clipped, its perturbation projected, and the sum "
            "clipped again",
        },
        origins(
            (f"{NEIGHBOR}._apply_perturbations", "NSL clips once"),
            (f"{PGD_3}.generate", "CleverHans 3's step clips already"),
            (PGD, "CleverHans 4's step clips already"),
            (PGD, "CleverHans 4's step clips already"),
        ),
    ),
    "random_start": Choice(
        {
            "none": "the first step starts at the input",
            "uniform": "the first step starts at a uniformly random point of the ball",
            "cube": "the first step starts at a random point of the L-inf ball, whatever the norm",
            "biased_l1": "the first step starts at a random point of the ball, off-centre under L1",
        },
        origins(
            ("lib.utils.random_in_norm_ball", "NSL's `random_init`, off by default"),
            ("utils_tf.random_lp_vector", "CleverHans 3's `rand_init`, on in PGD and off in BIM"),
            ("utils.random_lp_vector", "CleverHans 4's `rand_init`, off by default in TensorFlow"),
            (PGD, "CleverHans 4's `rand_init`, on by default in PyTorch"),
        ),
        {ANY: MADRY},
    ),
    "random_radius": Choice(
        {
            None: "a random start has the ball's own radius, or without a ball the step's length",
            ANY: "a random start lies in a ball of radius {}",
        },
        origins(
            (f"{NEIGHBOR}.gen_neighbor", "NSL has no option of its own for it"),
            (f"{PGD_3}.parse_params", "CleverHans 3's `rand_init_eps`"),
            (PGD, "CleverHans 4's `rand_minmax`"),
            (PGD, "CleverHans 4's `rand_minmax`"),
        ),
    ),
    "clip_min": Choice(
        {None: "nothing is clipped from below", ANY: "values below {} are clipped to it"},
        origins(
            ("lib.adversarial_neighbor._apply_feature_constraints", "NSL's `clip_value_min`"),
            (FGM_3, "CleverHans 3's `clip_min`"),
            (FGM, "CleverHans 4's `clip_min`"),
            (FGM, "CleverHans 4's `clip_min`"),
        ),
    ),
    "clip_max": Choice(
        {None: "nothing is clipped from above", ANY: "values above {} are clipped to it"},
        origins(
            ("lib.adversarial_neighbor._apply_feature_constraints", "NSL's `clip_value_max`"),
            (FGM_3, "CleverHans 3's `clip_max`"),
            (FGM, "CleverHans 4's `clip_max`"),
            (FGM, "CleverHans 4's `clip_max`"),
        ),
    ),
    "one_sided_clip": Choice(
        {
            "allowed": "a range may have one bound alone",
            "refused": "a range with one bound alone is an error",
        },
        origins(
            (
                "lib.adversarial_neighbor._apply_feature_constraints",
                "NSL clips each side alone",
            ),
            (FGM_3, "CleverHans 3 asserts that there are both"),
            (FGM, "CleverHans 4 asserts that there are both"),
            (FGM, "CleverHans 4 asks for both"),
        ),
    ),
    "crossed_clip": Choice(
        {
            "refuse": "a lower bound above the upper one is an error",
            "max": "a lower bound above the upper one gives the upper one",
            "min": "a lower bound above the upper one gives the lower one",
        },
        origins(
            ("lib.adversarial_neighbor._apply_feature_constraints", "NSL takes the minimum last"),
            ("utils_tf.clip_by_value", "CleverHans 3 leaves it to `tf.clip_by_value`"),
            (FGM, "CleverHans 4 leaves it to `tf.clip_by_value`"),
            (FGM, "CleverHans 4 checks it first"),
        ),
    ),
}
