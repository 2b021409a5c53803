"""Executors: each trains run folders, and knows only folders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from isoflop.study.launch import local, ray, slurm
from isoflop.study.launch.event import Executor

ExecutorName = Literal["local", "slurm", "ray"]
EXECUTORS: Mapping[str, Executor] = {"local": local.run, "slurm": slurm.run, "ray": ray.run}
