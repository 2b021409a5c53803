"""python -m pytest tests/test_memory.py"""

from pathlib import Path

import pytest

from isoflop.study.launch.memory import oom_kills

GROUP = "0::/jobs/7\n"
OLD_GROUP = "5:cpu:/\n4:memory:/jobs/7\n0::/\n"


def kernel(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("group", "place", "text"),
    [
        (GROUP, "sys/fs/cgroup/jobs/7/memory.events", "low 0\noom 4\noom_kill 3\noom_group_kill 0\n"),
        (OLD_GROUP, "sys/fs/cgroup/memory/jobs/7/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
        ("", "proc/vmstat", "nr_free_pages 9\noom_kill 3\n"),
    ],
)
def test_kills_are_counted_wherever_the_kernel_tells_them(tmp_path: Path, group: str, place: str, text: str) -> None:
    kernel(tmp_path, **{"proc/self/cgroup": group, place: text})
    assert oom_kills(tmp_path) == 3


def test_the_own_group_comes_before_the_machine(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": GROUP, "proc/vmstat": "oom_kill 9\n"}
    kernel(tmp_path, **files)
    assert oom_kills(tmp_path) == 9
    kernel(tmp_path, **{"sys/fs/cgroup/jobs/7/memory.events": "oom_kill 0\n"})
    assert oom_kills(tmp_path) == 0


def test_a_kernel_that_tells_nothing_has_killed_nothing(tmp_path: Path) -> None:
    assert oom_kills(tmp_path) == 0
