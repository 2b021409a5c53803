"""python -m pytest tests/test_columns.py"""

from pathlib import Path

import pytest

from isoflop.sources import read
from isoflop.sources.columns import GUESSED, Columns, find, reading

WHERE = Path("t.csv")


def test_what_is_said_goes_before_what_is_guessed() -> None:
    rows = [{"n_params": "1", "N": "2", "D": "3", "loss": "4", "spend": "5"}]
    assert find(rows, WHERE, GUESSED)["params"] == "N"
    found = find(rows, WHERE, Columns(params_column="n_params", budget_column="spend"))
    assert (found["params"], found["budget"]) == ("n_params", "spend")
    assert Columns(params_column="n", bytes_per_token=4.0).flags == "--params-column, --bytes-per-token"


def test_only_what_was_guessed_is_told() -> None:
    assert reading({"params": "N", "tokens": "tokens", "loss": "Loss"}) is None
    assert reading({"params": "N", "flops": "compute", "loss": "L"}) == (
        "N from column N, D = C/6N, C from column compute, L from column L"
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("val_ppl", "the column 'val_ppl' seems to be a perplexity; its logarithm is the loss"),
        ("hellaswag_acc", "the column 'hellaswag_acc' seems to be a score, which no law here describes"),
        ("bpb", r"has its loss in bits per byte \(bpb\); give --bytes-per-token"),
        ("my bits-per-byte", "has its loss in bits per byte"),
    ],
)
def test_what_is_no_loss_by_its_name_is_refused(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        find([{"N": 1, "D": 2, name: 3}], WHERE, Columns(loss_column=name))


def test_a_missing_loss_is_told_with_what_stands_in_its_place() -> None:
    with pytest.raises(ValueError, match=r"has no column loss; it has N, D, perplexity.*perplexity seems to be"):
        find([{"N": 1, "D": 2, "perplexity": 3}], WHERE, GUESSED)
    assert find([{"N": 1, "D": 2, "acc_loss": 3}], WHERE, Columns(loss_column="acc_loss"))["loss"] == "acc_loss"


def test_spaces_around_a_header_are_no_part_of_its_name(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = "".join(f"{10.0**n},{10.0**d},{2 + 1 / n + 1 / d}\n" for n in (7, 8, 9) for d in (9, 10, 11))
    path.write_text(" Weights of it ,tokens,loss\n" + rows)
    assert len(read(path, columns=Columns(params_column="Weights of it"))) == 9
