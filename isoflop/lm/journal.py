"""Who trained a run, and from which step to which: lines that are only ever added, so that they tell on everyone."""

from __future__ import annotations

import functools
import json
import os
import socket
from pathlib import Path
from typing import Any

import psutil

from isoflop.files import read_json_lines

JOURNAL = "journal.jsonl"


def note(run: Path, **what: int) -> None:
    """Add a line to a run's journal: `began`, `saved` or `done` at a step, and the process that did it."""
    line = json.dumps({"owner": _owner(os.getpid()), **what})
    # one write in append mode: lines of two processes never mix, should there ever be two
    with (run / JOURNAL).open("ab", buffering=0) as file:
        file.write(line.encode() + b"\n")


def read_journal(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's journal, oldest first; one that a crash cut short is passed over."""
    return read_json_lines(run / JOURNAL)


def trained_twice(run: Path) -> str | None:
    """Say what of a run was trained more than once, steps that a killed process had not saved left out; None: nothing.

    A process begins where the last one saved, no other process speaks before it ends, and nobody begins a run that is
    done.
    """
    owner, saved, done = "", 0, False
    for line in read_journal(run):
        if "began" in line:
            if done:
                return f"{line['owner']} began it at step {line['began']} after it was done"
            if line["began"] < saved:
                return f"{line['owner']} began it at step {line['began']}, though step {saved} was saved"
            owner = line["owner"]
        elif line["owner"] != owner:
            return f"{line['owner']} trained it while {owner} did"
        elif "done" in line:
            if done:
                return f"{owner} finished it twice"
            done = True
        else:
            saved = line["saved"]
    return None


@functools.cache
def _owner(pid: int) -> str:
    """Host, process and when it started, so that no two processes share a name."""
    return f"{socket.gethostname()}:{pid}:{psutil.Process(pid).create_time():.2f}"
