"""python -m pytest tests/test_cli_app.py"""

import errno
import importlib
import subprocess
import sys

import pytest

from isoflop.cli import app
from isoflop.cli.app import VERBS, flag_value, main, parse_count, positional


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_explains_itself(verb: str, capsys) -> None:
    with pytest.raises(SystemExit) as leave:
        main([*verb.split(), "--help"])
    assert leave.value.code in (0, None)
    module, function = VERBS[verb].where.split(":")
    first = getattr(importlib.import_module(module), function).__doc__.splitlines()[0]
    assert " ".join(first.split()[:3]) in capsys.readouterr().out


def test_the_overview_lists_every_command(capsys) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert all(verb in out and entry.does in out for verb, entry in VERBS.items())


def test_version(capsys) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("isoflop 0.")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["trian"], "there is no command 'trian', perhaps you meant 'train'"),
        (["study", "rum"], "there is no command 'study rum', perhaps you meant 'study run'"),
        (["train", "--d_modle", "3"], "has no option '--d_modle', perhaps you meant '--d-model'"),
        (["train", "--d_model", "many"], "'many' is no number"),
        (["train", "--mlp", "relu"], "--mlp relu is not known, perhaps you meant 'relu2'; choose one of"),
        (["fit"], "isoflop fit needs SOURCE (where the runs are), as in `isoflop fit SOURCE`"),
        (["fit", "--bootstrop", "3"], "has no option '--bootstrop', perhaps you meant '--bootstrap'"),
        (["fit", "--bootstrap", "3"], "isoflop fit needs SOURCE (where the runs are)"),
        (["compare"], "needs A (runs of recipe A) and B (runs of recipe B), as in `isoflop compare A B`"),
        (["fit", "runs.csv", "--seed"], "--seed stands without a value; write one after it, or leave it out"),
        (["fit", "runs.csv", "--json", "yes"], "--json is a switch and takes no value; leave 'yes' out"),
        (["fit", "runs.csv", "more.csv"], "isoflop fit has no place for 'more.csv'; quote"),
        (["optimal", "runs.csv", "--flops", "many"], "--flops 'many' is no number; write it like 1e9, 20M or 1.5B"),
        (["fit", "runs.csv", "--seed", "1.5"], "--seed '1.5' must be a whole number; write it without a fraction"),
        (["train", "--d_model", "65", "--num_heads", "4"], "d_model=65 does not split into num_heads=4 equal heads"),
        (["train", "--steps", "3"], "no data was given"),
        (["train", "--batch_size", "1.5"], "'1.5' must be a whole number"),
        (["train", "--batch_size", "inf"], "'inf' must be a whole number"),
        (
            ["predict", "--published", "hoffmann2022", "--params", "1,000", "--tokens", "1"],
            "--params '1,000' may be 1000 or 1.000; write it without the comma",
        ),
        (
            ["predict", "--published", "kaplan2020", "--params", "1e-300", "--tokens", "1"],
            "--params 1e-300 is of no run; give a number between 1e-09 and 1e+40",
        ),
        (["optimal", "--published", "hoffmann2022", "--flops", "1e300"], "--flops 1e+300 is of no run"),
        (["fit", "runs.csv", "--params", "body"], "has no option '--params', perhaps you meant '--params-"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(args: list[str], said: str, capsys) -> None:
    assert main(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.startswith("isoflop: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/x/y"),
            "the disk is full (/x/y); free some space and repeat",
        ),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a.csv"), "a.csv does not exist; check the path"),
        (PermissionError(errno.EACCES, "Permission denied", "b"), "Permission denied: b"),
        (ValueError("two\nlines"), "two lines"),
    ],
)
def test_expected_failures_become_a_sentence(error: Exception, said: str, monkeypatch, capsys) -> None:
    def fail(args: list[str]) -> int:
        raise error

    monkeypatch.setattr(app, "_dispatch", fail)
    assert main([]) == 2
    assert said in capsys.readouterr().err


def test_an_interrupt_is_no_traceback(monkeypatch, capsys) -> None:
    def interrupt(args: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "_dispatch", interrupt)
    assert main([]) == 130
    assert "goes on where this one was" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e9", 1e9), ("20M", 2e7), ("1.5B", 1.5e9), ("3_000", 3000), ("2t", 2e12), ("7", 7), ("-1", -1)],
)
def test_counts(text: str, value: float) -> None:
    assert parse_count(text) == value


@pytest.mark.parametrize("text", ["", "M", "1.2.3", "ten"])
def test_what_is_no_count(text: str) -> None:
    with pytest.raises(ValueError, match="is no number; write it like 1e9, 20M"):
        parse_count(text)


def test_a_command_group_lists_its_commands(capsys) -> None:
    assert main(["study", "--help"]) == 0
    assert "study run" in capsys.readouterr().out


def test_help_imports_no_torch() -> None:
    code = "import sys; from isoflop.cli.app import main; main([]); assert not {'torch', 'numpy'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_a_command_without_arguments_is_no_puzzle(capsys) -> None:
    assert main(["train"]) == 2
    assert "no data was given" in capsys.readouterr().err


def test_what_has_no_place_is_named(capsys) -> None:
    assert main(["fit", "a.csv", "b.csv"]) == 2
    assert "isoflop fit has no place for 'b.csv'; quote what belongs together" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = [
        sys.executable,
        "-m",
        "isoflop",
        "predict",
        "--published",
        "hoffmann2022",
        "--params",
        "1",
        "--tokens",
        "1",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("args", "found"),
    [
        (["demo", "--json"], "demo"),
        (["--json", "demo"], "demo"),
        (["--out", "there", "demo"], "demo"),
        (["--out=there", "demo"], "demo"),
        (["--out", "there"], None),
        ([], None),
    ],
)
def test_the_argument_is_found_wherever_it_stands(args: list[str], found: str | None) -> None:
    def command(file: str, *, out: str = "", json: bool = False) -> None: ...

    assert positional(args, command) == found


def test_a_flag_is_read_with_hyphens_and_underscores() -> None:
    for args in (["--val-fraction", "0.1"], ["--val_fraction", "0.1"], ["--val_fraction=0.1"]):
        assert flag_value(args, "--val-fraction") == "0.1"
