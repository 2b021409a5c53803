"""python -m pytest tests/test_information.py"""

from dataclasses import replace

import numpy as np
import pytest

from isoflop.law.advise import advise
from isoflop.law.fit import fit
from isoflop.law.information import Knowledge, residual_noise, trunk_share
from isoflop.law.laws import LAWS, optimum
from tests.test_advise import pilot


@pytest.mark.parametrize("law", ["chinchilla", "coupled", "kaplan", "over_training"])
def test_gradients_are_those_of_the_law_itself(law: str) -> None:
    made = fit(pilot().records, law=law)
    known, step = Knowledge(made, 0.01, 0.0), 1e-5
    N, D, form = np.array([1e8, 3e9]), np.array([2e9, 5e10]), LAWS[law]
    j, size = known.gradients(N, D, [None, None]), known.size_gradient(1e21)
    for i, name in enumerate(form.parameters):
        up, down = ({**known.values, name: known.values[name] * np.exp(sign * step)} for sign in (1, -1))
        units = form.units(known.scale, known.values)
        # a level's unit depends on its exponent, which a step of that exponent must not move
        at = [{k: v * float(units.get(k, 1.0)) for k, v in one.items()} for one in (up, down)]
        if name in ("alpha", "beta", "eta"):
            continue
        losses = [np.log(np.asarray(form.loss(one, N=N, D=D))) for one in at]
        assert j[:, i] == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-5, abs=1e-9)
        sizes = [np.log(float(optimum(form.balance(one), 1e21).N)) for one in at]
        assert size[i] == pytest.approx((sizes[0] - sizes[1]) / (2 * step), rel=1e-5, abs=1e-9)


def test_a_run_takes_away_what_its_gain_says() -> None:
    known = Knowledge(pilot(), 0.01, 0.0)
    goal = known.size_gradient(1e21)
    j = known.gradients(np.array([1e9]), np.array([2e10]), [None])
    gain, before = known.gains(goal[None], j, np.array([0.01]))[0, 0], known.sd(goal)
    known.add(j[0], 0.01)
    assert known.sd(goal) ** 2 == pytest.approx(before**2 * (1 - gain))


def test_noise_is_that_of_the_residuals() -> None:
    many = [residual_noise(pilot(0.01, seed=seed)) * np.sqrt(7 / 12) for seed in range(60)]
    assert np.sqrt(np.mean(np.square(many))) == pytest.approx(0.01, rel=0.1)
    assert residual_noise(pilot(0.0)) == 5e-4


def test_what_trunks_share_is_measured() -> None:
    assert trunk_share(pilot()) == 0.0
    alone = pilot(0.001, trunks=True)
    assert trunk_share(alone) < 0.7
    shifted = [
        replace(run, loss=(run.loss or 0) * (1 + 0.02 * (i // 3 % 2))) for i, run in enumerate(alone.records.runs)
    ]
    together = replace(alone, records=replace(alone.records, runs=tuple(shifted)))
    assert trunk_share(together) > 0.9
    assert any("share" in note for note in advise(together, 1e20).notes)
