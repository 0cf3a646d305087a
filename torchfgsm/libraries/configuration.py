"""One library's configuration: its options by its own names, and the recipe that they stand for."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from torchfgsm.core.presets import NSL_WORDS, NUMPY_ORDERS, Norm, known_norm
from torchfgsm.core.recipe import Recipe
from torchfgsm.core.weighting import Weighting

_PRESETS: Mapping[str, Callable[..., Recipe]] = MappingProxyType(
    {
        "nsl": Recipe.nsl,
        "cleverhans3": Recipe.cleverhans3,
        "cleverhans-tf2": Recipe.cleverhans_tf2,
        "cleverhans-torch": Recipe.cleverhans_torch,
    }
)
LIBRARIES = tuple(_PRESETS)
TITLES: Mapping[str, str] = MappingProxyType(
    {
        "nsl": "NSL 1.4.0",
        "cleverhans3": "CleverHans 3.1.0",
        "cleverhans-tf2": "CleverHans 4.0.0 (TensorFlow 2)",
        "cleverhans-torch": "CleverHans 4.0.0 (PyTorch)",
        "": "recipe",
    }
)
# The training loss's own options: of `nsl.make_adv_reg_config` and a Keras loss, and of
# `cleverhans.loss.CrossEntropy`. CleverHans 4 has no training loss.
_TRAINING: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"nsl": ("multiplier", "label_smoothing"), "cleverhans3": ("adv_coeff", "smoothing", "pass_y")}
)
# Each library calls the radius otherwise: under the recipe's name its step would stay a default.
_FIELDS = tuple(f.name for f in dataclasses.fields(Recipe) if f.name != "epsilon")
_NORM_OPTIONS: Mapping[str, Mapping[Norm, object]] = MappingProxyType(
    {"adv_grad_norm": NSL_WORDS, "ord": NUMPY_ORDERS, "norm": NUMPY_ORDERS}
)
# A word of another library or of this package -> what it is called in the others. NSL's single step
# has the length that CleverHans calls eps; a ball alone, pgd_epsilon, leaves its step at 0.001.
_MEANT: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "eps": ("adv_step_size",),
        "epsilon": ("adv_step_size", "eps"),
        "radius": ("adv_step_size", "eps"),
        "eps_iter": ("adv_step_size",),
        "step_size": ("adv_step_size", "eps_iter"),
        "alpha": ("adv_step_size", "eps_iter"),
        "adv_step_size": ("eps",),
        "pgd_epsilon": ("eps",),
        "nb_iter": ("pgd_iterations",),
        "steps": ("pgd_iterations", "nb_iter"),
        "pgd_iterations": ("nb_iter",),
        "ord": ("adv_grad_norm", "norm"),
        "adv_grad_norm": ("ord", "norm"),
        "clip_value_min": ("clip_min",),
        "clip_value_max": ("clip_max",),
        "rand_init": ("random_init",),
        "random_init": ("rand_init",),
        "rand_init_eps": ("rand_minmax",),
        "rand_minmax": ("rand_init_eps",),
        "adv_coeff": ("multiplier",),
        "multiplier": ("adv_coeff",),
        "smoothing": ("label_smoothing",),
        "label_smoothing": ("smoothing",),
    }
)
_ITERATED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        **_MEANT,
        "eps": ("pgd_epsilon",),
        "epsilon": ("pgd_epsilon", "eps"),
        "radius": ("pgd_epsilon", "eps"),
        "adv_step_size": ("eps_iter",),
    }
)
_COUNTS = ("pgd_iterations", "nb_iter", "iterations", "steps")
_PORTS = ("cleverhans-tf2", "cleverhans-torch")
# Names of which the nearest by spelling is another library.
_MEANT_LIBRARIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"cleverhans": LIBRARIES[1:], "cleverhans4": _PORTS, "cleverhans-4": _PORTS, "ch4": _PORTS}
)


def attack_options(library: str) -> dict[str, Any]:
    """Name -> default of a library's attack options; `inspect.Parameter.empty` for none."""
    return {n: p.default for n, p in inspect.signature(_PRESETS[library]).parameters.items()}


