"""Preference objectives against batch-1 autograd of their formulas."""

from types import SimpleNamespace

import pytest
import torch
from tiny_models import adapted, distance, random_rows, slow_gradient, slow_log_probs

from rose import keys
from rose.config.choices import Balance, Normalize, PreferenceLoss, Reference, Target
from rose.gradients.objectives import Loss, Objective, gradients, losses, places
from rose.gradients.per_example import PerExample

BETA, GAMMA = 0.1, 0.7


def pair_rows():
    return random_rows([9, 14, 21, 6, 12, 12])


def taken(model, objective, reference=None):
    with PerExample(model) as engine:
        return gradients(engine, pair_rows(), objective, reference).clone()


def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


FORMULAS = {
    Loss.dpo: lambda w, r, rw, rr: -torch.log(sigmoid(BETA * ((w.sum() - rw) - (r.sum() - rr)))),
    Loss.ipo: lambda w, r, rw, rr: ((w.sum() - rw) - (r.sum() - rr) - 1 / (2 * BETA)) ** 2,
    Loss.ipo_mean: lambda w, r, rw, rr: ((w.sum() - rw) / len(w) - (r.sum() - rr) / len(r) - 1 / (2 * BETA)) ** 2,
    Loss.simpo: lambda w, r, rw, rr: -torch.log(sigmoid(BETA * (w.mean() - r.mean()) - GAMMA)),
    Loss.contrast: lambda w, r, rw, rr: r.sum() - w.sum(),
}


@pytest.mark.parametrize("loss", FORMULAS)
@pytest.mark.usefixtures("double")
def test_pair_gradients_equal_a_batch_one_loop(loss):
    model, rows = adapted(), pair_rows()
    against = torch.linspace(-40, -20, 6, dtype=torch.float64)
    uses = loss in (Loss.dpo, Loss.ipo, Loss.ipo_mean)
    beta = None if loss is Loss.contrast else BETA
    objective = Objective(loss, beta, Reference.base if uses else None, gamma=GAMMA if loss is Loss.simpo else None)
    answers = [slow_log_probs(model, row) for row in rows]
    pair_losses = [FORMULAS[loss](*answers[i : i + 2], *against[i : i + 2]) for i in (0, 2, 4)]
    expected = torch.stack([slow_gradient(model, pair_loss) for pair_loss in pair_losses])
    assert distance(taken(model, objective, against if uses else None), expected) < 1e-12


@pytest.mark.usefixtures("double")
def test_pairs_never_cross_wires():
    model, rows = adapted(), pair_rows()
    objective = Objective(Loss.dpo, BETA)
    with PerExample(model) as engine:
        together = gradients(engine, rows, objective).clone()
        for i in range(3):
            alone = gradients(engine, rows[2 * i : 2 * i + 2], objective)
            assert distance(alone[0], together[i]) < 1e-12


@pytest.mark.usefixtures("double")
def test_a_dpo_gradient_is_a_positive_multiple_of_the_contrast():
    model = adapted()
    dpo = taken(model, Objective(Loss.dpo, BETA, Reference.base), torch.linspace(-40, -20, 6, dtype=torch.float64))
    contrast = taken(model, Objective(Loss.contrast))
    assert torch.cosine_similarity(dpo, contrast).min() > 1 - 1e-12


