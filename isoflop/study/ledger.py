"""What a study has spent, what is promised to runs that are not done, and what its caps leave."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import filelock

from isoflop.config import read_run
from isoflop.files import read_json, write_json
from isoflop.record import Record
from isoflop.sources.index import read_records
from isoflop.sources.log import last_line
from isoflop.study.study import Study

LEDGER = "ledger.json"
"""In a study's folder: FLOPs promised to runs that somebody means to train, by run folder."""
LOOK = 5.0
"""Seconds between looks at what running runs have used."""
FLAGS = {"FLOPs": "--cap-flops", "hours": "--cap-hours", "money": "--cap-cost"}
"""What `isoflop study run FOLDER` takes to raise a cap."""
RAISE = "`isoflop study run FOLDER` goes on with a higher"
PLACES = ("runs", "target")
"""Folders of a study whose runs it pays for."""


class Amount(NamedTuple):
    """What training takes, or may take."""

    flops: float = 0.0
    hours: float = 0.0
    """Hours of a process."""

    def plus(self, other: Amount) -> Amount:
        """Add two amounts."""
        return Amount(self.flops + other.flops, self.hours + other.hours)


@dataclass(frozen=True, kw_only=True)
class Balance:
    """The state of a study's account."""

    spent: Amount
    """By runs that are done, and by what failed, stopped and running ones have used so far."""
    reserved: Amount
    """What the runs under way may still use."""
    study: Study

    @property
    def left(self) -> dict[str, float]:
        """What each cap leaves after what is spent and reserved, by its unit: FLOPs, hours, money."""
        both, price = self.spent.plus(self.reserved), self.study.price_per_hour
        used = {"FLOPs": both.flops, "hours": both.hours, "money": both.hours * (price or 0.0)}
        return {unit: cap - used[unit] for unit, cap in _caps(self.study).items()}

    def refuses(self, wanted: Amount) -> str | None:
        """Why a run of this cost may not start; None if every cap has room for it."""
        costs = {"FLOPs": wanted.flops, "hours": wanted.hours, "money": wanted.hours * (self.study.price_per_hour or 0)}
        for unit, left in self.left.items():
            if costs[unit] > left * (1 + 1e-9) or left <= 0:
                cap = _caps(self.study)[unit]
                said = f"the cap of {cap:.4g} {unit} leaves {max(left, 0.0):.3g}, and it needs {costs[unit]:.3g}"
                return f"{said}; {RAISE} {FLAGS[unit]}"
        return None