def training_options(library: str) -> tuple[str, ...]:
    """Names of the options of a library's training loss; none where it has no such loss."""
    return _TRAINING.get(library, ())


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What one library is told, and the choices that this comes to.

    Attributes:
        library: One of `LIBRARIES`, or "" for a recipe of its own.
        options: What was given, by the library's own names.
        recipe: How adversarial examples are made.
        weighting: Weights of the training loss; None: the library has no training loss.
        label_smoothing: Share of each label that is spread over all classes, in [0, 1], in both
            terms of the training loss.
    """

    library: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    recipe: Recipe
    weighting: Weighting | None = None
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))

    @property
    def title(self) -> str:
        """The library's name and version, for people."""
        return TITLES[self.library]

    @property
    def training_recipe(self) -> Recipe:
        """The recipe inside of the training loss.

        NSL attacks the model in the mode that it trains in, and BatchNorm statistics move.
        """
        if self.library == "nsl" and "model_mode" not in self.options:
            return dataclasses.replace(self.recipe, model_mode="keep_and_update")
        return self.recipe

    @classmethod
    def of(cls, library: str, options: Mapping[str, Any] | None = None) -> Configuration:
        """A library's configuration; what is not given is its default.

        Args:
            library: "nsl", "cleverhans3", "cleverhans-tf2" or "cleverhans-torch".
            options: The library's own options: those of `nsl.make_adv_reg_config` and
                `label_smoothing` of the Keras loss; CleverHans 3's attack parameters and
                `adv_coeff`, `smoothing` and `pass_y` of its `CrossEntropy`; CleverHans 4's
                arguments. Besides, any field of `Recipe` but `epsilon` for what lies outside of the
                library's configuration, such as `labels="given"` or `reduction="sum"`.

        Returns:
            The configuration.

        Raises:
            ValueError: An unknown library or option; the message names the nearest one. A value
                that the library refuses.
            TypeError: An option that the library requires is missing.
        """
        check_library(library)
        preset = _PRESETS[library]
        parameters, training = attack_options(library), training_options(library)
        own_names = {*parameters, *training}
        known = dict.fromkeys([*parameters, *training, *_FIELDS])
        words = _ITERATED if any(name in _COUNTS for name in options or {}) else _MEANT
        for name in options or {}:
            meant = [other for other in words.get(name, ()) if other in own_names]
            check_name(f"option of {library}", name, known, meant)
        given = {
            name: _in_own_words(name, value) if name in parameters else value
            for name, value in (options or {}).items()
        }
        missing = [
            name
            for name, default in parameters.items()
            if default is inspect.Parameter.empty and name not in given
        ]
        if missing:
            raise TypeError(f"{TITLES[library]} has no default for {', '.join(missing)}: give it")
        own = {name: given[name] for name in given if name in parameters}
        fields = {n: v for n, v in given.items() if n not in parameters and n not in training}
        try:
            recipe = dataclasses.replace(preset(**own), **fields)
        except NotImplementedError as error:
            raise ValueError(str(error)) from None
        return cls(library=library, options=given, **_training(library, given, recipe))


def _training(library: str, given: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """The fields of a configuration besides its library and options."""
    if library == "nsl":
        return {
            "recipe": recipe,
            "weighting": Weighting.from_nsl(given.get("multiplier", 0.2)),
            "label_smoothing": float(given.get("label_smoothing", 0.0)),
        }
    if library == "cleverhans3":
        if given.get("pass_y") and not recipe.targeted:
            recipe = dataclasses.replace(recipe, labels="given")
        return {
            "recipe": recipe,
            "weighting": Weighting.from_cleverhans(given.get("adv_coeff", 0.5)),
            "label_smoothing": float(given.get("smoothing", 0.0)),
        }
    return {"recipe": recipe}


def _in_own_words(name: str, value: Any) -> Any:
    """A norm as the library writes it, whichever word was given for it; all else as it is."""
    norm = known_norm(value) if name in _NORM_OPTIONS else None
    return value if norm is None else _NORM_OPTIONS[name][norm]


def check_library(name: object, what: str = "library", others: Sequence[str] = ()) -> None:
    """Refuses an unknown library; `others` are known besides.

    Raises:
        ValueError: The message names those that may be meant.
    """
    known = (*LIBRARIES, *others)
    check_name(what, name, known, _MEANT_LIBRARIES.get(str(name).lower(), ()))


def check_name(what: str, name: object, known: Iterable[str], meant: Sequence[str] = ()) -> None:
    """Refuses an unknown name.

    Args:
        what: What it is a name of.
        name: The name.
        known: All known ones.
        meant: Those that are meant by it; none: the nearest by spelling.

    Raises:
        ValueError: The message names what was probably meant.
    """
    names = list(known)
    if name in names:
        return
    close = meant or difflib.get_close_matches(str(name), names, n=1)
    hint = f"did you mean {_listed(close)}?" if close else f"known are {', '.join(names)}"
    raise ValueError(f"unknown {what} {name!r}: {hint}")


def _listed(names: Sequence[str]) -> str:
    *first, last = map(repr, names)
    return f"{', '.join(first)} or {last}" if first else last