@pytest.mark.parametrize("loss", [Loss.sft, Loss.contrast, Loss.simpo])
@pytest.mark.parametrize(("balance", "segments"), [(Balance.tokens, None), (Balance.segments, 3)])
@pytest.mark.usefixtures("double")
def test_balanced_gradients_are_sums_of_unit_gradients(loss, balance, segments):
    model, rows = adapted(), pair_rows()

    def unit_sum(row):
        log_probs = slow_log_probs(model, row)
        count = len(log_probs)
        each_alone = segments is None or count <= segments
        cut = torch.tensor([i if each_alone else i * segments // count for i in range(count)])
        units = []
        for part in cut.unique():
            g = slow_gradient(model, -log_probs[cut == part].sum())
            units.append(g / g.norm())
        return sum(units) / (1 if loss is Loss.contrast else len(units))

    each = torch.stack([unit_sum(row) for row in rows])
    expected = each if loss is Loss.sft else each[0::2] - each[1::2]
    assert distance(taken(model, Objective(loss, balance=balance, segments=segments)), expected) < 1e-12


def test_parts_of_an_answer():
    mask = torch.tensor([[0, 1, 1, 0, 1, 1, 1], [0, 0, 0, 0, 0, 1, 1]], dtype=torch.bool)
    assert places(mask, None).tolist() == [[-1, 0, 1, -1, 2, 3, 4], [-1, -1, -1, -1, -1, 0, 1]]
    assert places(mask, 3).tolist() == [[-1, 0, 0, -1, 1, 1, 2], [-1, -1, -1, -1, -1, 0, 1]]
    assert places(mask, 1).tolist() == [[-1, 0, 0, -1, 0, 0, 0], [-1, -1, -1, -1, -1, 0, 0]]


def test_losses_by_hand():
    log_probs = torch.tensor([[-1.0, -2.0, 0.0], [-4.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert losses(Objective(Loss.sft), log_probs, mask).tolist() == [1.5, 4.0]
    assert losses(Objective(Loss.contrast), log_probs, mask).tolist() == [-1.0]
    against = torch.tensor([-3.0, -2.0])  # margin (−3 + 3) − (−4 + 2) = 2
    ipo = losses(Objective(Loss.ipo, 0.5, Reference.base), log_probs, mask, against)
    assert ipo.tolist() == [1.0]
    other = torch.tensor([-4.0, -2.0])  # log-ratios 1 of two tokens, −2 of one: margins 3 in sum, 2.5 in mean
    both = (losses(Objective(loss, 0.5, Reference.base), log_probs, mask, other) for loss in (Loss.ipo, Loss.ipo_mean))
    assert [value.tolist() for value in both] == [[4.0], [2.25]]
    dpo = losses(Objective(Loss.dpo, 0.5, Reference.base), log_probs, mask, against)
    assert dpo.item() == pytest.approx(0.31326168)  # log(1 + e⁻¹)
    simpo = losses(Objective(Loss.simpo, 2.0), log_probs, mask).item()
    assert simpo == pytest.approx(0.0067153, rel=1e-4)  # log(1 + e⁻⁵)
    simpo = losses(Objective(Loss.simpo, 2.0, gamma=4.0), log_probs, mask).item()
    assert simpo == pytest.approx(0.3132617, rel=1e-4)  # log(1 + e⁻¹)


def method(**changes):
    return SimpleNamespace(**({"target": Target.preference, "balance": Balance.none, "segments": 4} | changes))


def preference(**changes):
    values = {
        "loss": PreferenceLoss.dpo,
        "beta": 0.1,
        "gamma": GAMMA,
        "reference": Reference.base,
        "first_tokens": None,
    }
    return SimpleNamespace(**(values | {"normalize": Normalize.per_pair} | changes))


def test_keys_that_cancel_do_not_make_another_objective():
    for beta in (0.1, 0.5):
        for reference in Reference:
            assert keys.objective(method(), preference(beta=beta, reference=reference)) == Objective(Loss.contrast)
    assert keys.objective(method(), preference(loss=PreferenceLoss.contrast)) == Objective(Loss.contrast)
    for gamma in (0.0, 1.5):
        assert keys.objective(method(), preference(loss=PreferenceLoss.simpo, gamma=gamma)) == Objective(Loss.simpo)
        assert keys.objective(method(), preference(gamma=gamma)) == Objective(Loss.contrast)
    assert keys.objective(method(target=Target.chosen), preference()) == Objective(Loss.sft)


def test_keys_that_matter_are_kept():
    after = preference(normalize=Normalize.after_mean)
    assert keys.objective(method(), after) == Objective(Loss.dpo, 0.1, Reference.base)
    assert keys.objective(method(), preference(loss=PreferenceLoss.ipo)) == Objective(Loss.ipo, 0.1, Reference.base)
    simpo = preference(loss=PreferenceLoss.simpo, normalize=Normalize.none)
    assert keys.objective(method(), simpo) == Objective(Loss.simpo, 0.1, gamma=GAMMA)
    assert keys.objective(method(target=Target.chosen), preference(first_tokens=3)) == Objective(
        Loss.sft, first_tokens=3
    )
    none = preference(normalize=Normalize.none, reference=Reference.none)
    assert keys.objective(method(), none) == Objective(Loss.dpo, 0.1)
    assert keys.objective(method(balance=Balance.tokens), after) == Objective(Loss.contrast, balance=Balance.tokens)
    assert keys.objective(method(balance=Balance.segments), after).segments == 4
    assert keys.objective(method(balance=Balance.tokens), preference(loss=PreferenceLoss.ipo)).loss is Loss.contrast
    mean = preference(loss=PreferenceLoss.ipo_mean)  # its scalar can be negative, and stays unless balanced
    assert keys.objective(method(), mean) == Objective(Loss.ipo_mean, 0.1, Reference.base)
    assert keys.objective(method(balance=Balance.tokens), mean).loss is Loss.simpo
    assert keys.objective(method(target=Target.chosen, balance=Balance.tokens), after).balance is Balance.tokens
