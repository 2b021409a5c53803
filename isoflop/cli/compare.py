"""`isoflop compare`."""

from __future__ import annotations

import json as json_module
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from isoflop.counts import number_of
from isoflop.report.words import Lang
from isoflop.sources.columns import GUESSED, Columns

if TYPE_CHECKING:
    from isoflop.law.compare import Comparison
    from isoflop.record import Records


def compare(
    a: Positional[str],
    b: Positional[str],
    *,
    per: Literal["flop", "token", "hour"] = "flop",
    floor: str = "common",
    at: float | None = None,
    series_a: str | None = None,
    series_b: str | None = None,
    columns: Columns = GUESSED,
    replicates: int = 1000,
    seed: int = 0,
    out: str | None = None,
    lang: Lang = "en",
    json: bool = False,
) -> None:
    """Say whether recipe B is better than recipe A, by how much of A's compute, and whether that lasts.

    A and B are studies' folders or tables. Runs of one budget and seed are taken as pairs whose noise is alike.

    Args:
        a: Runs of recipe A.
        b: Runs of recipe B.
        per: What is counted: training FLOPs, tokens, or hours as measured.
        floor: L∞ of the frontiers L = L∞ + a·x^-α: common, free (each its own), or a number.
        at: Where to extrapolate to, in what is counted; None: ten times the largest common budget.
        series_a: The series of table A, where it holds several.
        series_b: The same of table B.
        columns: Which columns mean what, where their names do not tell.
        replicates: Draws of noise for the intervals; 0: none.
        seed: Seed of the draws.
        out: File for the figure; None: compare.png here.
        lang: Language of the figure.
        json: Print the comparison as JSON.
    """
    from isoflop.files import write_bytes
    from isoflop.law.compare import compare as compare_records
    from isoflop.report.axes import picture
    from isoflop.report.comparison import multiplier

    first, second = _runs(a, series_a, columns, "a"), _runs(b, series_b, columns, "b")
    made = compare_records(first, second, per=per, floor=_floor(floor), at=at, replicates=replicates, seed=seed)
    path = Path(out or "compare.png")
    write_bytes(path, picture(partial(multiplier, made, lang=lang), lang))
    print(json_module.dumps({**made.to_dict(), "figure": str(path)}) if json else _report(made, path))


def _runs(source: str, series: str | None, columns: Columns, side: str) -> Records:
    from isoflop.cli.target import read_runs

    try:
        return read_runs(source, series, columns)
    except ValueError as error:
        raise ValueError(str(error).replace("--series:", f"--series-{side}:")) from error


def _floor(text: str) -> Any:
    from isoflop.cli.app import parse_count

    if text in ("common", "free"):
        return text
    try:
        return parse_count(text)
    except ValueError:
        raise ValueError(f"floor={text!r} is neither common, free nor a number such as 1.7") from None


def _report(made: Comparison, path: Path) -> str:
    value = made.to_dict()
    names = {"flop": "FLOPs", "token": "tokens", "hour": "hours"}
    unit = names[made.per]
    lines = [
        f"A = {made.sources[0]}",
        f"B = {made.sources[1]}",
        f"counted in {unit}; floor L∞ {made.floor}; {number_of(made.pairs, 'pair')} of one budget (and seed, where "
        f"both say it), correlation of their noise {made.correlation:.2f}",
        "",
        f"  {'':<3} {'L∞, nats per token':>26} {'α':>26}",
    ]
    for name, floor, alpha in zip("AB", value["floors"], value["alphas"], strict=True):
        lines.append(f"  {name:<3} {_range(floor, '.4f'):>26} {_range(alpha, '.4f'):>26}")
    lines += ["", f"  {unit:>10} {'A needs, times':>16} {'90 % interval':>22}"]
    for row in made.rows:
        known = "no interval" if row.low is None else f"{_number(row.low)} to {_number(row.high)}"
        note = "" if row.trained else "   extrapolated"
        lines.append(f"  {row.x:>10.3g} {_number(row.multiplier):>16} {known:>22}{note}")
    lines += [f"  note: {note}" for note in made.on_bounds]
    return "\n".join([*lines, "", f"  {made.verdict}", f"  drawn in {path}"])


def _number(value: float | None) -> str:
    return "∞" if value is None or value > 1e6 else f"{value:.3g}"


def _range(interval: dict[str, Any], form: str) -> str:
    value = format(interval["value"], form)
    return value if interval["low"] is None else f"{value} ({interval['low']:{form}} to {interval['high']:{form}})"
