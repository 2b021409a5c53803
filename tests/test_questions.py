"""Known answers come back, noise is not decided: python -m pytest tests/test_questions.py"""

import importlib
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from isoflop.law.laws import LAWS
from isoflop.law.transfer import Verdict
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


def sweep(
    shift: float, *, noise: float = 1e-4, seeds: int = 3, edge: bool = False, kinds: tuple = ("standard",)
) -> Records:
    """The best rate of each shape moves by a factor width^-shift under standard, and not at all otherwise."""
    rng, runs = np.random.default_rng(1), []
    for kind in kinds:
        for width, depth in ((16, 2), (64, 2), (128, 2), (16, 8)):
            moved = shift if kind == "standard" else 0.0
            best = (0.005 if not edge else 5.0) * (width / 16 * depth / 2) ** -moved
            for lr in (0.00125, 0.0025, 0.005, 0.01, 0.02):
                for seed in range(seeds):
                    loss = 3 - 0.1 * np.log(width * depth) + 0.1 * np.log(lr / best) ** 2
                    made: dict = {
                        "d_model": width,
                        "num_layers": depth,
                        "lr": lr,
                        "seed": seed,
                        "parametrization": kind,
                    }
                    runs.append(record(float(loss + noise * rng.standard_normal()), **made))
    return records(runs)


def checked(kind: str, *passed: bool | None) -> list[Verdict]:
    """A coordinate check along width, and along depth where there is a second answer."""
    slopes: dict = {True: 0.05, False: 0.4, None: None}
    return [
        Verdict(parametrization=kind, axis=axis, slope=slopes[one], control=1.2, passed=one)  # type: ignore[arg-type]
        for axis, one in zip(("width", "depth"), passed, strict=False)
    ]


def test_a_rate_that_carries_over_is_found() -> None:
    answer = rate(sweep(0.0))
    assert answer.decided and answer.verdict.startswith(
        "standard: transfers: at most 0.000 nats lost, and wider is better"
    )
    base, *larger = answer.numbers["parametrizations"][0]["sizes"]
    assert base["between"] is None and all(size["regret"] < 0.02 and size["between"][0] == 0 for size in larger)
    assert "×4 width" in answer.verdict and "×8 width" in answer.verdict and "×4 depth" in answer.verdict


def test_a_rate_that_moves_is_found() -> None:
    answer = rate(sweep(0.5))
    assert answer.decided and "does not transfer" in answer.verdict
    sizes = answer.numbers["parametrizations"][0]["sizes"]
    regret = {(size["d_model"], size["num_layers"]): size["regret"] for size in sizes}
    assert regret[64, 2] == pytest.approx(0.1 * np.log(2) ** 2, abs=0.01)
    assert "at least" in rate(sweep(1.2)).verdict


def test_a_parametrization_is_read_only_where_its_coordinate_check_passes() -> None:
    made = sweep(0.5, kinds=("standard", "mup", "completep"))
    checks = [*checked("mup", True), *checked("completep", True, False)]
    answer = rate(made, checks)
    assert not answer.decided and "standard: does not transfer" in answer.verdict
    assert "mup: transfers" in answer.verdict and "its coordinate check passes" in answer.verdict
    assert "completep: refused, for its coordinate check does not pass" in answer.verdict
    assert "depth +0.40 (control +1.20)" in answer.verdict
    assert [row["gate"] for row in answer.numbers["parametrizations"]] == [True, True, False]
    assert rate(made, [*checked("mup", True), *checked("completep", True, True)]).decided
    assert "mup: refused, for its coordinate check was not made" in rate(made).verdict
    assert "shows nothing, for the control does not grow" in rate(made, checked("mup", None)).verdict


def test_a_rate_at_the_edge_is_not_decided() -> None:
    answer = rate(sweep(0.0, edge=True))
    assert not answer.decided and "the base model is best at the last rate tried" in answer.verdict
    once = rate(sweep(0.0, seeds=1, noise=0))
    assert once.numbers["parametrizations"][0]["sizes"][1]["between"] is None
    assert "one seed of each, so noise is not known" in once.verdict


def test_a_transfer_needs_runs_of_ours() -> None:
    with pytest.raises(ValueError, match=r"does not say its optim\.lr; the question needs runs that isoflop trained"):
        rate(without_config(sweep(0.0)))


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
    given = critical_batch(answer, at)
    assert given.value == pytest.approx(2000, rel=0.2) and given.low < given.value < given.high
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


def test_a_best_rate_at_the_edge_by_noise_alone_is_not_open() -> None:
    flat = [run for run in batches(2000.0, 1e-3).runs if run.config["optim"]["lr"] > 0.003]
    near = [replace(run, loss=run.loss - 0.04 * (run.config["optim"]["lr"] > 0.005)) for run in flat]
    more = [record(run.loss, **_again(run, 0.02)) for run in flat if run.config["optim"]["lr"] > 0.005]  # type: ignore[arg-type]
    assert batch(records([*near, *more])).numbers["edges"] == []


def _again(run: Record, lr: float) -> dict:
    return {"batch_size": run.config["train"]["batch_size"], "tokens": int(run.tokens), "lr": lr, "d_model": 16}


def test_a_logged_noise_scale_is_told_along_the_run() -> None:
    runs = []
    for run in batches(2000.0, 1e-3).runs:
        last = 1700.0 + run.config["train"]["batch_size"]
        along = [300.0, 900.0, 1300.0, last if run.config["optim"]["lr"] == 0.005 else 9000.0]
        runs.append(replace(run, measured={**run.measured, "noise_scales": along}))
    answer = batch(records(runs))
    assert "ends at 1716 tokens (1704 to 1764 over 5 batches)" in answer.verdict
    assert answer.measured[-1].endswith("of runs of 2.62e+06 tokens: 300, 900, 1300, 1716 tokens")
    unlogged = [replace(run, measured={**run.measured, "noise_scales": None}) for run in runs]
    assert batch(records(unlogged)).numbers["noise_scale"] is None


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
    assert "for 4e+05 unique tokens are not within these runs" in answer.verdict


def test_the_best_size_and_epochs_have_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("isoflop.study.questions.epochs")  # the package's own name is the function
    monkeypatch.setattr(module, "_law", lambda *_: {"status": "refused", "reason": "not asked for", "runs": 0})
    made = corpus(8.0)
    wide = [
        replace(
            run,
            loss=run.loss + 0.2 * (run.config["model"]["d_model"] == 40) - 0.1 * (run.config["model"]["d_model"] == 24),
        )
        for run in made.runs
    ]
    best = epochs(records(wide), replicates=10).numbers["best"][0]
    low, high = best["N_between"]
    assert low < best["N"] < high and best["open"] == []
    low, high = best["epochs_between"]
    assert low <= 4.0 < 16.0 <= high and best["half"] == pytest.approx(0.03 / np.sqrt(2))
    flat = [
        replace(run, loss=run.loss - 0.005 * (run.config["model"]["d_model"] == 24)) for run in corpus_of_sizes_alike()
    ]
    assert "no end within these runs" in epochs(records(flat), replicates=10).verdict


def corpus_of_sizes_alike() -> list[Record]:
    """Loss by epochs alone."""
    runs = [run for run in corpus(8.0).runs if run.config["data"]["train_tokens"] == 100_000]
    like = {run.tokens: run.loss for run in runs if run.config["model"]["d_model"] == 24}
    return [replace(run, loss=like[run.tokens]) for run in runs]


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
