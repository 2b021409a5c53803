"""python -m pytest tests/test_diagnose.py"""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from isoflop.cli.app import main
from isoflop.law.diagnose import CHECKS, MATTERS, diagnose
from isoflop.law.subject import Diagnosis
from isoflop.record import Record, Records
from isoflop.sources import read

SHARED = Path(os.environ.get("ISOFLOP_DATA", Path(__file__).parents[2] / "shared" / "data"))
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the public tables lie beside the repository, not in it")


def simulate(noise: float = 0.002, *, bend: float = 0.0, **fields) -> Records:
    """48 runs of a made-up law; `bend` adds what the law does not know, along ln D."""
    rng = np.random.default_rng(0)
    runs = []
    for i, N in enumerate(np.geomspace(1e7, 1e9, 6)):
        for j, D in enumerate(np.geomspace(1e8, 1e11, 8)):
            loss = (2 + 400 * N**-0.35 + 900 * D**-0.35) * np.exp(rng.normal() * noise)
            loss *= 1 + bend * (np.log(N / 1e8) ** 2 - 3)
            runs.append(Record(id=f"{i}-{j}", params={"given": N}, tokens=D, flops=6 * N * D, loss=loss, **fields))
    return Records(tuple(runs), source="simulated", convention="given")


def said(found: Diagnosis, check: str) -> str:
    return " | ".join(f"{finding.level}: {finding.sentence}" for finding in found.findings if finding.check == check)


def changed(records: Records, rows, **fields) -> Records:
    return replace(
        records, runs=tuple(replace(run, **fields) if i in rows else run for i, run in enumerate(records.runs))
    )


def test_each_question_is_told_while_it_is_asked() -> None:
    heard: list[str] = []
    diagnose(simulate(), tell=heard.append)
    assert heard == ["the fit", *CHECKS]


def test_a_good_table_is_called_good() -> None:
    found = diagnose(simulate(measured={"is_final": True}))
    assert {finding.check for finding in found.findings} <= set(CHECKS)
    for check in ("identified", "outlying", "influence", "trends", "conventions", "schedules"):
        assert said(found, check).startswith("good"), said(found, check)
    assert "moves" not in said(found, "repeats")


def test_runs_that_lie_off_are_named_and_weighed() -> None:
    records = simulate()
    off = {3: 1.3, 11: 1.2, 40: 0.8}
    runs = tuple(replace(run, loss=run.loss * off.get(i, 1.0)) for i, run in enumerate(records.runs))
    found = diagnose(replace(records, runs=runs))
    assert said(found, "outlying").startswith("warning: 3 of 48 runs")
    for i in off:
        assert records.runs[i].id in said(found, "outlying") and records.runs[i].id in said(found, "influence")


def test_a_run_that_moves_the_answer_less_than_its_error_is_no_warning() -> None:
    few = simulate(0.01)
    few = few.take(np.arange(len(few)) % 3 == 0)
    finding = next(f for f in diagnose(few).findings if f.check == "influence")
    assert max(map(abs, finding.numbers["most"].values())) > MATTERS and finding.level == "good"


def test_a_flat_valley_is_told() -> None:
    records = simulate(0.03)
    small = records.take(records.N < 1e8)
    found = diagnose(small)
    assert said(found, "identified").startswith("warning") and "flat valley" in said(found, "identified")
    assert "flat valley" in next(f for f in found.findings if f.check == "identified").numbers["status"].values()


def test_what_the_law_does_not_know_shows_in_the_residuals() -> None:
    assert "bend along N" in said(diagnose(simulate(bend=0.01)), "trends")


def test_an_early_regime_of_other_rules_is_found() -> None:
    records = simulate(0.001)
    runs = tuple(replace(run, loss=run.loss * (1.6 if run.params["given"] < 2e7 else 1)) for run in records.runs)
    assert "warning: from N = 2.5e+07 on a agrees with all later" in said(
        diagnose(replace(records, runs=runs)), "regime"
    )


def test_two_counts_of_n_are_suspected() -> None:
    records = simulate()
    runs = tuple(replace(run, flops=run.flops * (1.3 if i % 2 else 1)) for i, run in enumerate(records.runs))
    assert "in two groups of 24 and 24 runs" in said(diagnose(replace(records, runs=runs)), "conventions")
    runs = tuple(replace(run, flops=run.flops * run.params["given"] ** -0.05) for run in records.runs)
    assert "changes steadily with N" in said(diagnose(replace(records, runs=runs)), "conventions")


