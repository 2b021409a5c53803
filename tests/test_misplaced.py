"""python -m pytest tests/test_misplaced.py"""

from pathlib import Path

import pytest

from isoflop.cli.app import main


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["generate", "a", "b", "c", "The "], "these are 3 runs, but isoflop generate takes one; name it, as in `iso"),
        (["render", "a", "b"], "these are 2 runs, but isoflop render takes one; name it, as in `isoflop render a`"),
        (["train", "--compile=yes"], "--compile is a switch and takes no value; leave 'yes' out"),
        (["train", "--norm_gain=off"], "--norm_gain is a switch and takes no value; leave 'off' out"),
        (["train", "--json=1"], "--json is a switch and takes no value; leave '1' out"),
        (["train", "--json=a.b"], "--json is a switch and takes no value; leave 'a.b' out"),
        (["train", "--compile", "yes"], "--compile is a switch and takes no value; leave 'yes' out"),
        (["fit", "runs.csv", "--json=1"], "--json is a switch and takes no value; leave '1' out"),
        (["backtest", "--cut", "ten"], "--cut 'ten' is no number; write it like 1e9, 20M or 1.5B"),
        (["backtest", "--cut", "10", "30"], "write SOURCE first, and one value or more after --cut"),
        (
            ["plan", "--flops", "1e20", "1e21"],
            "--flops was followed by '1e21', which was read as SOURCE, and no such path exists; write SOURCE first, "
            "and one value after --flops",
        ),
        (["fit", "runs.csv", "--bootstrap", "3", "5"], "--bootstrap takes one value; leave '5' out"),
        (["generate", "a", "--hello world"], "stands behind `--`, as in `isoflop generate … -- '--hello world'`"),
        (["generate", "a", "-hello world"], "stands behind `--`, as in `isoflop generate … -- '-hello world'`"),
    ],
)
def test_a_word_that_was_meant_otherwise(args: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "args", [["train", "--json", "a"], ["train", "--compile", "here"], ["fit", "--seed", "1", "x"]]
)
def test_a_word_that_may_be_meant_goes_to_the_command(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args) == 2
    err = capsys.readouterr().err
    assert "switch" not in err and "read as" not in err


def test_text_with_dashes_is_told_behind_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "none", "--", "--hello world"]) == 2
    assert "none holds no run" in capsys.readouterr().err
