from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components import effect_training
from components.effect_config import STRUCTURES, EffectConfig
from components.effect_input import Scaling, checked, scaled, split
from components.effect_training import Trainer, fit, load_net
from promolift.errors import InputError

SMALL = EffectConfig(trunk=(32,), head=(16,), learning_rate=3e-3, epochs=60, patience=15, batch_rows=64, l2_head=1e-3)
Array = npt.NDArray[Any]


def _experiment(rows: int = 1_500, arms: int = 2, seed: int = 3) -> tuple[Array, Array, Array, Array]:
    """x, arm, outcome and the true effects [n, arms - 1] of a randomised experiment with noise 0.5."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, 4))
    arm = generator.integers(0, arms, rows)
    effects = np.column_stack([k + (2.0 if k % 2 else -2.0) * x[:, k % 4] for k in range(1, arms)])
    outcome = x[:, 0] + np.column_stack([np.zeros(rows), effects])[np.arange(rows), arm] + 0.5 * generator.normal(size=rows)
    return x, arm, outcome, effects


@pytest.mark.slow
@pytest.mark.parametrize("structure", STRUCTURES)
def test_every_structure_beats_the_mean_effect_for_one_and_for_two_arms(structure: str):
    for arms in (2, 3):
        x, arm, outcome, effects = _experiment(arms=arms)
        model = fit(x, arm, 100 * outcome + 7_000, replace(SMALL, structure=structure), seed=1)
        predicted = model.effects(x) / 100
        assert predicted.shape == (len(x), arms - 1)
        error = np.sqrt(((predicted - effects) ** 2).mean(axis=0))
        assert (error < 0.5 * effects.std(axis=0)).all(), (structure, arms, error)
        assert np.allclose(predicted.mean(axis=0), effects.mean(axis=0), atol=0.25)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_predictions_in_a_used_trainer_and_another_seed_others():
    x, arm, outcome, _ = _experiment(rows=300)
    config = replace(SMALL, structure="dragonnet", dropout=0.2, epochs=5)
    trainer = Trainer(config, 4, 2)
    first = trainer.fit(x, arm, outcome, seed=1)
    before = first.means(x)
    other = trainer.fit(x, arm, outcome, seed=2).means(x)
    again = trainer.fit(x, arm, outcome, seed=1).means(x)
    assert np.array_equal(first.means(x), before)
    assert np.array_equal(again, before)
    assert np.array_equal(fit(x, arm, outcome, config, seed=1).means(x), before)
    assert not np.allclose(other, before)


@pytest.mark.slow
def test_averaged_weights_are_the_moving_average_of_each_epoch():
    x, arm, outcome, _ = _experiment(rows=300)
    trainer = Trainer(replace(SMALL, averaged=0.75), 4, 2)
    data = trainer._tensors(scaled(x, outcome, "continuous"), x, arm, outcome)
    trainer._restart(1)
    mean = trainer.net.get_weights()
    for number in range(3):
        trainer.epochs[False](data, np.arange(300), np.array([1, number], np.int32))
        mean = [0.75 * old + 0.25 * new for old, new in zip(mean, trainer.net.get_weights(), strict=True)]
    for expected, found in zip(mean, trainer.judged.get_weights(), strict=True):
        assert np.allclose(expected, found, atol=1e-6)
    model = trainer.fit(x, arm, outcome, seed=1)
    assert not np.allclose(model.net.get_weights()[0], trainer.net.get_weights()[0])
    assert np.array_equal(model.net.get_weights()[0], trainer.judged.get_weights()[0])


@pytest.mark.slow
def test_ziln_means_are_near_the_truth_in_any_unit():
    generator = np.random.default_rng(5)
    x = generator.normal(size=(6_000, 3))
    arm = generator.integers(0, 2, 6_000)
    chance = np.column_stack([np.full(6_000, 0.2), 0.2 + 0.6 / (1 + np.exp(-3 * x[:, 0]))])
    true = 5_000 * chance * np.exp(0.3 * x[:, 1] + 0.5**2 / 2)[:, None]
    paid = generator.random(6_000) < chance[np.arange(6_000), arm]
    amount = np.where(paid, 5_000 * np.exp(0.3 * x[:, 1] + 0.5 * generator.normal(size=6_000)), 0.0)
    model = fit(x, arm, amount, replace(SMALL, outcome="ziln"), seed=1)
    means = model.means(x)
    for column in (0, 1):  # within three standard errors of what the arm's own rows say
        given = amount[arm == column]
        assert abs(means[:, column].mean() - true[:, column].mean()) < 3 * given.std() / np.sqrt(len(given))
    effect, lift = model.effects(x)[:, 0], true[:, 1] - true[:, 0]
    assert np.sqrt(np.mean((effect - lift) ** 2)) < 0.5 * lift.std()


@pytest.mark.slow
def test_binary_means_are_probabilities_and_the_propensity_head_finds_confounding():
    x, arm, _, _ = _experiment(rows=3_000)
    generator = np.random.default_rng(9)
    true = 1 / (1 + np.exp(-x[:, 1]))
    arm = (generator.random(3_000) < true).astype(int)
    outcome = (generator.random(3_000) < 0.3 + 0.3 * arm).astype(float)
    model = fit(x, arm, outcome, replace(SMALL, structure="dragonnet", outcome="binary"), seed=1)
    means, propensity = model.means(x), model.propensities(x)
    assert ((means > 0) & (means < 1)).all()
    assert np.allclose(model.effects(x).mean(), 0.3, atol=0.06)
    assert np.allclose(propensity.sum(axis=1), 1.0)
    assert np.corrcoef(propensity[:, 1], true)[0, 1] > 0.9


@pytest.mark.slow
def test_ziln_loss_and_mean_by_hand():
    net = load_net()
    raw = np.array([[[0.0, 1.0, np.log(np.e - 1)]]], np.float32)  # probability 1/2, location 1, spread softplus(.) = 1
    assert float(net.row_means("ziln", raw)[0, 0]) == pytest.approx(0.5 * np.exp(1.5), rel=1e-5)
    positive = float(net.row_loss("ziln", raw[0], np.array([np.e**3], np.float32))[0])
    assert positive == pytest.approx(np.log(2) + (3 - 1) ** 2 / 2 + 0.5 * np.log(2 * np.pi), rel=1e-5)
    assert float(net.row_loss("ziln", raw[0], np.zeros(1, np.float32))[0]) == pytest.approx(np.log(2), rel=1e-5)
    assert np.isfinite(net.row_means("ziln", np.full((1, 1, 3), 1e6, np.float32))).all()


@pytest.mark.slow
def test_euen_starts_without_an_effect_and_tarnet_ignores_the_propensity_head():
    net = load_net().EffectNet(replace(SMALL, structure="euen"), 4, 3)
    net.start(1)
    raw, logits = net(np.ones((2, 4), np.float32))
    assert raw.shape == (2, 3, 1)
    assert np.array_equal(raw[:, 0], raw[:, 2])
    assert not np.any(logits)


@given(st.lists(st.integers(5, 40), min_size=2, max_size=5), st.floats(0.01, 0.99), st.integers(0, 99))
def test_a_split_keeps_every_arm_on_both_sides_and_every_row_once(counts: Sequence[int], share: float, seed: int):
    arm = np.repeat(np.arange(len(counts)), counts)
    train, validation = split(arm, share, seed)
    assert np.array_equal(np.sort(np.concatenate([train, validation])), np.arange(len(arm)))
    assert set(arm[train]) == set(arm[validation]) == set(range(len(counts)))


def test_scaling_leaves_constant_columns_and_centres_the_others():
    x = np.array([[1.0, 7.0], [3.0, 7.0]])
    scaling = scaled(x, np.array([10.0, 14.0]), "continuous")
    assert scaling.inputs(x).tolist() == [[-1.0, 0.0], [1.0, 0.0]]
    assert (scaling.shift, scaling.unit) == (12.0, 2.0)
    assert scaled(x, np.array([0.0, 8.0]), "ziln").unit == pytest.approx(8.0)


ARM, OUTCOME = np.repeat([0, 1], 10), np.arange(20) % 2
X = np.random.default_rng(0).normal(size=(20, 2))
BAD = {
    "arm has only the value [0]": (X, 0 * ARM, OUTCOME, "continuous"),
    "without gaps": (X, 2 * ARM, OUTCOME, "continuous"),
    "Arm 1 has 1 rows": (X, np.arange(20) // 19, OUTCOME, "continuous"),
    "x has 1 NaN or infinite cells, the first in row 2, column 1": (
        np.where(np.isclose(X, X[2, 1]), np.nan, X),
        ARM,
        OUTCOME,
        "continuous",
    ),
    "outcome has 1 NaN or infinite values, the first in row 19": (X, ARM, np.where(np.arange(20) == 19, np.nan, OUTCOME), "continuous"),
    "give one arm and outcome per row": (X, ARM[:-1], OUTCOME, "continuous"),
    "outcome is 3 in all 20 rows": (X, ARM, 0 * OUTCOME + 3, "continuous"),
    "not 0 or 1, the first 2 in row 1": (X, ARM, 2 * OUTCOME, "binary"),
    "not 0 or more, the first -1 in row 1": (X, ARM, -OUTCOME, "ziln"),
    "must be a table": (X[:, 0], ARM, OUTCOME, "continuous"),
}


@pytest.mark.parametrize("sentence", BAD)
def test_bad_data_is_refused_with_the_place(sentence: str):
    with pytest.raises(InputError) as raised:
        checked(*BAD[sentence])
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("structure", "x"), ("outcome", "x"), ("trunk", ()), ("head", (0,)), ("dropout", 1.0), ("learning_rate", 0.0), ("epochs", 0),
     ("decay", 2.0), ("l2_head", -1.0), ("validation_share", 1.0)],
)  # fmt: skip
def test_a_configuration_that_cannot_be_used_is_refused(name: str, value: object):
    with pytest.raises(InputError, match=name):
        replace(SMALL, **{name: value})


def test_targeted_regularisation_of_a_long_tailed_amount_is_refused():
    with pytest.raises(InputError, match="targeted=False"):
        EffectConfig(structure="dragonnet", outcome="ziln")


def test_a_model_refuses_other_columns():
    scaling = Scaling(np.zeros(3), np.ones(3), 0.0, 1.0)
    with pytest.raises(InputError, match="2 columns but the model was trained on 3"):
        scaling.inputs(X)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1_024, 1_000])
def test_compiled_training_is_the_same_training(monkeypatch: pytest.MonkeyPatch, rows: int):
    """With a last batch that is whole, and with one that is not."""
    x, arm, outcome, _ = _experiment(rows=rows)
    config = replace(SMALL, structure="dragonnet", epochs=4)
    plain = fit(x, arm, outcome, config, seed=1)
    monkeypatch.setattr(effect_training, "LEAST_STEPS", 0)
    compiled = fit(x, arm, outcome, config, seed=1)
    np.testing.assert_allclose(compiled.history, plain.history, rtol=1e-4)
    np.testing.assert_allclose(compiled.means(x), plain.means(x), rtol=1e-2, atol=1e-2)
