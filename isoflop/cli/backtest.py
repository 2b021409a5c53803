"""`isoflop backtest`."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from isoflop.cli.target import Count
from isoflop.sources.columns import GUESSED, Columns

if TYPE_CHECKING:
    from isoflop.law.backtest import Backtest


def backtest(
    source: Positional[str],
    *,
    series: str | None = None,
    columns: Columns = GUESSED,
    params_count: Count | None = None,
    law: str = "average",
    cut: tuple[float, ...] = (10.0, 30.0),
    bootstrap: int = 1000,
    seed: int = 0,
    json: bool = False,
) -> None:
    """Forecast the dearest runs of a source from its cheap ones, and compare with what they reached.

    Runs up to 1/10 (then 1/30) of the largest FLOPs are fitted, the rest forecast. Beside stands what approach 3 with a
    bootstrap over runs says. Every series of a table is gone through by itself, without runs that no law of N and D
    holds for: much repeated data, and other learning rates than the best.

    Args:
        source: Where the runs are, as for `isoflop fit`.
        series: Only this series of a table.
        columns: Which columns mean what, where their names do not tell.
        params_count: How N is counted; None: as the source says, compute for own runs.
        law: average (of laws, as `isoflop predict` does), or one law with a bootstrap.
        cut: Largest FLOPs over those fitted; several may be given.
        bootstrap: Times that the runs are drawn again for approach 3's interval.
        seed: Seed of the draws.
        json: Print JSON lines: an object for each series and cut; what is left out is told on standard error.
    """
    from isoflop.law.backtest import check_wish
    from isoflop.sources.series import names

    for factor in cut:
        check_wish(law, factor, bootstrap)
    wish = {"law": law, "replicates": bootstrap, "seed": seed}
    several = names(source, columns) if series is None else (series,)
    done, refused = _back_tests(source, several, columns, params_count, cut, wish)
    if not done:
        raise ValueError(f"nothing of {source} can be back-tested; {refused[-1]}")
    if json:
        for name, made in done:
            print(json_module.dumps({"series": name, **made.to_dict()}))
        for reason in refused:
            print(f"isoflop: {reason}", file=sys.stderr)
    else:
        print(_report(done, refused))


def _back_tests(
    source: str,
    several: Sequence[str | None],
    columns: Columns,
    count: Count | None,
    cut: tuple[float, ...],
    wish: Mapping[str, Any],
) -> tuple[list[tuple[str, Backtest]], list[str]]:
    """Go through the series, with a bar; return what was tested, and what was left out."""
    from rich.console import Console
    from rich.progress import Progress

    from isoflop.cli.target import read_runs
    from isoflop.law.backtest import backtest as back_test
    from isoflop.law.lawful import lawful

    done: list[tuple[str, Backtest]] = []
    refused: list[str] = []
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("back-tests", total=len(several) * len(cut))
        for name in several:
            records = read_runs(source, name, columns)
            records, notes = lawful(records if count is None else records.under(count))
            refused += [f"{name or source}: {note}" for note in notes]
            for factor in cut:
                try:
                    made = back_test(records, cut=factor, **wish)
                except ValueError as error:
                    refused.append(f"left out, 1/{factor:g} of the largest FLOPs: {error}")
                else:
                    done.append((name or source, made))
                bar.advance(task)
    return done, refused


NAMED = {"average": "the average of laws that `isoflop predict` takes"}
"""What a key is called in print."""


def _report(done: list[tuple[str, Backtest]], refused: list[str]) -> str:
    wide = max(len(name) for name, _ in done)
    lines = [
        "The runs up to cut · C_max were fitted and the dearer ones forecast, which were trained and so can judge it;",
        f"by {NAMED.get(done[0][1].law, done[0][1].law)}, in brackets by approach 3, which the literature extrapolates "
        "with (one law, bootstrap).",
        "",
        f"  {'':<{wide}}  {'':>5} {'runs':>6} {'runs':>8}   {'error of the loss, %':^29} {'inside the':>13} "
        f"{'interval':>15}",
        f"  {'series':<{wide}}  {'cut':>5} {'fitted':>6} {'forecast':>8}   {'median':>14} {'largest':>14} "
        f"{'90 % interval':>13} {'score':>15}",
    ]
    for name, made in done:
        ours, naive = made.score, made.naive
        median = f"{100 * ours.median_abs_rel_error:.2f} ({100 * naive.median_abs_rel_error:.2f})"
        largest = f"{100 * ours.max_abs_rel_error:.2f} ({100 * naive.max_abs_rel_error:.2f})"
        inside = f"{ours.coverage:.0%} ({naive.coverage:.0%})"
        interval = f"{ours.interval_score:.3f} ({naive.interval_score:.3f})"
        lines.append(
            f"  {name:<{wide}}  {f'1/{made.cut:g}':>5} {made.train:>6} {made.test:>8}   {median:>14} {largest:>14} "
            f"{inside:>13} {interval:>15}"
        )
    lines += [
        "",
        "  Of honest 90 % intervals about 90 % of the runs lie inside. The score is the mean width in ln loss, plus 20 "
        "times how",
        "  far outside a run lies: less is better.",
    ]
    return "\n".join(lines + [f"  {reason}" for reason in refused])
