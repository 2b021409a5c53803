"""python -m pytest tests/test_hardware.py"""

import json
import re
from pathlib import Path

import pytest

from isoflop.cli.app import main
from isoflop.cli.hardware import Hardware
from isoflop.cli.target import Wanted
from isoflop.devices import device

HOURS = ("--device", "a100", "--gpu-hours", "1000", "--count", "8", "--price", "2", "--mfu", "0.5")
C = device("a100").peak * 0.5 * 3.6e6


def test_gpu_hours_and_hours_are_one_budget() -> None:
    summed = Hardware(device="a100", gpu_hours=96, count=8)
    clock = Hardware(device="a100", hours=12, count=8)
    assert summed.flops(None) == pytest.approx(clock.flops(None))
    bill = Hardware(device="a100", count=8, price=2).bill(summed.flops(None))
    assert bill == pytest.approx({"hours": 12, "gpu_hours": 96, "cost": 192})
    assert clock.of(Wanted(params=1e6)).flops == pytest.approx(clock.flops(None))
    assert Hardware().bill(1e20) == {"hours": None, "gpu_hours": None, "cost": None} and not Hardware().told(1e20)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"count": 8, "price": 2.0}, "--count 8 and --price 2 need --device; give one, such as --device h100"),
        ({"gpu_hours": 5}, "--gpu-hours 5 needs --device"),
        ({"device": "h100", "price": -1.0}, "--price -1 per GPU-hour must be 0 or more"),
    ],
)
def test_what_has_no_meaning_is_refused(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Hardware(**given)


def test_a_run_has_its_flops_once() -> None:
    with pytest.raises(ValueError, match=r"--flops 1e\+20 and --hours 2 were given; give one"):
        Hardware(device="h100", hours=2).of(Wanted(flops=1e20))
    with pytest.raises(ValueError, match="--gpu-hours 3 and --hours 2 were given"):
        Hardware(device="h100", hours=2, gpu_hours=3).flops(None)


def test_every_command_that_takes_a_budget_takes_hours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["params,tokens,loss"]
    for budget in (1e17, 1e18, 1e19):
        for n in (factor * (budget / 120) ** 0.5 for factor in (0.25, 0.5, 1.0, 2.0, 4.0)):
            rows.append(f"{n!r},{budget / 6 / n!r},{2 + 400 * n**-0.35 + 900 * (budget / 6 / n) ** -0.35!r}")
    runs = tmp_path / "runs.csv"
    runs.write_text("\n".join(rows))
    out = ("--params", "1B", "--out", str(tmp_path / "big.json"))
    asked = {"plan": ("--bootstrap", "0"), "optimal": (), "next": ("--most", "1"), "lock": out}
    for verb, options in asked.items():
        assert main([verb, str(runs), *HOURS, *options, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        told = told["budgets"][0] if verb == "optimal" else told
        spent = told["spent"] if verb == "next" else told["flops"]
        assert told["cost"] == pytest.approx(2 * told["gpu_hours"]) == pytest.approx(2000 * spent / C)
        assert verb == "next" or spent == pytest.approx(C)
    text = {"plan": ("--bootstrap", "0"), "optimal": (), "next": ("--most", "1")}
    text["lock"] = (*out[:-1], str(tmp_path / "other.json"))
    for verb, options in text.items():
        assert main([verb, str(runs), *HOURS, *options]) == 0
        printed = capsys.readouterr().out
        assert "8 × a100 at 50% of the peak (MFU)" in printed and "in your currency, at 2 per GPU-hour" in printed
