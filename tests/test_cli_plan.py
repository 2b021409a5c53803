"""python -m pytest tests/test_cli_plan.py"""

import json
from pathlib import Path

import pytest

from isoflop.cli.app import main
from isoflop.cli.plan import basis_of
from isoflop.presets import preset
from isoflop.record import Record


def told(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    code = main(["plan", *args])
    out, err = capsys.readouterr()
    assert code == (2 if err else 0)
    return out or err


def test_a_plan_by_a_published_law(capsys: pytest.CaptureFixture[str]) -> None:
    out = told(
        capsys, "--published", "hoffmann2022", "--device", "h100", "--count", "64", "--hours", "240", "--price", "2"
    )
    for part in (
        "arXiv:2203.15556",
        "d_model",
        "heads of 64",
        "Step Law",
        "no interval",
        "more loss",
        "240 hours on 64 × h100 at 40% of the peak (MFU), 15,360 GPU-hours; cost 30,720 in "
        "your currency, at 2 per GPU-hour",
    ):
        assert part in out, part


def test_a_plan_from_a_table_and_from_its_fit_are_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["params,tokens,loss"]
    for C in (1e17, 1e18, 1e19):
        for factor in (0.25, 0.5, 1.0, 2.0, 4.0):
            n = factor * (C / 120) ** 0.5
            rows.append(f"{n!r},{C / 6 / n!r},{2 + 400 * n**-0.35 + 900 * (C / 6 / n) ** -0.35!r}")
    (tmp_path / "runs.csv").write_text("\n".join(rows))
    out = str(tmp_path / "fit.json")
    assert main(["fit", str(tmp_path / "runs.csv"), "--bootstrap", "10", "--out", out]) == 0
    capsys.readouterr()
    options = ("--flops", "1e20", "--bootstrap", "10", "--json", "--device", "a100")
    table = json.loads(told(capsys, str(tmp_path / "runs.csv"), *options))
    assert table["convention"] == "total" and any("taken as all parameters" in note for note in table["notes"])
    said = basis_of(str(tmp_path / "runs.csv"), None, count="body", bootstrap=0)
    assert (said.convention, said.fit and said.fit.records.convention) == ("body", "given")
    fit = json.loads(told(capsys, out, *options))
    assert table == fit
    assert main(["plan", out, "--flops", "1e20", "--params-count", "body"]) == 2
    assert "is a fit that counts N already" in capsys.readouterr().err
    assert table["low"] < table["loss"] < table["high"] and table["cost"] is None
    assert table["hours"] == pytest.approx(1e20 / (312e12 * 0.4 * 3600))
    assert table["flops"] == pytest.approx(1e20) and table["model"]["vocab_size"] == 32000


def test_own_runs_lend_the_plan_their_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = vars(preset("small", d_model=48, num_heads=2))
    for k, C in enumerate((1e12, 1e13, 1e14)):
        for j, factor in enumerate((0.25, 0.5, 1.0, 2.0, 4.0)):
            n = factor * (C / 120) ** 0.5
            loss = 1 + 40 * n**-0.35 + 90 * (C / 6 / n) ** -0.35
            counts = {"compute": n, "body": n, "body+head": n, "total": n}
            record = Record(id=f"{k}{j}", params=counts, tokens=C / 6 / n, flops=C, loss=loss, config={"model": model})
            record.write(tmp_path / "runs" / record.id / "record.json")
    made = json.loads(told(capsys, str(tmp_path), "--flops", "1e15", "--bootstrap", "0", "--json"))
    assert (made["model"]["vocab_size"], made["model"]["mlp"], made["convention"]) == (256, "relu2", "compute")
    assert made["model"]["d_model"] % 24 == 0 and made["model"]["num_heads"] == made["model"]["d_model"] // 24


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "a budget is --flops, or --device with --gpu-hours or --hours, but none was given; give one"),
        (
            ("--flops", "1e20", "--hours", "3", "--device", "h100"),
            "but --flops 1e+20 and --hours 3 were given; give one",
        ),
        (("--hours", "3"), "--hours 3 needs --device"),
        (("--flops", "1e20"), "a plan needs runs (a SOURCE) or a published law (--published NAME), but neither"),
        (("--flops", "1e20", "--published", "hoffman"), "'hoffman' is no published law"),
        (("--flops", "1e20", "--published", "hoffmann2022", "--device", "h10"), "device='h10' is not known, perhaps"),
        (
            ("--flops", "1e20", "--published", "hoffmann2022", "--price", "2"),
            "--price 2 needs --device; give one, such as",
        ),
        (("--flops", "nan", "--published", "hoffmann2022"), "--flops nan must be a positive, finite number"),
        (
            ("--flops", "1e20", "--published", "hoffmann2022", "--device", "h100", "--price=-2"),
            "--price -2 per GPU-hour must be 0 or more",
        ),
        (
            ("--flops", "1e20", "--published", "hoffmann2022", "--bootstrap=-4"),
            "--bootstrap -4 must be 0 (no intervals) or",
        ),
        (("--flops", "1e20", "--published", "hoffmann2022", "--params-count", "body"), "counts N in its own way"),
        (
            ("--flops", "1e20", "--published", "hoffmann2022", "--max_params", "9"),
            "max_params=9 is less than the smallest",
        ),
    ],
)
def test_what_is_refused(args: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in told(capsys, *args)


def test_served_and_repeated_tokens_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--flops", "1e21", "--unique-tokens", "10B", "--inference-tokens", "1T", "--tokens-per-param")
    assert "fixes what inference_tokens" in told(capsys, "--published", "besiroglu2024", *options, "20")
    out = told(capsys, "--published", "besiroglu2024", *options[:-1])
    assert "epochs" in out and "training and serving together" in out and "arXiv:2305.16264" in out


def test_a_tiny_table_gets_a_vocabulary_of_its_size(capsys: pytest.CaptureFixture[str]) -> None:
    small = told(capsys, "--published", "besiroglu2024", "--flops", "1e14")
    assert "vocabulary 256, context 256" in small and "would take over half" in small
    asked = told(capsys, "--published", "besiroglu2024", "--flops", "1e17", "--preset", "70M")
    assert "vocabulary 50257, context 128" in asked and "would take over half" not in asked


def test_runs_that_no_law_holds_for_are_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["params,tokens,loss,epochs"]
    for n in (1e6, 3e6, 1e7):
        for d in (2e7, 6e7, 2e8):
            rows += [f"{n!r},{d!r},{2 + 400 * n**-0.35 + 900 * d**-0.35 + (k > 4)!r},{k}" for k in (1, 100)]
    (tmp_path / "runs.csv").write_text("\n".join(rows))
    out = told(capsys, str(tmp_path / "runs.csv"), "--flops", "1e17", "--bootstrap", "0")
    assert "fitted to 9 runs" in out and "left out 9 of 18 runs that saw their tokens more than 4 times" in out
