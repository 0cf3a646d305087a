"""What a translation is made from, what it refuses to read, and the command."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from torchfgsm import cli, nsl
from torchfgsm.translation import TranslationError, translate


def test_configuration_objects_are_read() -> None:
    config = nsl.make_adv_reg_config(
        multiplier=0.25, adv_step_size=0.1, clip_value_min={"image": 0.0}, pgd_iterations=3
    )
    found = translate(config, to="cleverhans3")
    assert found.source.options == {
        "multiplier": 0.25, "adv_step_size": 0.1, "clip_value_min": 0.0, "pgd_iterations": 3,
    }  # fmt: skip
    assert found.target.options["adv_coeff"] == pytest.approx(0.2)
    alone = translate(config.adv_neighbor_config, to="cleverhans3")
    assert "adv_coeff" not in alone.target.options
    assert "CrossEntropy" not in alone.code


def test_the_originals_objects_are_read_by_their_names() -> None:
    neighbor = SimpleNamespace(
        feature_mask={"image": np.ones((1, 2))}, adv_step_size=np.float32(0.5),
        adv_grad_norm=SimpleNamespace(value="l2"), clip_value_min=[0.0],
        clip_value_max=torch.tensor(1.0), pgd_iterations=1, pgd_epsilon=None, random_init=False,
    )  # fmt: skip
    found = translate(
        SimpleNamespace(multiplier=0.2, adv_neighbor_config=neighbor), to="cleverhans-tf2"
    )
    assert found.source.options == {
        "multiplier": 0.2, "adv_step_size": 0.5, "clip_value_min": 0.0, "clip_value_max": 1.0,
    }  # fmt: skip
    assert "mask * (v - tf.stop_gradient(v))" in found.code


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"a": 0.0, "b": 1.0}, "entries for 2 features"),
        (np.zeros((1, 4)), "must be one number to be translated, got ndarray of shape"),
        ("low", "must be one number to be translated, got str"),
    ],
)
def test_bounds_that_are_not_one_number_are_refused(value: Any, says: str) -> None:
    with pytest.raises(TranslationError, match=says):
        translate(nsl.make_adv_reg_config(clip_value_min=value))


def test_a_plain_bound_of_nsl_is_told_to_be_looked_up_by_name() -> None:
    found = translate({"clip_value_min": 0.0}, to="cleverhans3")
    assert any("ignored" in line for line in found.conditions)
    by_name = nsl.make_adv_reg_config(clip_value_min={"image": 0.0})
    assert not any("ignored" in line for line in translate(by_name).conditions)


@pytest.mark.parametrize(
    ("options", "library"),
    [
        ({"adv_step_size": 0.1}, "nsl"),
        ({"feature_mask": 1.0}, "nsl"),
        ({"eps": 0.1, "ord": 2, "labels": "given"}, "cleverhans3"),
    ],
)
def test_the_library_is_known_by_the_names(options: dict[str, Any], library: str) -> None:
    assert translate(options, to="cleverhans-tf2").source.library == library


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"eps": 0.1}, "may be of 'cleverhans3', 'cleverhans-tf2', 'cleverhans-torch': name the"),
        ({"eps": 0.1, "adv_step_size": 0.1}, "no library has all of adv_step_size, eps"),
        ({"adv_stepsize": 0.1}, "did you mean 'adv_step_size'"),
    ],
)
def test_names_that_tell_no_library_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        translate(options)


def test_other_arguments_that_are_wrong() -> None:
    with pytest.raises(ValueError, match="did you mean 'cleverhans3'"):
        translate({"adv_step_size": 0.1}, to="cleverhans-3")
    with pytest.raises(ValueError, match="did you mean 'nsl'"):
        translate({}, source="nls")
    with pytest.raises(TranslationError, match=r"of NSL 1\.4\.0 already"):
        translate(nsl.make_adv_reg_config(), to="nsl")
    with pytest.raises(TypeError, match="expected a Configuration"):
        translate(3)
    with pytest.raises(ValueError, match="source is 'cleverhans3'"):
        translate(nsl.make_adv_reg_config(), source="cleverhans3")


def test_the_command_prints_call_steps_and_conditions(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["translate", "--from", "nsl", "--to", "cleverhans3"]
    assert cli.main([*arguments, "--set", "adv_step_size=0.2", "adv_grad_norm=infinity"]) == 0
    printed = capsys.readouterr().out
    assert "eps=0.2" in printed
    assert "Outside of the configuration:\n- Pass y" in printed
    assert "Equal provided that:\n- " in printed


def test_the_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["translate", "--from", "nsl", "--to", "cleverhans-tf2", "--json", "--set"]
    assert cli.main([*arguments, "adv_grad_norm=infinity", "clip_value_min=0"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["target"]["library"] == "cleverhans-tf2"
    assert found["target"]["options"]["clip_max"] == "inf"
    assert found["source"]["options"] == {"adv_grad_norm": "infinity", "clip_value_min": 0}
    assert found["code"].startswith("import numpy as np\n")
    assert set(found) == {"source", "target", "code", "outside", "conditions", "idle"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--from", "nls", "--to", "nsl"], "unknown library 'nls': did you mean 'nsl'?"),
        (["--from", "nsl", "--to", "cleverhans3", "--set", "x"], "--set"),
        (["--from", "nsl", "--to", "cleverhans3", "--set", "adv_stepsize=1"], "'adv_step_size'"),
        (["--from", "cleverhans-tf2", "--to", "nsl"], "has no default for eps, norm"),
        (["--from", "cleverhans3", "--to", "nsl", "--set", "clip_min=0"], "no configuration of"),
    ],
)
def test_the_command_refuses_in_one_line(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["translate", *arguments]) == 2
    printed = capsys.readouterr()
    assert says in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
