"""python -m pytest tests/test_cli_forecast.py"""

import json
from pathlib import Path

import pytest

from isoflop.cli.app import main
from isoflop.law.forecast import forecast
from isoflop.law.published import PUBLISHED
from isoflop.sources import read
from tests.studies import true_loss, true_size, write_forecast, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("cli") / "s")


def said(capsys: pytest.CaptureFixture[str], *args: str) -> dict:
    assert main([*args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(list(args)) == 2
    out = capsys.readouterr()
    assert not out.out and out.err.count("\n") == 1
    return out.err


def test_predict_is_the_forecast(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    N = true_size(4e12)
    answer = said(capsys, "predict", str(study), "--params", repr(N), "--flops", "4e12")
    made = forecast(read(study), N=N, D=4e12 / (6 * N))
    assert (answer["loss"], answer["low"], answer["high"]) == (made.mean[0], made.low[0], made.high[0])
    assert answer["low"] < true_loss(N, answer["tokens"]) < answer["high"]
    assert answer["reach"] == pytest.approx(5) and answer["params_convention"] == "compute"
    from_fit = said(capsys, "predict", str(study / "fit.json"), "--params", repr(N), "--flops", "4e12")
    assert from_fit["loss"] == answer["loss"]


def test_predict_tells_what_its_number_is(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(study), "--d-model", "72", "--preset", "small", "--flops", "4T"]) == 0
    out = capsys.readouterr().out
    assert "counted as compute" in out and "5 times the largest run" in out and "90 % interval" in out


def test_published_laws_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    answer = said(capsys, "predict", "--published", "hoffmann2022", "--params", "70B", "--tokens", "1.4T")
    assert answer["loss"] == pytest.approx(1.69 + 406.4 / 70e9**0.34 + 410.7 / 1.4e12**0.28)
    assert answer["low"] is None and "no interval" in answer["basis"]
    best = said(capsys, "optimal", "--published", "besiroglu2024", "--flops", "5.76e23")["budgets"][0]
    assert best["approaches"]["the law"]["tokens_per_param"]["value"] == pytest.approx(18.39, abs=0.005)
    shape = said(capsys, "predict", "--published", "hoffmann2022", "--preset", "70M", "--tokens", "1B")
    assert shape["params"] == 61_830_912


@pytest.mark.parametrize("law", PUBLISHED)
def test_every_published_law_answers(law: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert 1 < said(capsys, "predict", "--published", law, "--params", "1B", "--tokens", "20B")["loss"] < 4
    assert 1 < said(capsys, "optimal", "--published", law, "--flops", "1e21")["budgets"][0]["loss"]["value"] < 4


def test_the_order_of_arguments_does_not_matter(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = ["--d-model", "64", "--flops", "4e12"]
    assert said(capsys, "predict", str(study), *shape) == said(capsys, "predict", *shape, str(study))


def test_a_forecast_is_scored_by_its_own_run_alone(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "f.json")
    said(capsys, "lock", str(study), "--params", "1e5", "--flops", "4e12", "--out", out)
    assert "but 4e+12 were forecast" in refused(capsys, "score", out, "--run", str(study / "runs" / "b0-s0"))


def test_optimal_by_both_approaches(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = said(capsys, "optimal", str(study), "--flops", "1e13", "1e14")
    for row in answer["budgets"]:
        found = row["approaches"]["approach 3"]
        truth = true_size(row["flops"])
        assert found["params"]["value"] == pytest.approx(truth, rel=0.02)
        assert found["params"]["low"] <= found["params"]["value"] <= found["params"]["high"]
        assert "approach 2" in row["approaches"] and row["loss"]["low"] < row["loss"]["high"]


def test_a_budget_in_hours_of_a_device(capsys: pytest.CaptureFixture[str]) -> None:
    hours = ["--gpu-hours", "1000", "--device", "A100", "--mfu", "0.5"]
    row = said(capsys, "optimal", "--published", "hoffmann2022", *hours)["budgets"][0]
    assert row["flops"] == pytest.approx(312e12 * 3.6e6 * 0.5)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["predict", "--params", "1e6", "--tokens", "1e7"], "say where the runs are"),
        (["predict", "x.csv", "--published", "hoffmann2022", "--params", "1e6", "--tokens", "1e7"], "are two answers"),
        (["predict", "--published", "hofmann", "--params", "1e6", "--tokens", "1e7"], "choose one of kaplan2020"),
        (["optimal", "--published", "hoffmann2022"], "a budget is --flops, or --device with"),
        (["optimal", "--published", "hoffmann2022", "--flops=-1e20"], "must be a positive, finite number"),
        (["optimal", "--published", "hoffmann2022", "--flops", "inf"], "must be a positive, finite number"),
        (
            ["predict", "--published", "hoffmann2022", "--params", "0", "--tokens", "1e7"],
            "--params 0 must be a positive",
        ),
        (
            ["predict", "--published", "kaplan2020", "--params-count", "total", "--preset", "70M"],
            "counts N as body, not as",
        ),
        (["optimal", "--published", "hoffmann2022", "--gpu-hours", "1", "--device", "abacus"], "is not known"),
        (["optimal", "--flops", "1e20"], "say where the runs are"),
    ],
)
def test_one_sentence_for_each_mistake(args: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert sentence in refused(capsys, *args)


def test_lock_and_score_of_any_table(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "big.json")
    args = ["lock", str(study), "--params", "1e5", "--flops", "4e12", "--out", out]
    locked = said(capsys, *args)
    assert "never replaced" in refused(capsys, *args)
    assert "its run is not measured yet; give --run DIR or --measured" in refused(capsys, "score", out)
    scored = said(capsys, "score", out, "--measured", repr(locked["loss"]))
    assert scored["inside"] == scored["of"] == 1 and scored["scores"][0]["error"] == 0
    # what was said once counts from then on
    assert said(capsys, "score", out) == scored == said(capsys, "score", str(tmp_path))
    assert "says" in refused(capsys, "score", out, "--measured", "2") and json.loads(Path(out).read_text()) == locked


def test_n_of_own_runs_is_counted_as_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_study(tmp_path / "s", fitted=False)
    for path in folder.glob("runs/*/record.json"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"params": record["params"] | {"body": record["params"]["compute"] / 2}}))
    run = ("--tokens", "1e7", "--flops", "4e12")
    answer = said(capsys, "predict", str(folder), "--params-count", "body", "--params", "3e4", "--tokens", "1e7")
    assert answer["params_convention"] == "body"
    whole = said(capsys, "predict", str(folder), "--params", "6e4", "--tokens", "1e7")
    assert answer["loss"] == pytest.approx(whole["loss"], rel=1e-4)
    assert "params='total' is not known" in refused(capsys, "predict", str(folder), "--params-count", "total", *run)


def test_lock_needs_a_run_and_a_place(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "t.csv"
    table.write_text("N,D,L\n1,1,1\n")
    assert "is no study, so it has no target" in refused(capsys, "lock", str(table))
    assert "say with --out" in refused(capsys, "lock", str(study), "--params", "1e5", "--flops", "4e12")


def test_score_tells_hits_misses_and_the_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hit = write_forecast(write_study(tmp_path / "hit", fitted=False))
    miss = write_forecast(write_study(tmp_path / "miss", fitted=False), off=0.05)
    waiting = write_forecast(write_study(tmp_path / "waiting", fitted=False), measured=False)
    assert main(["score", str(hit), str(miss)]) == 0
    out = capsys.readouterr().out
    assert "a hit" in out and "a miss" in out and "1 of 2 inside" in out
    assert "`isoflop study run" in refused(capsys, "score", str(waiting))
    path = miss / "forecast.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"inputs": {"gone.csv": "0"}}))
    for places in ([str(miss)], [str(hit), str(miss)]):
        assert main(["score", *places]) == 0
        assert "1 of its 1 inputs have changed since, gone.csv first" in capsys.readouterr().out
    assert "speak of one forecast, but 2 are here" in refused(capsys, "score", str(hit), str(miss), "--measured", "2.0")


def test_every_forecast_below_a_folder_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "has no forecast in it" in refused(capsys, "score")
    write_forecast(write_study(Path("a") / "hit", fitted=False))
    write_forecast(write_study(Path("a") / "waiting", fitted=False), measured=False)
    assert main(["score", "a/waiting", "a/hit"]) == 0
    capsys.readouterr()
    (Path("a") / "broken").mkdir()
    (Path("a") / "broken" / "x.forecast.json").write_text("{}")
    assert main(["score"]) == 0
    out = capsys.readouterr().out
    assert "1 of 1 inside their intervals, as chance allows: of right ones 0 to 1 of 1 hold nine times in ten" in out
    assert "waits: a/waiting: its run is not measured yet; `isoflop study run a/waiting --target`" in out
    assert "damaged: a/broken/x.forecast.json is not a forecast" in out
    told = said(capsys, "score", "a")
    assert (told["of"], len(told["waiting"]), len(told["damaged"])) == (1, 1, 1)
    assert main(["score", "a/waiting", "a/broken"]) == 0
    assert "no forecast here has been measured yet" in capsys.readouterr().out


def test_a_score_needs_a_forecast_and_a_loss(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = ("lock", str(study), "--params", "1e5", "--flops", "4e12", "--out", str(tmp_path / "f.json"))
    said(capsys, *lock)
    assert "both give the loss" in refused(capsys, "score", lock[-1], "--measured", "2", "--run", "x")
    for loss in ("-1", "nan"):
        assert "is no loss" in refused(capsys, "score", lock[-1], "--measured", loss)
    hit = write_forecast(write_study(tmp_path / "hit", fitted=False))
    assert "has its own measured run" in refused(capsys, "score", str(hit), "--measured", "2")


def test_a_run_that_is_known_is_no_forecast(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = read(study).runs[3]
    args = ["--params", repr(run.params["compute"]), "--tokens", repr(run.tokens), "--out", str(tmp_path / "f.json")]
    assert f"{run.id} of {study} is this very run" in refused(capsys, "lock", str(study), *args)


def test_far_beyond_the_runs_is_told(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(study), "--params", "1e6", "--flops", "1e14"]) == 0
    assert "never tested beyond 100 times" in capsys.readouterr().out
    assert main(["optimal", str(study), "--flops", "1e12", "1e20"]) == 0
    assert "never tested beyond 100 times" in capsys.readouterr().out


def test_a_diverged_target_has_no_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_forecast(write_study(tmp_path / "s", fitted=False))
    path = folder / "target" / "large" / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"loss": None, "status": "diverged"}))
    assert "ended as diverged" in refused(capsys, "score", str(folder))


def test_far_below_the_runs_is_told(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    note = "times below the smallest run, where laws bend and no interval was ever tested"
    below, among = said(capsys, "predict", str(study), "--params", "1e3", "--flops", "1e9"), None
    assert any(note in one for one in below["notes"])
    among = said(capsys, "predict", str(study), "--params", "1e4", "--flops", "1e11")
    assert not any(note in one for one in among["notes"])
    best = said(capsys, "optimal", str(study), "--flops", "1e9", "1e11")
    assert [one.split(":")[0] for one in best["notes"] if note in one] == ["C = 1e+09"]