def test_repeated_tokens_are_told() -> None:
    assert "48 of 48 runs saw their tokens over 4 times" in said(diagnose(simulate(unique_tokens=1e7)), "repeats")
    records = simulate()
    assert "loss rises with D at the same N" in said(diagnose(changed(records, {7}, loss=6.0)), "repeats")


def test_schedules_that_had_not_ended_are_told() -> None:
    records = changed(simulate(measured={"is_final": True}), range(5), measured={"is_final": False})
    assert "5 of 48 losses were read before" in said(diagnose(records), "schedules")
    assert "up to 48 rows share a trunk" in said(diagnose(simulate(group="a")), "schedules")
    assert "does not say" in said(diagnose(simulate()), "schedules")


def test_a_law_of_one_variable_is_judged_by_its_loss() -> None:
    found = diagnose(simulate(), law="power_C")
    assert next(f for f in found.findings if f.check == "influence").numbers["of"] == "L"


def test_the_command(tmp_path: Path, capsys) -> None:
    rows = [f"{run.params['given']},{run.tokens},{run.loss},1" for run in simulate().runs]
    (tmp_path / "t.csv").write_text("params,tokens,loss,is_final\n" + "\n".join(rows))
    assert main(["diagnose", str(tmp_path / "t.csv")]) == 0
    assert "✓ identified: all 5 parameters" in (said := capsys.readouterr().out)
    assert "rows are counted from 1, without the line of names" in said
    assert main(["diagnose", str(tmp_path / "t.csv"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["runs"] == 48 and set(printed["parameters"]) == {"E", "A", "B", "alpha", "beta"}
    assert main(["diagnose", str(tmp_path / "t.csv"), "--params-count", "body"]) == 2


@needs_shared
def test_the_five_runs_that_the_refit_of_chinchilla_left_out_are_named() -> None:
    found = diagnose(read(SHARED / "epoch_chinchilla.csv"))
    numbers = next(f for f in found.findings if f.check == "influence").numbers
    assert set(numbers["worst"]) == {f"row {i}" for i in (1, 2, 3, 4, 5)}
    assert numbers["whole"] == pytest.approx(0.565, abs=1e-3)
    assert numbers["without_worst"]["a"] == pytest.approx(0.36717 / (0.34731 + 0.36717), abs=1e-4)


@needs_shared
@pytest.mark.slow
def test_public_tables_betray_what_their_readme_says() -> None:
    assert "saw their tokens over 4 times" in said(diagnose(read(SHARED / "datablations.csv", series="c4")), "repeats")
    porian = diagnose(read(SHARED / "porian.csv", series="owt2/base/long/kaplan/standard/val"))
    assert "132 of 132 losses" in said(porian, "schedules") and "bend along C" in said(porian, "trends")


def test_one_n_and_d_with_several_losses_is_told() -> None:
    assert said(diagnose(simulate()), "rates") == ""
    records = simulate()
    worse = [replace(run, id=f"{run.id}x", loss=run.loss * 1.1) for run in records.runs[:5]]
    found = said(diagnose(replace(records, runs=(*records.runs, *worse))), "rates")
    assert "5 pairs of N and D have runs whose losses differ by more than 2 %, such as 0-" in found
    slow, fast = ([replace(run, measured={"lr": lr}) for run in runs] for lr, runs in ((1, worse), (2, records.runs)))
    found = said(diagnose(replace(records, runs=(*fast, *slow))), "rates")
    assert "5 of 53 runs share their N and D with a better one of another learning rate or batch" in found


def test_cut_offs_that_tell_nothing_are_not_called_good() -> None:
    records = simulate()
    few = records.take((records.N > 5e7) & (records.D > 5e9))
    assert said(diagnose(few), "regime").startswith("note: too few runs, or too few values of N")
    assert "note: without the smallest" in said(diagnose(simulate(0.05)), "regime")
    assert " ± " in said(diagnose(records), "regime")


def test_fit_and_diagnose_use_the_same_words(tmp_path: Path, capsys) -> None:
    rows = [f"{run.params['given']},{run.tokens},{run.loss}" for run in simulate(0.03).runs]
    (tmp_path / "t.csv").write_text("params,tokens,loss\n" + "\n".join(rows))
    assert main(["fit", str(tmp_path / "t.csv"), "--out", str(tmp_path / "f.json"), "--json"]) == 0
    fitted = json.loads(capsys.readouterr().out)["parameters"]
    assert main(["diagnose", str(tmp_path / "t.csv"), "--json"]) == 0
    assert {name: p["status"] for name, p in fitted.items()} == json.loads(capsys.readouterr().out)["findings"][0][
        "numbers"
    ]["status"]
