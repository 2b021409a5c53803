"""`--json` prints one JSON object and nothing else, whatever the command: python -m pytest tests/test_json.py"""

import contextlib
import importlib
import inspect
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from isoflop.cli import demo as demo_module
from isoflop.cli.app import VERBS, main
from isoflop.config import read_run
from isoflop.flops import compute, params_by_convention
from isoflop.record import Record
from isoflop.study.launch import EXECUTORS
from isoflop.study.launch.event import Event
from tests.studies import true_loss
from tests.test_cli_answer import folder as asking
from tests.test_cli_answer import head_counts

STUDY = """
[study]
name = "tiny"

[design]
budgets = [1e9, 2e9, 4e9]
widths = [8, 12, 16, 24, 8, 12, 16, 24, 8, 12, 16, 24]
sizes = 4

[target]
flops = 8e9
d_model = 24

[model]
preset = "small"
context_length = 16

[data]
data = "{tokens}"
val_tokens = 256

[train]
batch_size = 4
"""
MODEL = ("--preset", "llama", "--d-model", "16", "--num-layers", "1", "--num-heads", "2", "--context-length", "16")
SMALL = ("--widths", "16", "32", "--seeds", "1", "--batch-size", "1", "--steps", "3")
TABLE = "params,tokens,loss"
STEPS = {
    "study run": "study run FOLDER --target",
    "fit": "fit FOLDER",
    "lock": "lock FOLDER",
    "score": "score FOLDER",
    "render": "render FOLDER",
}
"""Commands that `isoflop demo` goes through: what they print is in what it prints."""
ASKED: dict[str, str] = {
    "data": "data TEXTS --out T",
    "train": f"train --data TOKENS --steps 1 --batch-size 1 --val-tokens 16 {' '.join(MODEL)} --out again",
    "generate": "generate RUN The --max-tokens 3",
    "evaluate": "evaluate RUN --val-tokens 16",
    "export": "export RUN --out exported",
    "import": "import EXPORTED --out imported",
    "study plan": "study plan FOLDER --seconds 0",
    "study status": "study status FOLDER",
    "study answer": "study answer HEADS heads",
    "study cancel": "study cancel FOLDER",
    "study retry": "study retry FOLDER",
    "study watch": "study watch FOLDER",
    "study export": "study export FOLDER --out study",
    "predict": "predict --published besiroglu2024 --params 1e9 --tokens 2e10",
    "optimal": "optimal --published besiroglu2024 --flops 1e20",
    "backtest": "backtest CSV --law chinchilla --cut 10 --bootstrap 5",
    "plan": "plan --published besiroglu2024 --flops 1e20",
    "next": "next CSV --flops 1e21 --most 2",
    "compare": "compare CSV CSV --replicates 10",
    "coordcheck": f"coordcheck --data TOKENS --parametrization mup --depths 2 {' '.join(SMALL)}",
    "lr-sweep": f"lr-sweep --data TOKENS --rates 0.01 0.02 0.04 --val-tokens 16 {' '.join(SMALL)}",
    "diagnose": "diagnose CSV",
}


def lawful(folders: Sequence[Path], *, on_event: Callable[[Event], None], **_: object) -> None:
    """Stand in for an executor: each run's loss is that of a known law."""
    for folder in folders:
        config = read_run(folder)
        N = compute(config.model) / 6
        C = config.train.flops or 6 * N * 1e3
        record = Record(
            id=folder.name,
            params=params_by_convention(config.model),
            tokens=C / (6 * N),
            flops=C,
            loss=true_loss(N, C / (6 * N)),
            budget=C,
            measured={"seconds": 1.0},
            config=config.to_dict(),
        )
        record.write(folder / "record.json")
        on_event(Event(kind="done", run=folder))


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def one_object(out: str) -> dict[str, Any]:
    assert len(out.splitlines()) == 1, out
    value = json.loads(out, parse_constant=refuse)
    assert isinstance(value, dict)
    return value


@pytest.fixture(scope="module")
def places(token_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A study and a run, what the demo said of the study, and where everything is."""
    here = tmp_path_factory.mktemp("json")
    (here / "tiny.toml").write_text(STUDY.format(tokens=token_folder))
    rows = [
        f"{n!r},{C / 6 / n!r},{2 + 400 * n**-0.35 + 900 * (C / 6 / n) ** -0.35!r}"
        for C in (1e17, 1e18, 1e19, 1e20)
        for n in ((C / 120) ** 0.5 * factor for factor in (0.25, 0.5, 1.0, 2.0, 4.0))
    ]
    (here / "runs.csv").write_text("\n".join([TABLE, *rows]))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.setitem(EXECUTORS, "local", lawful)
        patch.setattr(demo_module, "_file", lambda name: "tiny.toml")
        yield {
            "HEADS": asking(here / "heads", head_counts(0.03, 0.003)),
            "TEXTS": token_folder.parent / "texts",
            "TOKENS": token_folder,
            "CSV": here / "runs.csv",
            "FOLDER": here / "demo",
        }


@pytest.fixture(scope="module")
def demo(places: dict[str, Any]) -> dict[str, Any]:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(["demo", "--json"]) == 0
    return one_object(said.getvalue())


@pytest.fixture(scope="module")
def run(places: dict[str, Any]) -> Path:
    """A run that was trained a step, and its export."""
    words = f"train --data {places['TOKENS']} --steps 1 --batch-size 1 --val-tokens 16".split()
    assert main([*words, *MODEL, "--out", "runs", "--json"]) == 0
    (made,) = Path("runs").iterdir()
    assert main(["export", str(made), "--out", "given"]) == 0
    return made.resolve()


@pytest.mark.parametrize("verb", sorted(ASKED))
def test_a_command_prints_one_object(
    verb: str, places: dict[str, Any], request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    named = dict(places)
    if "FOLDER" in ASKED[verb]:
        request.getfixturevalue("demo")
    if "RUN" in ASKED[verb] or "EXPORTED" in ASKED[verb]:
        made = request.getfixturevalue("run")
        named |= {"RUN": made, "EXPORTED": Path("given")}
    words = [str(named.get(word, word)) for word in ASKED[verb].split()]
    capsys.readouterr()
    try:
        code = main([*words, "--json"])
    except SystemExit as leave:  # a check that does not pass
        code = int(leave.code or 0)
    said = capsys.readouterr()
    assert code == 0 or (verb == "coordcheck" and code == 1), said.err
    one_object(said.out)


def test_a_command_of_commands_gathers_their_objects(demo: dict[str, Any]) -> None:
    assert all(isinstance(value, dict) for value in demo["steps"].values())
    assert {words.replace("FOLDER", "demo") for words in STEPS.values()} <= set(demo["steps"])
    runs = demo["steps"]["study run tiny.toml --out demo --seed 0"]["runs"]
    assert [run["status"] for run in runs] == ["complete"] * 12


def test_every_command_is_asked_and_explains_the_flag() -> None:
    assert {*ASKED, *STEPS, "demo"} == set(VERBS)
    for verb in VERBS.values():
        module, name = verb.where.split(":")
        command = getattr(importlib.import_module(module), name)
        assert "json" in inspect.signature(command).parameters, verb
        assert "        json: " in (command.__doc__ or ""), verb
