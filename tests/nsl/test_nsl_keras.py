"""`nsl.AdversarialRegularization` as the original's call() and perturb_on_batch, without TF."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy_models import Counting, batch, mlp, noisy

from torchfgsm import losses, nsl

CE = "sparse_categorical_crossentropy"


def logits_loss(**kwargs: Any) -> losses.SparseCategoricalCrossentropy:
    return losses.SparseCategoricalCrossentropy(from_logits=True, **kwargs)


def regularized(model: nn.Module, **config: Any) -> nsl.AdversarialRegularization:
    options = {k: config.pop(k) for k in ("sample_weight_key", "loss") if k in config}
    options = {"loss": logits_loss(), **options}
    adv_config = nsl.make_adv_reg_config(**config)
    return nsl.AdversarialRegularization(model, adv_config=adv_config, **options)


def inputs(**extra: Any) -> dict[str, Any]:
    x, y = batch()
    return {"x": x, "label": y, **extra}


# The loss of a batch


@pytest.mark.parametrize("word", ["infinity", "l2", "l1"])
def test_loss_and_parameter_gradients_are_those_of_the_formula(word: str) -> None:
    model, (x, y) = mlp(), batch()
    found = regularized(model, multiplier=0.3, adv_grad_norm=word, adv_step_size=0.5)(inputs())
    leaf = x.clone().requires_grad_()
    clean = nn.functional.cross_entropy(model(leaf), y)
    neighbors, _ = nsl.gen_adv_neighbor(
        leaf, clean, nsl.AdvNeighborConfig(adv_step_size=0.5, adv_grad_norm=word)
    )
    adversarial = nn.functional.cross_entropy(model(neighbors.detach()), y)
    torch.testing.assert_close(found.labeled_loss, clean)
    torch.testing.assert_close(found.scaled_adversarial_loss, 0.3 * adversarial)
    assert found.loss.item() == (found.labeled_loss + found.scaled_adversarial_loss).item()
    assert torch.equal(found.outputs, model(x))
    # The perturbation counts as constant: no gradient flows through it to the parameters.
    parameters = list(model.parameters())
    expected = torch.autograd.grad(clean + 0.3 * adversarial, parameters)
    torch.testing.assert_close(torch.autograd.grad(found.loss, parameters), expected)


def test_forward_works_where_grad_is_off() -> None:
    module = regularized(mlp(), adv_step_size=0.1)
    expected = module(inputs())
    with torch.no_grad():
        quiet = module(inputs())
    with torch.inference_mode():
        silent = module({name: value * 1 for name, value in inputs().items()})
    for found in (quiet, silent):
        assert not any(part.requires_grad for part in found)
        torch.testing.assert_close(tuple(found), tuple(part.detach() for part in expected))


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_sample_weights_are_averaged_over_the_batch(shape: tuple[int, ...]) -> None:
    model, (x, y) = mlp(), batch()
    w = torch.tensor([0.0, 1.0, 2.0, -1.0, 0.5, 3.0]).double()
    module = regularized(model, sample_weight_key="w", adv_step_size=0.1)
    found = module(inputs(w=w.reshape(shape)))
    per_example = nn.functional.cross_entropy(model(x), y, reduction="none")
    torch.testing.assert_close(found.labeled_loss, (w * per_example).sum() / 6)  # not / sum(w)


def test_reductions_of_losses() -> None:
    model, (x, y) = mlp(), batch()
    per_example = nn.functional.cross_entropy(model(x), y, reduction="none")
    total = regularized(model, loss=logits_loss(reduction="sum"))(inputs())
    torch.testing.assert_close(total.labeled_loss, per_example.sum())
    vector = regularized(model, loss=logits_loss(reduction="none"))(inputs())
    torch.testing.assert_close(vector.labeled_loss, per_example)
    assert vector.loss.shape == (6,)

    def own(y_true: Tensor, y_pred: Tensor) -> Tensor:
        return nn.functional.cross_entropy(y_pred, y_true, reduction="none")

    torch.testing.assert_close(
        regularized(model, loss=own)(inputs()).labeled_loss, per_example.mean()
    )


def test_losses_by_name_take_probabilities_as_in_keras() -> None:
    model, (x, y) = nn.Sequential(mlp(), nn.Softmax(dim=1)), batch()
    found = nsl.AdversarialRegularization(model, loss=CE)(inputs())
    torch.testing.assert_close(found.labeled_loss, nn.functional.nll_loss(model(x).log(), y))


class TwoHeads(nn.Module):
    output_names = ("first", "second")

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        output = self.body(x)
        return output, output[:, :1].tanh()


@pytest.mark.parametrize(
    "options",
    [
        {"loss": [logits_loss(), "mse"], "loss_weights": [0.5, 2.0]},
        {
            "loss": {"second": "mse", "first": logits_loss()},
            "loss_weights": {"first": 0.5, "second": 2.0},
        },
    ],
)
def test_several_outputs_are_weighted_in_clean_and_adversarial_loss(
    options: dict[str, Any],
) -> None:
    model, (x, y) = TwoHeads(), batch()
    config = nsl.make_adv_reg_config(multiplier=0.3, adv_step_size=0.2)
    module = nsl.AdversarialRegularization(model, ("y", "z"), adv_config=config, **options)
    z = torch.zeros(6, 1).double()
    found = module({"x": x, "y": y, "z": z})

    def loss(features: Tensor) -> Tensor:
        first, second = model(features)
        return 0.5 * nn.functional.cross_entropy(first, y) + 2 * nn.functional.mse_loss(second, z)

    torch.testing.assert_close(found.labeled_loss, loss(x))
    leaf = x.clone().requires_grad_()
    neighbors, _ = nsl.gen_adv_neighbor(leaf, loss(leaf), config.adv_neighbor_config)
    torch.testing.assert_close(found.scaled_adversarial_loss, 0.3 * loss(neighbors.detach()))
    assert len(found.outputs) == 2
    with pytest.raises(ValueError, match="2 outputs and 1 labels"):
        nsl.AdversarialRegularization(model, ("y",), loss="mse")({"x": x, "y": y})


# Which passes run, in which mode


def test_training_pass_updates_batchnorm_once_per_forward() -> None:
    for iterations in (1, 3):
        model, (x, y) = noisy(), batch(torch.float32)
        module = regularized(model, pgd_iterations=iterations)
        module.train()
        module({"x": x, "label": y})
        assert (
            dict(model.named_buffers())["1.num_batches_tracked"] == 1 + iterations
        )  # clean, PGD 2..k, adversarial


def test_statistics_are_updated_clean_first_then_adversarial() -> None:
    seen: list[Tensor] = []
    model, (x, y) = noisy(), batch(torch.float32)
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    regularized(model, adv_step_size=0.5)({"x": x, "label": y})
    assert torch.equal(seen[0], x)
    torch.testing.assert_close((seen[1] - x).norm(dim=1), torch.full((6,), 0.5))


def test_the_attack_follows_the_clean_pass_with_its_dropout() -> None:
    dropout = nn.Dropout(0.5)
    dropped: list[Tensor] = []
    dropout.register_forward_hook(lambda m, i, o: dropped.append(o == 0))
    seen: list[Tensor] = []
    dropout.register_forward_pre_hook(lambda m, i: seen.append(i[0].detach().clone()))
    model, (x, y) = nn.Sequential(dropout, mlp()), batch()
    regularized(model, adv_grad_norm="infinity", adv_step_size=0.1)({"x": x, "label": y})
    assert len(seen) == 2
    assert torch.equal((seen[1] == x), dropped[0])  # what the clean pass dropped did not move


def test_perturb_on_batch_runs_in_eval_mode() -> None:
    model = Counting(mlp())
    model.train()
    regularized(model, pgd_iterations=3).perturb_on_batch(inputs())
    assert model.calls == [False] * 3
    assert model.training


# perturb_on_batch


def test_perturb_on_batch_keeps_order_labels_and_weights() -> None:
    x, y = batch()
    given = {"w": np.ones((6, 1)), "label": y.numpy(), "x": x.numpy()}
    module = regularized(mlp(), sample_weight_key="w", adv_step_size=0.25)
    found = module.perturb_on_batch(given)
    assert list(found) == ["w", "label", "x"]
    assert all(isinstance(value, Tensor) for value in found.values())
    assert torch.equal(found["label"], y)
    assert torch.equal(found["w"], torch.ones(6, 1).double())
    torch.testing.assert_close((found["x"] - x).norm(dim=1), torch.full((6,), 0.25).double())
    assert not found["x"].requires_grad


def test_perturb_on_batch_takes_fields_of_the_configuration() -> None:
    module = regularized(mlp(), adv_step_size=0.25)
    x, _ = batch()
    moved = module.perturb_on_batch(inputs(), adv_grad_norm="infinity", adv_step_size=0.5)["x"]
    torch.testing.assert_close((moved - x).abs(), torch.full_like(x, 0.5))
    same = module.perturb_on_batch(inputs(), adv_step_size=None, pgd_epsilon=None)["x"]
    assert torch.equal(same, module.perturb_on_batch(inputs())["x"])
    with pytest.raises(TypeError, match="epsilon"):
        module.perturb_on_batch(inputs(), epsilon=0.1)


def test_only_the_first_step_of_perturb_on_batch_is_weighted() -> None:
    w, (x, _) = torch.tensor([0.0, 1.0, -1.0, 2.0, 1.0, 1.0]).double(), batch()
    config: dict[str, Any] = {"adv_step_size": 0.1, "adv_grad_norm": "infinity"}
    module = regularized(mlp(), sample_weight_key="w", **config)
    plain = regularized(mlp(), **config).perturb_on_batch(inputs())["x"] - x
    once = module.perturb_on_batch(inputs(w=w))["x"] - x
    assert float(once[0].abs().max()) == 0.0  # weight 0 does not move
    torch.testing.assert_close(once[2], -plain[2])  # a negative weight turns the step round
    torch.testing.assert_close(once[3:], plain[3:])
    twice = module.perturb_on_batch(inputs(w=w), pgd_iterations=2)["x"] - x
    torch.testing.assert_close(twice[0].abs(), torch.full((4,), 0.1).double())


def test_every_step_of_a_training_loss_is_weighted() -> None:
    w = torch.tensor([0.0, 1.0, 1.0, 1.0, 1.0, 1.0]).double()
    seen: list[Tensor] = []
    model = mlp()
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    module = regularized(model, sample_weight_key="w", pgd_iterations=3, adv_step_size=0.1)
    module(inputs(w=w))
    assert len(seen) == 4
    assert torch.equal(seen[3][0], inputs()["x"][0])
    assert not torch.equal(seen[3][1], inputs()["x"][1])


def test_float_features_outside_of_the_model_stay() -> None:
    class OnlyA(nn.Module):
        def forward(self, features: dict[str, Tensor]) -> Tensor:
            output: Tensor = torch.cat([features["a"], -features["a"]], dim=1)
            return output

    x, _ = batch()
    given = {"a": x[:, :1], "b": x[:, 1:], "label": torch.zeros(6).long()}
    found = regularized(OnlyA(), adv_step_size=0.5).perturb_on_batch(given)
    assert torch.equal(found["b"], x[:, 1:])
    torch.testing.assert_close(found["a"], x[:, :1] - 0.5)


# How the base model is called


def test_models_with_input_names_are_called_in_that_order() -> None:
    class Named(nn.Module):
        input_names = ("b", "a")

        def __init__(self) -> None:
            super().__init__()
            self.seen: list[tuple[int, int]] = []

        def forward(self, b: Tensor, a: Tensor) -> Tensor:
            self.seen.append((b.shape[1], a.shape[1]))
            return torch.cat([a, b], dim=1)

    model, (x, y) = Named(), batch()
    regularized(model)({"a": x[:, :1], "b": x[:, 1:], "label": y})
    assert model.seen == [(3, 1)] * 2
    with pytest.raises(ValueError, match=r"features \['b'\] are missing from \['a', 'c'\]"):
        regularized(model)({"a": x, "c": x, "label": y})
    model.input_names = ("unknown",)  # type: ignore[assignment]
    with pytest.raises(TypeError, match="argument"):
        regularized(model)({"a": x, "label": y})  # one input: called on the lone feature


def test_other_models_get_the_tensor_or_the_dict() -> None:
    seen: list[Any] = []

    class Spy(nn.Module):
        def forward(self, features: Any) -> Tensor:
            seen.append(features)
            x = features if isinstance(features, Tensor) else features["x"]
            return x[:, :3] * 2

    x, y = batch()
    regularized(Spy())({"x": x, "label": y})
    assert all(isinstance(entry, Tensor) for entry in seen)
    seen.clear()
    regularized(Spy())({"x": x, "extra": y, "label": y})
    assert [list(entry) for entry in seen] == [["x", "extra"]] * 2
    seen.clear()
    module = nsl.AdversarialRegularization(
        Spy(), base_with_labels_in_features=True, loss=logits_loss()
    )
    module({"x": x, "label": y})
    assert [list(entry) for entry in seen] == [["x", "label"]] * 2
    assert not torch.equal(seen[1]["x"], x)  # the adversarial features, beside the labels


# What the original does too


def test_elements_of_an_ignored_class_count_in_the_divisor() -> None:
    x, y = batch()
    y[::2] = -1
    model = mlp()
    loss = logits_loss(ignore_class=-1)
    found = regularized(model, loss=loss)({"x": x, "label": y})
    right = nn.functional.cross_entropy(model(x), y, ignore_index=-1, reduction="sum") / len(y)
    torch.testing.assert_close(found.labeled_loss, right)
    # By itself the loss divides by what counts, as Keras' does, and so does the function.
    alone = nn.functional.cross_entropy(model(x), y, ignore_index=-1)
    torch.testing.assert_close(loss(y, model(x)), alone)
    still = nsl.make_adv_reg_config(adv_step_size=0.0)
    torch.testing.assert_close(nsl.adversarial_loss(x, y, model, loss, adv_config=still), alone)


def test_labels_without_the_last_dimension_fit_objects_and_not_names() -> None:
    x, y = batch()
    y = (y > 0).double()
    model = nn.Sequential(mlp(), nn.Linear(3, 1).double(), nn.Sigmoid())
    flat, column = {"x": x, "label": y}, {"x": x, "label": y[:, None]}
    for loss in (losses.BinaryCrossentropy(), "MeanSquaredError", losses.Huber()):
        module = regularized(model, loss=loss)
        torch.testing.assert_close(module(flat).loss, module(column).loss)
    for name in ("binary_crossentropy", "mse", "huber"):
        with pytest.raises(ValueError, match="one shape"):
            regularized(model, loss=name)(flat)


def test_where_nothing_moves_a_warning_names_the_features() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(20, 3)

        def forward(self, ids: Tensor) -> Tensor:
            found: Tensor = self.table(ids).mean(1)
            return found

    module = regularized(Words(), multiplier=1.0)
    given = {"ids": torch.ones(6, 5, dtype=torch.int64), "label": batch()[1]}
    with pytest.warns(UserWarning, match="'ids': 'torch.int64'.*split the embedding off"):
        found = module(given)
    torch.testing.assert_close(found.loss, 2 * found.labeled_loss)
    with pytest.warns(UserWarning, match="Cannot perturb features"):
        assert torch.equal(module.perturb_on_batch(given)["ids"], given["ids"])


@pytest.mark.parametrize("name", ["0", "anything"])
def test_one_feature_reaches_a_plain_model_as_a_tensor(name: str) -> None:
    (x, y), model = batch(), mlp()
    config = nsl.make_adv_reg_config(adv_step_size=0.1)
    found = nsl.adversarial_loss({name: x}, y, model, logits_loss(), adv_config=config)
    wanted = nsl.adversarial_loss(x, y, model, logits_loss(), adv_config=config)
    assert torch.equal(found, wanted)


def test_the_outputs_of_a_converted_dict_meet_the_labels_by_name() -> None:
    class Converted(nn.Module):
        """What a converted model says of itself: outputs as a dict, in their own order."""

        input_names = ("x",)
        output_names = ("b", "a")
        annotation = SimpleNamespace(structure="dict")

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"b": x.mean(1, keepdim=True), "a": x.sum(1, keepdim=True)}

    x, _ = batch()
    given = {"x": x, "first": x[:, :1], "second": x[:, 1:2]}
    module = nsl.AdversarialRegularization(
        Converted(),
        label_keys=["first", "second"],
        adv_config=nsl.make_adv_reg_config(multiplier=0.0),
        loss={"b": "mae", "a": "mse"},
        loss_weights={"b": 10.0, "a": 1.0},
    )
    outputs = Converted()(x)
    wanted = (outputs["a"] - x[:, :1]).square().mean()
    wanted = wanted + 10 * (outputs["b"] - x[:, 1:2]).abs().mean()
    torch.testing.assert_close(module(given).labeled_loss, wanted)
