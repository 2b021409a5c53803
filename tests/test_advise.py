"""python -m pytest tests/test_advise.py"""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from isoflop.law.advise import DECAY, FAR, REPEATS, SPAN, advise, trunk_cost
from isoflop.law.fit import Fit, Parameter, fit
from isoflop.law.laws import LAWS, PUBLISHED, optimum
from isoflop.law.simulate import isoflop_design, simulate

TRUE = PUBLISHED["besiroglu2024"]
PILOT = np.array([6e18, 1e19, 3e19])


def pilot(noise: float = 0.01, *, seed: int = 0, trunks: bool = False) -> Fit:
    """The true constants as if fitted, with a pilot's runs of known noise."""
    N, D = isoflop_design(TRUE.law, TRUE.parameters, PILOT, sizes=4, span=4.0)
    groups = None
    if trunks:
        N = np.repeat(np.geomspace(5e7, 4e8, 4), 3)
        D = np.tile([5e9, 1e10, 2e10], 4)
        groups = [f"trunk {n:.0f}" for n in N]
    rng = np.random.default_rng(seed)
    records = simulate(TRUE.law, TRUE.parameters, N=N, D=D, noise=noise, rng=rng, groups=groups)
    known = {name: Parameter(value, None, None, "identified") for name, value in TRUE.parameters.items()}
    return Fit(TRUE.law, known, 0.0, records)


def test_the_runs_keep_to_the_allowance_the_span_and_the_repeats() -> None:
    told = advise(pilot(), 5e21, noise=0.01)
    assert told.spent == pytest.approx(sum(run.flops for run in told.runs)) and told.spent <= 5e21
    assert told.spent > 0.9 * 5e21
    assert max(Counter((run.params, run.tokens) for run in told.runs).values()) <= REPEATS
    for run in told.runs:
        C = 6 * run.params * run.tokens
        best = float(optimum(LAWS[TRUE.law].terms(TRUE.parameters), C).N)
        assert 1 / SPAN - 1e-9 <= run.params / best <= SPAN + 1e-9
        assert PILOT[0] * (1 - 1e-9) <= C <= 5e21 / 2
        assert run.flops == pytest.approx(C) and run.group is None


def test_the_first_run_is_far_and_on_the_optimal_ray() -> None:
    told = advise(pilot(), 5e21, noise=0.01)
    far = told.runs[0]
    assert far.flops == FAR * 5e21 > 10 * PILOT[-1]
    assert far.params == pytest.approx(float(optimum(LAWS[TRUE.law].terms(TRUE.parameters), far.flops).N))
    assert "contradict" in far.why and told.far_sd > told.noise
    assert told.notes == ()
    near = advise(pilot(), 5e19, noise=0.01)
    assert "larger allowance" in near.notes[0]


def test_the_note_is_of_the_run_that_lies_farthest_out() -> None:
    known = pilot()
    largest = float(known.records.C.max())
    told = advise(known, 4 * largest)
    farthest = max(run.flops for run in told.runs) / largest
    assert told.runs[0].flops < farthest * largest < 3 * largest
    assert f"the farthest of these runs takes {farthest:.2g} times the FLOPs of the largest run" in told.notes[0]
    assert not any("farthest" in note for note in advise(known, 100 * largest).notes)


def test_both_uncertainties_shrink_and_both_targets_are_served() -> None:
    told = advise(pilot(), 5e21, noise=0.01)
    assert told.loss_sd[1] < 0.5 * told.loss_sd[0] and told.size_sd[1] < 0.5 * told.size_sd[0]
    assert "optimal size" in {run.why for run in told.runs[1:]} <= {"loss ahead", "loss on the way", "optimal size"}
    assert told.target == 10 * FAR * 5e21
    assert advise(pilot(), 5e21, noise=0.02).loss_sd[1] > told.loss_sd[1]
    assert len(advise(pilot(), 5e21, noise=0.01, most=5).runs) == 5


def test_no_run_goes_where_no_run_has_been() -> None:
    known = pilot().records
    told = advise(pilot(), 5e21, noise=0.01, target=1e24)
    assert told.notes == ()
    for run in told.runs:
        assert run.params > 0.99 * known.N.min() and run.tokens > 0.99 * known.D.min()
        assert run.loss < 1.01 * known.L.max()
        if run.flops <= known.C.max():
            assert 0.99 * known.M.min() < run.tokens / run.params < 1.01 * known.M.max()
    high = advise(pilot(), 5e21, noise=0.01, smallest=1e20, target=1e24)
    assert min(run.flops for run in high.runs) == pytest.approx(1e20)


