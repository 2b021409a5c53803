"""Known answers come back, noise is not decided: python -m pytest tests/test_questions.py"""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from isoflop.law.laws import LAWS
from isoflop.presets import preset
from isoflop.record import Record, Records
from isoflop.study.ablation import of_params
from isoflop.study.questions import QUESTIONS
from isoflop.study.questions.aspect import aspect, band
from isoflop.study.questions.batch import batch, critical_batch
from isoflop.study.questions.epochs import epochs
from isoflop.study.questions.heads import heads
from isoflop.study.questions.heads_fixed import heads_fixed
from isoflop.study.questions.rate import rate
from isoflop.study.questions.regime import regime
from isoflop.study.study import QuestionKind
from tests.questions import record, records, without_config

LAW = {"E": 1.2, "A": 90.0, "B": 90.0, "alpha": 0.5, "beta": 0.4}
BODY = 55_296


def test_the_table_knows_every_question() -> None:
    assert set(get_args(QuestionKind)) == set(QUESTIONS)


# regime


def grid(*, bend: float = 0.0, noise: float = 0.002) -> Records:
    """A law, whose losses lie above it by `bend` times the smallness of N below 3e4."""
    rng, runs = np.random.default_rng(0), []
    for width in (8, 12, 16, 24, 32, 48, 64):
        for tokens in (3e5, 9e5, 2.7e6, 8.1e6):
            made = record(1.0, d_model=width, tokens=round(tokens))
            N = made.params["compute"]
            loss = LAWS["chinchilla"](N=N, D=made.tokens, **LAW) + bend * max(0.0, np.log(3e4 / N)) ** 2
            runs.append(replace(made, loss=float(loss * np.exp(noise * rng.standard_normal()))))
    return records(runs)


def test_a_law_that_holds_everywhere_is_found_so() -> None:
    answer = regime(grid())
    assert answer.decided and "holds from the smallest size on" in answer.verdict
    assert answer.numbers["low"][0] < 0.4 / 0.9 < answer.numbers["high"][0]


def test_sizes_below_the_law_are_found() -> None:
    answer = regime(grid(bend=0.2, noise=2e-4))
    assert answer.decided and answer.numbers["start"] > 0
    assert "Scaling starts at N between" in answer.verdict or "Not within these runs" in answer.verdict


def test_noise_hides_the_start_of_scaling() -> None:
    answer = regime(grid(noise=0.03))
    assert not answer.decided and answer.verdict.startswith("Not decided")
    with pytest.raises(ValueError, match="fewer than three cut-offs of N"):
        regime(records([run for run in grid().runs if run.params["compute"] > 3e4]))


# rate


def sweep(shift: float, *, noise: float = 1e-4, seeds: int = 3, edge: bool = False) -> Records:
    """The best rate of each width moves by a factor width^-shift; wider is better."""
    rng, runs = np.random.default_rng(1), []
    for width, depth in ((16, 2), (64, 2), (128, 2), (16, 8)):
        best = (0.005 if not edge else 5.0) * (width / 16 * depth / 2) ** -shift
        for lr in (0.00125, 0.0025, 0.005, 0.01, 0.02):
            for seed in range(seeds):
                loss = 3 - 0.1 * np.log(width * depth) + 0.1 * np.log(lr / best) ** 2
                runs.append(
                    record(
                        float(loss + noise * rng.standard_normal()), d_model=width, num_layers=depth, lr=lr, seed=seed
                    )
                )
    return records(runs)


def test_a_rate_that_carries_over_is_found() -> None:
    answer = rate(sweep(0.0))
    assert answer.decided and "transfers: it costs" in answer.verdict and "wider is better there" in answer.verdict
    assert all(item["regret"] < 0.02 for item in answer.numbers["parametrizations"][0]["shapes"])
    assert "×8 width" in answer.verdict and "×4 depth" in answer.verdict


def test_a_rate_that_moves_is_found() -> None:
    answer = rate(sweep(0.5))
    assert "does not transfer" in answer.verdict
    regret = {
        (item["d_model"], item["num_layers"]): item["regret"]
        for item in answer.numbers["parametrizations"][0]["shapes"]
    }
    assert regret[64, 2] == pytest.approx(0.1 * np.log(2) ** 2, abs=0.01)


def test_a_rate_at_the_edge_is_not_decided() -> None:
    answer = rate(sweep(0.0, edge=True))
    assert not answer.decided and "is the last one tried" in answer.verdict
    assert rate(sweep(0.0, seeds=1, noise=0)).numbers["parametrizations"][0]["shapes"][0]["low"] is None


