"""`isoflop study watch`."""

from __future__ import annotations

import json as json_module
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from isoflop.record import Records
    from isoflop.study.progress import Progress

REPLICATES = 200
"""Draws for the intervals of the fit on show: enough for two digits, and a tenth of a second."""
WIDE = 100
"""Columns from which a run's line has its steps and its speed."""
SHOWN = 12
"""Runs under way, and runs done last, that fit a screen."""


def watch(folder: Positional[str], *, every: float = 2.0, once: bool = False, json: bool = False) -> None:
    """Watch a study: its runs with progress and loss, the IsoFLOP curves forming, the law so far, the time left.

    Everything is read from the folder, so it may be watched from any machine that sees it; Ctrl-C ends the view and
    nothing else.

    Args:
        folder: Folder of a study.
        every: Seconds between looks.
        once: Show one picture and end, as when the output is no terminal.
        json: Print what is known as one line of JSON, and end.
    """
    from rich.console import Console
    from rich.live import Live

    from isoflop.study.progress import progress

    if not every > 0:
        raise ValueError(f"--every {every:g} must be above 0 seconds, such as 2")
    where, law = Path(folder), _Law()
    now = progress(where)
    if json:
        print(json_module.dumps(_plain(now)))
        return
    console = Console()
    if once or not sys.stdout.isatty():
        console.print(_frame(now, law, console.width))
        return
    with Live(_frame(now, law, console.width), console=console, auto_refresh=False) as live:
        while len(now.records) < len(now.planned):
            time.sleep(every)
            now = progress(where)
            live.update(_frame(now, law, console.width), refresh=True)


def _plain(now: Progress) -> dict[str, Any]:
    return {
        "runs": len(now.planned),
        "complete": sum(record.status == "complete" for record in now.records.values()),
        "diverged": sum(record.status == "diverged" for record in now.records.values()),
        "flops": now.flops,
        "spent": now.spent,
        "seconds_left": now.seconds_left,
        "underway": [
            {
                "id": run.planned.config.id,
                "step": run.step,
                "steps": run.steps,
                "train_loss": run.loss,
                "running": run.running,
            }
            for run in now.underway
        ],
    }


class _Law:
    """The law so far, fitted again only when a run has ended."""

    def __init__(self) -> None:
        self.runs = 0
        self.said: list[str] = []

    def lines(self, records: Records | None) -> list[str]:
        if records is None:
            return ["no run is complete yet"]
        if len(records) != self.runs:
            self.runs, self.said = len(records), _law(records)
        return self.said


def _law(records: Records) -> list[str]:
    from isoflop.law.fit import fit
    from isoflop.law.frontier import approach2, approach3
    from isoflop.law.uncertainty import bootstrap

    lines = []
    try:
        fitted = bootstrap(fit(records), replicates=REPLICATES)
        numbers = " · ".join(f"{name} {p.value:.3g}" for name, p in fitted.parameters.items())
        lines = [f"{fitted.law}: {numbers}", _exponent(approach3(fitted))]
    except ValueError as error:
        lines = [f"no law yet: {error}"]
    try:
        lines.append(_exponent(approach2(records, replicates=REPLICATES)))
    except ValueError as error:
        lines.append(f"approach 2: not yet: {error}")
    return lines


def _exponent(frontier: Any) -> str:
    a = frontier.a
    interval = "" if a.low is None else f" ({a.low:.3f} to {a.high:.3f})"
    return f"approach {frontier.approach}: N* ∝ C^{a.value:.3f}{interval}"


def _frame(now: Progress, law: _Law, width: int) -> RenderableType:
    from rich.console import Group
    from rich.panel import Panel

    records = _complete(now)
    title = f"{now.study.name}: {len(now.records)} of {len(now.planned)} runs"
    parts: list[RenderableType] = [_total(now), *_runs(now, wide=width >= WIDE)]
    if picture := _curves(records):
        parts += ["", "loss, nats per token, against N; one mark a budget, + its optimum", picture]
    parts += ["", *law.lines(records)]
    return Panel(Group(*parts), title=title, title_align="left")


def _complete(now: Progress) -> Records | None:
    """Runs that a law may be fitted to: complete, and not the target."""
    from isoflop.record import Records
    from isoflop.sources.folder import TARGET, unfit

    runs = tuple(record for path, record in now.records.items() if path.parent.name != TARGET and unfit(record) is None)
    return Records(runs, source=now.study.name) if runs else None


def _total(now: Progress) -> Text:
    from rich.text import Text

    share = now.spent / now.flops if now.flops else 1.0
    left = now.seconds_left
    eta = "nothing runs now" if left is None else f"{_time(left)} left"
    if len(now.records) == len(now.planned):
        eta = "done"
    return Text.assemble(
        (_bar(share), "green"),
        f" {share:4.0%} · {now.spent:.3g} of {now.flops:.3g} FLOPs · {eta}",
    )


def _runs(now: Progress, *, wide: bool) -> list[Text]:
    """Draw a line a run under way, within 100 columns, or within 80 without its speed."""
    from rich.text import Text

    lines = []
    for run in sorted(now.underway, key=lambda run: -run.planned.flops)[:SHOWN]:
        model = run.planned.config.model
        share = run.step / run.steps
        at = f"{run.step:,}/{run.steps:,}" if wide else f"{share:4.0%}"
        rate = f" · {run.rate / 1e9:.3g} GFLOP/s" if wide else ""
        lines.append(
            Text.assemble(
                f"  d_model {model.d_model:>4}  {run.planned.flops:8.2g} FLOPs  ",
                (_bar(share, 20 if wide else 8), "cyan"),
                f" {at} · loss {run.loss:.3f}{rate if run.running else f' · silent {_time(run.silent)}'}",
            )
        )
    return lines


def _bar(share: float, width: int = 20) -> str:
    full = round(min(max(share, 0.0), 1.0) * width)
    return "━" * full + "─" * (width - full)


def _time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _curves(records: Records | None) -> Text | None:
    """Draw the IsoFLOP curves; None before two runs share a budget."""
    from rich.text import Text

    from isoflop.law.frontier import approach2, budgets
    from isoflop.report.terminal import Series, scatter

    if records is None:
        return None
    groups: dict[float, Sequence[int]] = {C: list(rows) for C, rows in budgets(records).items()}
    try:
        found = {minimum.budget: minimum for minimum in approach2(records, replicates=2).minima}
    except ValueError:
        found = {}
    series = []
    for C, rows in sorted(groups.items()):
        near = next((best for budget, best in found.items() if abs(budget / C - 1) < 0.1), None)
        runs = records.take(rows)
        series.append(Series(f"{C:.2g}", runs.N, runs.L, None if near is None else (near.params, near.loss)))
    text = Text()
    for line in scatter(series):
        for cell in line:
            text.append(cell.mark, style=cell.colour)
        text.append("\n")
    return text if series else None
