"""isoflop: a laboratory for neural scaling laws."""

from __future__ import annotations

__version__ = "0.1.0"