def test_a_transfer_needs_shapes_and_rates() -> None:
    runs = sweep(0.0, seeds=1).runs
    with pytest.raises(ValueError, match="only d_model 16 was trained"):
        rate(records([run for run in runs if run.id.startswith("d16-l2")]))
    with pytest.raises(ValueError, match="has 2 rates"):
        rate(records([run for run in runs if run.config["optim"]["lr"] < 0.004]))
    with pytest.raises(ValueError, match="was not trained at every rate of the base"):
        rate(
            records([run for run in runs if (run.config["optim"]["lr"], run.config["model"]["d_model"]) != (0.02, 64)])
        )
    with pytest.raises(ValueError, match="two runs have rate"):
        rate(records([*runs, runs[0]]))


# aspect


def shapes(noise: float, *, depths: tuple[int, ...] = (1, 2, 3, 6, 8, 12), seeds: int = 3) -> Records:
    """Loss 2·(1 + 0.01·ln(aspect/10)²): within 1 % of the best from 10/e to 10·e."""
    rng, runs = np.random.default_rng(2), []
    for depth in depths:
        model = of_params(preset("small", num_layers=depth), BODY)
        for seed in range(seeds):
            loss = 2 * (1 + 0.01 * np.log(model.d_model / depth / 10) ** 2) + noise * rng.standard_normal()
            for length in ({"tokens": 400_000}, {"budget": 2e11}):
                runs.append(
                    record(float(loss), d_model=model.d_model, num_layers=depth, d_ff=model.d_ff, seed=seed, **length)
                )
    return records(runs)


def test_the_band_of_shapes_comes_back() -> None:
    answer = aspect(shapes(1e-3))
    assert answer.decided
    for row in answer.numbers["cells"]:
        assert row["low"]["value"] == pytest.approx(10 / np.e, rel=0.2)
        assert row["high"]["value"] == pytest.approx(10 * np.e, rel=0.2)
        assert row["low"]["low"] <= row["low"]["value"] <= row["low"]["high"]
    assert "400,000" not in answer.verdict and "4e+05 tokens" in answer.verdict and "2e+11 FLOPs" in answer.verdict


def test_noise_wider_than_the_band_is_not_decided() -> None:
    answer = aspect(shapes(0.05))
    assert not answer.decided and answer.verdict.startswith("Not decided") and "no shape is for sure" in answer.verdict


def test_a_band_may_reach_the_last_shape() -> None:
    ratios = np.array([1.0, 2.0, 4.0])
    low, high = band(ratios, np.array([[2.0, 2.01, 2.1], [2.0, 2.0, 2.0], [2.5, 2.0, 2.5]]))
    assert low.tolist() == [0.0, 0.0, pytest.approx(2 * 0.5**0.04)]
    assert high.tolist() == [pytest.approx(2 * 2 ** (0.01 / 0.09)), np.inf, pytest.approx(2 * 2**0.04)]
    flat = [replace(run, loss=2.0 + 1e-5 * i) for i, run in enumerate(shapes(0.0).runs)]
    assert "every shape from" in aspect(records(flat)).verdict


def test_shapes_of_other_sizes_are_refused() -> None:
    larger = [record(2.0, d_model=64, num_layers=2, seed=seed) for seed in range(3)]
    small = [run for run in shapes(1e-3).runs if run.budget is None]
    with pytest.raises(ValueError, match="shape and size cannot be told apart"):
        aspect(records([*small, *(replace(run, tokens=400_000.0) for run in larger)]))
    with pytest.raises(ValueError, match=r"3 shapes at 4e\+05 tokens show no band"):
        aspect(records([run for run in shapes(1e-3, depths=(1, 2, 3)).runs if run.budget is None]))


# heads


def head_counts(effect: float, noise: float, *, seeds: int = 5) -> Records:
    """One head is worse by `effect`; all others are alike."""
    rng = np.random.default_rng(3)
    shared = 0.02 * rng.standard_normal(seeds)
    return records(
        [
            record(
                float(1.8 + effect * (count == 1) + shared[seed] + noise * rng.standard_normal()),
                num_heads=count,
                budget=2e11,
                seed=seed,
            )
            for count in (1, 2, 4, 8)
            for seed in range(seeds)
        ]
    )


def test_a_number_of_heads_that_is_worse_is_found() -> None:
    answer = heads(head_counts(0.03, 0.003))
    assert answer.decided and "1 by 0.0" in answer.verdict and "cannot be told from it" in answer.verdict
    row = answer.numbers["cells"][0]
    assert row["over"][0] == pytest.approx(0.03, abs=0.006) and row["seed_noise"] > 2 * row["noise"]


def test_heads_that_differ_less_than_noise_are_not_decided() -> None:
    answer = heads(head_counts(0.0, 0.01))
    assert not answer.decided and answer.verdict.startswith("Not decided at d_model 48 and 2e+11 FLOPs")