@dataclass
class Ledger:
    """The account of a study's folder, shared by everyone who trains its runs."""

    folder: Path
    study: Study
    _looked: float = field(default=-LOOK, repr=False)

    def balance(self, known: Mapping[Path, Record] | None = None) -> Balance:
        """Read the account from the folders, and the promises from the ledger; `known` are records read already."""
        promised = self._promised()
        used, rate = self._used(known)
        spent = _sum(used.values())
        reserved = [_rest(Amount(flops, flops * rate), used.get(run, Amount())) for run, flops in promised.items()]
        return Balance(spent=spent, reserved=_sum(reserved), study=self.study)

    def charges(self) -> dict[str, Amount]:
        """What each run has used so far, by its place and name: `runs/<id>`."""
        return self._used()[0]

    def reserve(self, runs: Mapping[Path, float]) -> dict[Path, str]:
        """Promise FLOPs to runs in the order given, while the caps last; return those refused, with the reason.

        Who reserves holds the study's lock, so that any number of them together stay within the caps. What a run has
        used already, from whose checkpoint it goes on, is not asked for again.
        """
        refused: dict[Path, str] = {}
        with self._lock():
            promised = self._promised()
            used, rate = self._used()
            spent = _sum(used.values())
            open_promises = {
                run: _rest(Amount(flops, flops * rate), used.get(run, Amount())) for run, flops in promised.items()
            }
            for folder, flops in runs.items():
                name = self._name(folder)
                wanted = _rest(Amount(flops, flops * rate), used.get(name, Amount()))
                others = _sum(amount for run, amount in open_promises.items() if run != name)
                now = Balance(spent=spent, reserved=others, study=self.study)
                if reason := now.refuses(wanted):
                    refused[folder] = reason
                    promised.pop(name, None)
                    open_promises.pop(name, None)
                else:
                    promised[name], open_promises[name] = flops, wanted
            write_json(self.folder / LEDGER, promised)
        return refused

    def release(self, folders: Iterable[Path]) -> None:
        """Take promises back: a run that is done, failed or was called off has cost what it used, and no more."""
        with self._lock():
            gone = {self._name(folder) for folder in folders}
            write_json(self.folder / LEDGER, {run: C for run, C in self._promised().items() if run not in gone})

    def exhausted(self) -> str | None:
        """Which cap is used up, looked for every `LOOK` seconds; None while none is, or where it was just looked."""
        now = time.monotonic()
        if now - self._looked < LOOK or not _caps(self.study):
            return None
        self._looked = now
        used, _ = self._used()
        balance = Balance(spent=_sum(used.values()), reserved=Amount(), study=self.study)
        over = [unit for unit, left in balance.left.items() if left < 0]
        if not over:
            return None
        return f"the study's cap of {_caps(self.study)[over[0]]:.4g} {over[0]} is used up; {RAISE} {FLAGS[over[0]]}"

    def _used(self, known: Mapping[Path, Record] | None = None) -> tuple[dict[str, Amount], float]:
        """What each run has used so far, and hours per FLOP of those that are done (0 before the first)."""
        if known is None:
            known = {
                self.folder / place / name: record
                for place in PLACES
                for name, record in read_records(self.folder / place).items()
            }
        used = {self._name(run): cost(record) for run, record in known.items()}
        done = _sum(used.values())
        every = {f"{place}/{run}" for place in PLACES for run in _names(self.folder / place)}
        for run in every - used.keys():
            log = self.folder / run / "log.jsonl"
            if log.exists() and (line := last_line(log)):
                trained = 1 - _first_step(log.parent) / line["step"]
                used[run] = Amount(line["flops"] * trained, line["seconds"] / 3600)
        return used, done.hours / done.flops if done.flops else 0.0

    def _promised(self) -> dict[str, float]:
        path = self.folder / LEDGER
        value = read_json(path) if path.exists() else {}
        if not isinstance(value, dict) or not all(isinstance(flops, (int, float)) for flops in value.values()):
            raise ValueError(f"{path} is no ledger; delete it, and what is under way is promised anew")
        return {run: flops for run, flops in value.items() if not (self.folder / run / "record.json").exists()}

    def _name(self, run: Path) -> str:
        return f"{run.parent.name}/{run.name}"

    def _lock(self) -> filelock.BaseFileLock:
        return filelock.FileLock(self.folder / "ledger.lock")


def cost(record: Record) -> Amount:
    """What a run cost itself: a branch does not pay for its trunk."""
    own = record.measured.get("spent_flops", record.flops)
    return Amount(float(own), float(record.measured.get("seconds", 0.0)) / 3600)


def _first_step(run: Path) -> int:
    """Steps that a run's trunk has paid for; a damaged configuration is its trainer's to tell."""
    try:
        return read_run(run).first_step
    except (OSError, ValueError):
        return 0


def _names(parent: Path) -> list[str]:
    return os.listdir(parent) if parent.is_dir() else []


def _caps(study: Study) -> dict[str, float]:
    caps = {"FLOPs": study.cap_flops, "hours": study.cap_hours, "money": study.cap_cost}
    return {unit: cap for unit, cap in caps.items() if cap is not None}


def _rest(whole: Amount, used: Amount) -> Amount:
    return Amount(max(0.0, whole.flops - used.flops), max(0.0, whole.hours - used.hours))


def _sum(amounts: Iterable[Amount] | Sequence[Amount]) -> Amount:
    total = Amount()
    for amount in amounts:
        total = total.plus(amount)
    return total


def told(balance: Balance) -> str:
    """Say what is spent, reserved and left, in a line."""
    price = balance.study.price_per_hour
    money = "" if price is None else f", cost {balance.spent.hours * price:.4g}"
    line = f"spent {balance.spent.flops:.4g} FLOPs, {balance.spent.hours:.3g} process-hours{money}"
    line += f"; reserved {balance.reserved.flops:.3g} FLOPs"
    for unit, left in balance.left.items():
        line += f"; left {max(left, 0.0):.3g} of {_caps(balance.study)[unit]:.4g} {unit}"
    return line