def test_smaller_runs_are_advised_where_they_are_wished_and_that_is_said() -> None:
    told = advise(pilot(), 5e21, noise=0.01, smallest=6e17, target=1e24)
    assert min(run.flops for run in told.runs) < 1e18
    assert any("rest" in note and "down to 6e+17" in note for note in told.notes)
    # the lever is longer, so more is known afterwards
    assert told.size_sd[1] < 0.8 * advise(pilot(), 5e21, noise=0.01, smallest=6e18, target=1e24).size_sd[1]


def test_the_expected_uncertainty_is_that_of_refits() -> None:
    """Refits of simulated sweeps scatter as the linear theory says (no advice in it: the sweep is fixed)."""
    N, D = isoflop_design(TRUE.law, TRUE.parameters, np.geomspace(1e18, 1e21, 6), sizes=5, span=6.0)
    fits = [
        fit(simulate(TRUE.law, TRUE.parameters, N=N, D=D, noise=0.004, rng=np.random.default_rng(seed)))
        for seed in range(30)
    ]
    ln_size = np.log([float(f.optimum(1e22).N) for f in fits])
    known = replace(pilot(), records=fits[0].records)
    expected = advise(known, 5e18, target=1e22, noise=0.004, most=1).size_sd[0]
    assert ln_size.std() == pytest.approx(expected, rel=0.3)


def test_branches_of_a_trunk_cost_only_what_it_lacks() -> None:
    told = advise(pilot(trunks=True), 1e20, noise=0.01)
    branches = [run for run in told.runs if run.group is not None]
    assert branches
    first = branches[0]
    stable = max(0.0, (1 - DECAY) * first.tokens - (1 - DECAY) * 2e10)
    assert first.flops == pytest.approx(6 * first.params * (stable + DECAY * first.tokens))
    assert first.flops < 6 * first.params * first.tokens
    assert {run.params for run in branches} <= set(pilot(trunks=True).records.N)


def test_the_cost_of_a_trunk() -> None:
    assert trunk_cost(np.array([3.0, 7.0, 10.0]), 0.2) == pytest.approx(0.600)
    assert trunk_cost(np.array([5.0]), 0.2) == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"allowance": 0.0}, "flops=0 must be a positive, finite number"),
        ({"target": -1.0}, "target=-1 must be a positive, finite number"),
        (
            {"noise": 0.0},
            "noise=0 is the standard deviation of ln loss between equal runs; give a number from 1e-06 to 1",
        ),
        ({"noise": 1e300}, r"noise=1e\+300 is the standard deviation"),
        ({"target": 1e-300}, "target=1e-300 is of no run"),
        ({"target": 1e15}, r"target=1e\+15 lies below all runs of .*, whose least took 6e\+18 FLOPs"),
        ({"smallest": float("nan")}, "smallest=nan must be a positive, finite number"),
        ({"target": float("inf")}, "target=inf must be a positive, finite number"),
        (
            {"allowance": 1e19},
            r"flops=1e\+19 is too little: .* less than the smallest of .*, 6e\+18; give 3e\+19 or more$",
        ),
        ({"smallest": 1e20}, r"less than --smallest 1e\+20; give 5e\+20 or more, or a lower --smallest"),
        ({"smallest": 2.5001e19}, r"give 1\.26e\+20 or more"),
        ({"most": 0}, "most=0 must be a positive, finite number"),
        ({"allowance": 1e30}, r"flops=1e\+30 is .* times what all runs of .* took"),
    ],
)
def test_what_cannot_be_advised(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        advise(pilot(), **{"allowance": 1e20, **options})


@pytest.mark.parametrize("law", ["coupled", "symmetric", "kaplan", "over_training"])
def test_other_laws_of_n_and_d_are_advised_too(law: str) -> None:
    records = pilot(0.003).records
    told = advise(fit(records, law=law), 5e21, noise=0.01)
    assert len(told.runs) > 5 and told.loss_sd[1] < told.loss_sd[0] and told.size_sd[1] < told.size_sd[0]


def test_a_law_of_one_variable_has_no_optimal_size() -> None:
    with pytest.raises(ValueError, match="nothing of how a budget is best"):
        advise(fit(pilot().records, law="power_C"), 5e21)