def test_runs_that_differ_in_something_else_are_refused() -> None:
    made = head_counts(0.03, 0.003)
    other = [*made.runs[:-1], record(1.8, num_heads=8, budget=2e11, seed=4, lr=0.01)]
    with pytest.raises(ValueError, match=r"lr is 0.01 in run d48-l2-\w+ and 0.005 in"):
        heads(records(other))
    with pytest.raises(
        ValueError, match=r"does not say its model\.d_model; the question needs runs that isoflop trained"
    ):
        heads(without_config(made))


# heads-fixed


def two_sweeps(apart: float, noise: float, *, budgets: tuple[float, ...] = (5e10, 1e11, 2e11, 4e11)) -> Records:
    """N* ∝ C^0.5 with two heads, and C^(0.5 − apart) with heads of four."""
    rng, runs = np.random.default_rng(4), []
    for C in budgets:
        for arm in (0, 1):
            best = 2.3e4 * (C / 1e11) ** (0.5 - apart * arm)
            for width in (16, 20, 24, 32, 40, 48, 56, 64):
                made = record(1.0, d_model=width, num_heads=width // 4 if arm else 2, budget=C)
                loss = 1.8 + 0.1 * np.log(made.params["compute"] / best) ** 2 + noise * rng.standard_normal()
                runs.append(replace(made, loss=float(loss)))
    return records(runs)


def test_an_exponent_that_moves_with_the_heads_is_found() -> None:
    answer = heads_fixed(two_sweeps(0.2, 1e-3))
    assert answer.decided and answer.verdict.startswith("No, not if the exponent matters")
    moved = answer.numbers["difference"]
    assert moved["low"] < 0.2 < moved["high"] and moved["value"] == pytest.approx(0.2, abs=0.02)
    assert answer.numbers["same_runs"] == 0


def test_an_exponent_that_stays_is_found_and_noise_is_not_decided() -> None:
    same = heads_fixed(two_sweeps(0.0, 1e-3))
    assert same.decided and same.verdict.startswith("Yes, at these sizes")
    noisy = heads_fixed(two_sweeps(0.0, 0.03))
    assert not noisy.decided and noisy.verdict.startswith("Not decided")


def test_two_sweeps_are_needed() -> None:
    with pytest.raises(ValueError, match="only 2 budgets of made up have 4 widths both"):
        heads_fixed(two_sweeps(0.0, 1e-3, budgets=(1e11, 2e11)))
    with pytest.raises(ValueError, match="all runs of made up have 2 heads"):
        heads_fixed(records([run for run in two_sweeps(0.0, 1e-3).runs if run.config["model"]["num_heads"] == 2]))
    with pytest.raises(ValueError, match="made up has no budgets"):
        heads_fixed(head_lengths())
    edge = two_sweeps(0.0, 1e-3)
    steep = [replace(run, loss=2 + 0.1 * float(np.log(run.params["compute"] / 1e3)) ** 2) for run in edge.runs]
    assert "lie at the edge of the sampled widths" in heads_fixed(records(steep)).verdict


def head_lengths() -> Records:
    """Runs without budgets."""
    return records([record(2.0, num_heads=count) for count in (1, 2)])


# batch


def batches(critical: float, noise: float, *, sizes: tuple[int, ...] = (4, 8, 16, 32, 64)) -> Records:
    """Loss 1.5 + (2e5/E_min)^0.3 where a batch B needs E = E_min·(1 + B/critical), and the wrong rate costs 0.05."""
    rng, runs = np.random.default_rng(5), []
    for size in sizes:
        for tokens in (163_840, 327_680, 655_360, 1_310_720, 2_621_440):
            for lr in (0.0025, 0.005, 0.01):
                least = tokens / (1 + size * 64 / critical)
                loss = 1.5 + (2e5 / least) ** 0.3 + 0.05 * (lr != 0.005) + noise * rng.standard_normal()
                runs.append(record(float(loss), batch_size=size, tokens=tokens, lr=lr, d_model=16))
    return records(runs)


def test_the_critical_batch_comes_back() -> None:
    answer = batch(batches(2000.0, 1e-3))
    assert answer.decided and "The critical batch is" in answer.verdict
    for row in answer.numbers["targets"]:
        assert row["critical"] == pytest.approx(2000, rel=0.2) and row["known"]
        assert row["low"] < 2100 and row["high"] > 1900
    at = answer.numbers["targets"][0]["tokens"]
    assert critical_batch(answer, at) == pytest.approx(2000, rel=0.2)
    with pytest.raises(ValueError, match="more than ×4 outside what was measured"):
        critical_batch(answer, 20 * at)


def test_noise_leaves_the_critical_batch_open() -> None:
    answer = batch(batches(2000.0, 0.15))
    assert not answer.decided and answer.verdict.startswith("Not decided")
    with pytest.raises(ValueError, match="fewer than three losses have a known critical batch"):
        critical_batch(answer, 1e6)


def test_batches_that_reach_no_common_loss_are_refused() -> None:
    with pytest.raises(ValueError, match="3 batch sizes of made up cannot contradict"):
        batch(batches(2000.0, 0.0, sizes=(4, 8, 16)))
    far = [replace(run, loss=run.loss + run.config["train"]["batch_size"]) for run in batches(2000.0, 0.0).runs]
    with pytest.raises(ValueError, match="no loss is reached by every batch"):
        batch(records(far))


def test_a_rate_at_the_edge_leaves_the_batch_open() -> None:
    runs = [run for run in batches(2000.0, 1e-3).runs if run.config["optim"]["lr"] < 0.01]
    answer = batch(records(runs))
    assert not answer.decided and "are best at the first or last rate tried" in answer.verdict
    assert answer.numbers["edges"] == [256.0, 512.0, 1024.0, 2048.0, 4096.0]


def test_a_logged_noise_scale_is_told() -> None:
    runs = [replace(run, measured={**run.measured, "noise_scale": 1800.0}) for run in batches(2000.0, 1e-3).runs]
    assert "the gradient noise scale there is 1800 tokens" in batch(records(runs)).verdict


# epochs


def corpus(turn: float | None, noise: float = 1e-3) -> Records:
    """The data-constrained law with R*_D = 10, and a loss that rises beyond `turn` epochs."""
    truth = {**LAW, "R_D": 10.0, "R_N": 10.0}
    rng, runs = np.random.default_rng(6), []
    for pool in (100_000, 400_000):
        for width in (16, 24, 40):
            for tokens in (50_000, 100_000, 200_000, 400_000, 800_000, 1_600_000, 3_200_000):
                made = record(1.0, d_model=width, tokens=tokens, train_tokens=pool)
                N, U = made.params["compute"], float(min(tokens, pool))
                loss = float(LAWS["data_constrained"](N=N, D=float(tokens), U=U, **truth))
                loss += 0.2 * max(0.0, np.log(tokens / pool / turn)) if turn else 0.0
                runs.append(replace(made, loss=loss + noise * rng.standard_normal()))
    return records(runs)


def test_the_turn_and_the_worth_of_a_repeated_token_come_back() -> None:
    answer = epochs(corpus(8.0), replicates=10)
    assert answer.decided
    turned = {(row["pool"], row["N"]): row["epochs"][row["at"]] for row in answer.numbers["curves"] if row["turned"]}
    assert len(turned) == 3 and set(turned.values()) == {8.0}
    assert "turns after 8 epochs (between 4 and 16) at N = 1.23e+04, 2.3e+04, 5.38e+04" in answer.verdict
    law = answer.numbers["law"]
    assert law["status"] == "identified" and law["value"] == pytest.approx(10, rel=0.1) and law["low"] < law["high"]
    best = {item["pool"]: item for item in answer.numbers["best"]}
    assert best[100_000]["epochs"] == 8.0 and best[400_000]["open"][0] == "epochs"


def test_a_loss_that_never_turns_is_told() -> None:
    answer = epochs(corpus_of_one_size(None))
    assert not answer.decided and "turns nowhere within these runs" in answer.verdict
    assert answer.numbers["law"]["status"] == "refused"


def test_one_pass_is_no_answer() -> None:
    fresh = [run for run in corpus(None).runs if run.tokens <= 200_000 and run.config["data"]["train_tokens"] > 2e5]
    with pytest.raises(ValueError, match="no corpus of made up was repeated at three lengths"):
        epochs(records(fresh))
    assert "What a repeated token is worth is not decided: " in epochs(corpus_of_one_size(8.0)).verdict


def corpus_of_one_size(turn: float | None) -> Records:
    """One size alone, to which no law can be fitted."""
    return records([run for run in corpus(turn).runs if run.config["model"]["d_model"] == 16])


def test_seeds_say_what_a_rise_is() -> None:
    twice: list[Record] = []
    for run in corpus_of_one_size(8.0).runs:
        again = record(
            run.loss + 1e-4,
            d_model=run.config["model"]["d_model"],
            tokens=round(run.tokens),
            train_tokens=run.config["data"]["train_tokens"],
            seed=1,
        )
        twice += [run, again]
    assert [row["turned"] for row in epochs(records(twice)).numbers["curves"]] == [True, False]
