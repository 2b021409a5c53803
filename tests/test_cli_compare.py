"""python -m pytest tests/test_cli_compare.py"""

import json
from pathlib import Path

import pytest

from isoflop.cli.app import main


@pytest.fixture
def tables(tmp_path: Path) -> tuple[str, str]:
    """Two recipes of four budgets; B reaches A's loss with half the FLOPs, but for a ripple."""
    names = []
    for name, gain in (("a", 1.0), ("b", 2.0)):
        rows = ["params,tokens,loss"]
        for i, C in enumerate((1e17, 1e18, 1e19, 1e20)):
            N = (C / 120) ** 0.5
            rows.append(f"{N!r},{C / 6 / N!r},{2 + 400 * (gain * C) ** -0.15 + 0.001 * (-1) ** i!r}")
        (tmp_path / f"{name}.csv").write_text("\n".join(rows))
        names.append(str(tmp_path / f"{name}.csv"))
    return names[0], names[1]


def test_a_comparison_is_said_and_drawn(tables: tuple[str, str], tmp_path: Path, capsys) -> None:
    out = str(tmp_path / "figure.png")
    assert main(["compare", *tables, "--replicates", "100", "--out", out]) == 0
    said = capsys.readouterr().out
    assert "B is better from 1e+17 to 1e+21 FLOPs" in said and "extrapolated" in said and "counted in FLOPs" in said
    assert Path(out).read_bytes().startswith(b"\x89PNG")


def test_a_comparison_as_json(tables: tuple[str, str], tmp_path: Path, capsys) -> None:
    out = str(tmp_path / "figure.png")
    options = ("--floor", "2", "--per", "token", "--at", "1T", "--json", "--out", out, "--replicates", "50")
    assert main(["compare", *tables, *options]) == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["per"], value["floor"], value["rows"][-1]["x"]) == ("token", 2.0, 1e12)
    assert value["figure"] == out and value["floors"][0]["value"] == 2.0


def test_what_is_refused(tables: tuple[str, str], capsys) -> None:
    assert main(["compare", *tables, "--floor", "low"]) == 2
    assert "floor='low' is neither common, free nor a number" in capsys.readouterr().err
    assert main(["compare", *tables, "--per", "hour"]) == 2
    assert "per='hour' needs what run" in capsys.readouterr().err


def test_a_tables_seeds_are_paired(tmp_path: Path, capsys) -> None:
    for name, gain in (("a", 1.0), ("b", 2.0)):
        rows = ["params,tokens,loss,seed"]
        for C in (1e17, 1e18, 1e19, 1e20):
            N, loss = (C / 120) ** 0.5, 2 + 400 * (gain * C) ** -0.15
            rows += [f"{N!r},{C / 6 / N!r},{loss + 0.01 * seed!r},{seed}" for seed in (1, 0, 2)]
        (tmp_path / f"{name}.csv").write_text("\n".join(rows))
    tables = [str(tmp_path / f"{name}.csv") for name in "ab"]
    assert main(["compare", *tables, "--json", "--out", str(tmp_path / "f.png"), "--replicates", "50"]) == 0
    value = json.loads(capsys.readouterr().out)
    # the seeds' part of the noise is common to each pair
    assert value["pairs"] == 12 and value["correlation"] > 0.9
    assert main(["compare", *tables, "--at", "0"]) == 2 and main(["compare", *tables, "--replicates=-1"]) == 2
    said = capsys.readouterr().err
    assert "at=0 FLOPs must be a positive, finite number" in said and "--replicates -1 must be 0" in said


def test_a_series_is_asked_for_by_the_tables_own_option(tables: tuple[str, str], tmp_path: Path, capsys) -> None:
    head, *rows = Path(tables[1]).read_text().splitlines()
    names = [f"s{i}" for i in range(20)]
    several = [f"{row},{name}" for row in rows for name in names]
    (tmp_path / "several.csv").write_text("\n".join([f"{head},series", *several]))
    assert main(["compare", tables[0], str(tmp_path / "several.csv")]) == 2
    assert "name it with --series-b: one of s0, s1" in (said := capsys.readouterr().err) and "s11 and 8 more" in said
