"""Whether the kernel has ended processes for want of memory."""

from __future__ import annotations

import re
from pathlib import Path


def oom_kills(root: Path = Path("/")) -> int:
    """Count the processes that the kernel has ended for want of memory, in this control group or else on this machine.

    The sources are the kernel's documents admin-guide/cgroup-v2 (memory.events), cgroup-v1/memory (memory.oom_control)
    and /proc/vmstat; 0 where none of them is there.
    """
    for path in (*_groups(root), root / "proc/vmstat"):
        try:
            found = re.search(r"(?m)^oom_kill (\d+)$", path.read_text())
        except OSError:
            continue
        if found:
            return int(found[1])
    return 0


def _groups(root: Path) -> list[Path]:
    """Where the control group of this process counts, newer kernels first."""
    try:
        text = (root / "proc/self/cgroup").read_text()
    except OSError:
        return []
    mount = root / "sys/fs/cgroup"
    unified = re.findall(r"(?m)^0::/(.*)$", text)
    own = re.findall(r"(?m)^\d+:memory:/(.*)$", text)
    return [mount / name / "memory.events" for name in unified] + [
        mount / "memory" / name / "memory.oom_control" for name in own
    ]
