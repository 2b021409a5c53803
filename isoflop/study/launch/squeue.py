"""What Slurm's own commands say of the tasks of job arrays, whatever of them a site has."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

Stage = Literal["waiting", "running", "ended"]
Task = tuple[int, int]
"""Job of an array, and the index within it."""
ANSWER = 60.0
"""Seconds that a command may take; a controller under load takes tens."""
COMPLETIONS = 4_000_000
"""Bytes at the end of the job-completion file that are searched: some ten thousand jobs of about 400 bytes."""

# the states of squeue(1) and sacct(1), section "JOB STATE CODES"; whatever is not here has ended
STAGES: Mapping[str, Stage] = {
    "PENDING": "waiting",
    "CONFIGURING": "waiting",
    "REQUEUED": "waiting",
    "REQUEUE_HOLD": "waiting",
    "REQUEUE_FED": "waiting",
    "RESV_DEL_HOLD": "waiting",
    "SPECIAL_EXIT": "waiting",
    "SUSPENDED": "waiting",
    "RUNNING": "running",
    "COMPLETING": "running",
    "SIGNALING": "running",
    "STAGE_OUT": "running",
    "STOPPED": "running",
}


def stage(state: str) -> Stage:
    """Return what a state of Slurm's means for a run."""
    return STAGES.get(state, "ended")


def call(*command: str) -> str | None:
    """Return what a command of Slurm's prints; None where it fails, is not there or does not answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def submit(script: Path, *options: str) -> int:
    """Queue a script; return its job.

    Raises:
        ValueError: Slurm refuses; the sentence is its own.
    """
    command = ["sbatch", "--parsable", *options, str(script)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise ValueError(
            "sbatch is not installed here; run this on a login node of the cluster, or leave --executor slurm out"
        ) from None
    if done.returncode:
        said = " ".join(done.stderr.replace("sbatch: error: ", "").split())
        raise ValueError(f"Slurm refuses the jobs: {said}; the options are in {script}")
    return int(done.stdout.split(";")[0])


def queued(names: Iterable[str]) -> dict[Task, str] | None:
    """States of the tasks of job arrays of these names that Slurm still holds; None where it does not answer."""
    said = call("squeue", "--noheader", "--array", "--states=all", f"--name={','.join(names)}", "--format=%F|%K|%T")
    if said is None:
        return None
    rows = (line.split("|") for line in said.splitlines())
    return {(int(job), int(index)): state for job, index, state in rows if index.isdigit()}


def ended(tasks: Sequence[Task]) -> dict[Task, str]:
    """States of tasks that have left the queue: from the accounting, or else from the job-completion file."""
    if not tasks:
        return {}
    jobs = ",".join(sorted({str(job) for job, _ in tasks}))
    said = call("sacct", "--noheader", "--allocations", "--parsable2", f"--jobs={jobs}", "--format=JobID,State")
    text = _completions() if said is None else ""
    pattern = r"\bJobState=(\w+).*\bArrayJobId=(\d+) ArrayTaskId=(\d+)"
    found = [(int(job), int(k), state) for state, job, k in re.findall(pattern, text)]
    found += [(int(job), int(k), state) for job, k, state in re.findall(r"(?m)^(\d+)_(\d+)\|(\w+)", said or "")]
    return {(job, index): state for job, index, state in found if (job, index) in set(tasks)}


def _completions() -> str:
    """The end of the job-completion file, where the site keeps one as text that we may read."""
    settings = re.findall(r"(?m)^(JobComp\w+)\s*= (.*)$", call("scontrol", "show", "config") or "")
    known: Mapping[str, str] = dict(settings)
    if known.get("JobCompType") != "jobcomp/filetxt":
        return ""
    try:
        with open(known["JobCompLoc"].strip(), "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - COMPLETIONS))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def peak(task: Task) -> str:
    """Memory that a task took at its most, as the accounting says it; nothing where there is none."""
    said = call("sacct", "--noheader", "--parsable2", f"--jobs={task[0]}_{task[1]}", "--format=MaxRSS") or ""
    sizes = [line for line in said.splitlines() if line and line[0].isdigit()]
    return f" at a peak of {max(sizes, key=_bytes)}" if sizes else ""


def _bytes(size: str) -> float:
    match = re.fullmatch(r"([\d.]+)([KMGT]?)", size)
    return float(match[1]) * 1024 ** " KMGT".index(match[2] or " ") if match else 0.0
