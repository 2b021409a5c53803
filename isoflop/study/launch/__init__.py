"""Executors: each trains run folders, and knows only folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from isoflop.study.launch import local

EXECUTORS: Mapping[str, Callable[..., None]] = {"local": local.run}
