"""python -m pytest tests/test_cli_law.py"""

import json
from pathlib import Path

import pytest

from isoflop.cli.app import main
from isoflop.law.fit import Fit


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Noise-free runs of L = 2 + 400/N^0.35 + 900/D^0.35: four budgets, seven sizes each."""
    rows = ["params,tokens,loss,budget"]
    for budget in (1e17, 1e18, 1e19, 1e20):
        for factor in (0.25, 0.4, 0.63, 1.0, 1.6, 2.5, 4.0):
            n = factor * (budget / 6 / 10) ** 0.5
            d = budget / (6 * n)
            rows.append(f"{n!r},{d!r},{2 + 400 * n**-0.35 + 900 * d**-0.35!r},{budget!r}")
    (tmp_path / "runs.csv").write_text("\n".join(rows))
    return tmp_path / "runs.csv"


def test_fit_recovers_the_law_and_writes_it(table: Path, tmp_path: Path, capsys) -> None:
    assert main(["fit", str(table), "--bootstrap", "50", "--out", str(tmp_path / "fit.json"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["parameters"] == json.loads((tmp_path / "fit.json").read_text())["parameters"]
    assert len(Fit.read(tmp_path / "fit.json").records) == 28
    values = {name: p["value"] for name, p in printed["parameters"].items()}
    assert values == pytest.approx({"E": 2, "A": 400, "B": 900, "alpha": 0.35, "beta": 0.35}, rel=1e-4)
    assert (printed["law"], printed["runs"], printed["params_convention"]) == ("chinchilla", 28, "given")
    found = {answer["approach"]: answer["a"]["value"] for answer in printed["approaches"]}
    assert found["approach 3"] == pytest.approx(0.5, abs=1e-4) == found["variable projection"]
    assert found["approach 2"] == pytest.approx(0.5, abs=1e-3)
    assert printed["model_uncertainty"]["flops"] == pytest.approx(1e21)
    assert printed["model_uncertainty"]["a"] == [min(found.values()), max(found.values())]


def test_the_report_names_what_it_says(table: Path, tmp_path: Path, capsys) -> None:
    assert main(["fit", str(table), "--bootstrap", "50", "--out", str(tmp_path / "fit.json")]) == 0
    out = capsys.readouterr().out
    assert "28 runs" in out and "identified" in out and "approach 2           a = 0.50" in out
    assert "N* at C = 1e+21 FLOPs, ten times the largest run; --target asks another" in out
    assert "model uncertainty: a from 0." in out
    assert main(["fit", str(table), "--bootstrap", "50", "--target", "1e22", "--out", str(tmp_path / "fit.json")]) == 0
    assert "N* at C = 1e+22 FLOPs; 90 %" in capsys.readouterr().out


def test_one_size_is_refused(tmp_path: Path, capsys) -> None:
    (tmp_path / "one.csv").write_text("N,D,L\n" + "\n".join(f"1e6,{d}e7,{4 - d / 10}" for d in range(1, 9)))
    assert main(["fit", str(tmp_path / "one.csv"), "--out", str(tmp_path / "fit.json")]) == 2
    assert "have the same params=1e+06" in capsys.readouterr().err
    assert not (tmp_path / "fit.json").exists()


def test_two_sizes_leave_the_floor_open(tmp_path: Path, capsys) -> None:
    rows = [f"{n},{d},{1.7 + 400 / n**0.34 + 410 / d**0.28}" for n in (1e7, 1e8) for d in (1e8, 3e8, 1e9, 3e9, 1e10)]
    (tmp_path / "two.csv").write_text("N,D,L\n" + "\n".join(rows))
    assert main(["fit", str(tmp_path / "two.csv"), "--out", str(tmp_path / "fit.json")]) == 2
    assert "have only 2 different params, which leave E and the exponent of N open" in capsys.readouterr().err


def test_no_intervals_when_none_are_asked_for(table: Path, tmp_path: Path, capsys) -> None:
    out = str(tmp_path / "fit.json")
    assert main(["fit", str(table), "--bootstrap", "0", "--out", out]) == 0
    assert "no interval" in capsys.readouterr().out
    assert main(["fit", str(table), "--bootstrap=-1", "--out", out]) == 2
    assert "must be 0 (no intervals) or 10 to 100000" in capsys.readouterr().err
    for absurd in ("1", "10000000"):
        assert main(["fit", str(table), "--bootstrap", absurd, "--out", out]) == 2
        assert f"--bootstrap {absurd} must be 0" in capsys.readouterr().err
    assert main(["fit", str(table), "--target", "-3", "--out", out]) == 2
    assert "--target -3 FLOPs must be a positive, finite number" in capsys.readouterr().err


def test_a_single_run_is_no_source(tmp_path: Path, capsys) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert main(["fit", str(tmp_path)]) == 2
    assert "is a single run, from which no law follows" in capsys.readouterr().err


def test_a_count_that_the_source_lacks_is_refused(table: Path, capsys) -> None:
    assert main(["fit", str(table), "--params-count", "body"]) == 2
    assert "params='body' is not known" in capsys.readouterr().err


def test_another_law_and_objective(table: Path, tmp_path: Path, capsys) -> None:
    out = ["--bootstrap", "20", "--out", str(tmp_path / "fit.json")]
    assert main(["fit", str(table), "--law", "symmetric", "--objective", "squared", *out, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed["parameters"]) == {"E", "A", "B", "alpha"} and printed["by"] == "squared"
    assert printed["law"] == "symmetric" == Fit.read(tmp_path / "fit.json").law
    assert Fit.read(tmp_path / "fit.json").by == "squared"
    assert main(["fit", str(table), "--law", "symmetric", *out]) == 0
    assert "L = E + A/N^α + B/D^α" in capsys.readouterr().out


def test_a_law_or_objective_that_is_not_there_is_refused(table: Path, capsys) -> None:
    assert main(["fit", str(table), "--law", "chinchila"]) == 2
    assert "law='chinchila' is not known; choose one of" in capsys.readouterr().err
    assert main(["fit", str(table), "--objective", "median"]) == 2
    assert "objective='median' is not known; choose one of huber, robust" in capsys.readouterr().err


def test_groups_are_drawn_together(table: Path, tmp_path: Path, capsys) -> None:
    """Four budgets are too few groups; the seven sizes of each are all different runs."""
    assert main(["fit", str(table), "--group", "budget", "--out", str(tmp_path / "fit.json")]) == 2
    assert "4 independent runs or trunks are too few" in capsys.readouterr().err


def test_a_law_of_one_variable_has_no_optimum(table: Path, tmp_path: Path, capsys) -> None:
    args = ["fit", str(table), "--law", "power_C", "--bootstrap", "20", "--out", str(tmp_path / "fit.json")]
    assert main(args) == 0
    assert "law='power_C' depends on C alone" in capsys.readouterr().out
    assert main([*args, "--json"]) == 0
    answers = {answer["approach"]: answer for answer in json.loads(capsys.readouterr().out)["approaches"]}
    assert answers["approach 3"]["a"] is None and answers["approach 2"]["a"] is not None


def test_columns_are_named_and_what_was_guessed_is_told(table: Path, tmp_path: Path, capsys) -> None:
    text = table.read_text().replace("params,tokens,loss", "weights,n_tokens,val_loss")
    (tmp_path / "odd.csv").write_text(text)
    args = ["fit", str(tmp_path / "odd.csv"), "--bootstrap", "0", "--out", str(tmp_path / "fit.json")]
    assert main(args) == 2
    assert "has no column params" in capsys.readouterr().err
    args += ["--params-column", "weights"]
    assert main(args) == 0
    said = "N from column weights, D from column n_tokens, C = 6ND, L from column val_loss"
    assert f"note: {said}" in capsys.readouterr().out
    assert main([*args, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == [said]


def test_runs_that_lie_on_a_law_are_told(tmp_path: Path, capsys) -> None:
    rows = [
        f"{N!r},{D!r},{2 + 400 * N**-0.35 + 900 * D**-0.3!r}" for N in (1e6, 4e6, 2e7, 1e8) for D in (1e8, 1e9, 1e10)
    ]
    (tmp_path / "t.csv").write_text("params,tokens,loss\n" + "\n".join(rows))
    args = ["fit", str(tmp_path / "t.csv"), "--out", str(tmp_path / "t.fit.json"), "--bootstrap"]
    assert main([*args, "20"]) == 0
    assert "note: the runs lie on the law exactly" in capsys.readouterr().out
    assert main([*args, "0"]) == 0
    assert "exactly" not in capsys.readouterr().out
