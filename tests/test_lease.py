"""Run: python -m pytest tests/test_lease.py"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from isoflop.lm.lease import EXPIRED, held, hold

HOLD = """
import sys, time
from pathlib import Path
from isoflop.lm.lease import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def leases(folder: Path) -> list[Path]:
    return sorted(folder.glob("lease-*.json"))


def elsewhere(folder: Path, *, number: int = 7, silent: float = 0.0) -> Path:
    """A lease that another machine left."""
    path = folder / f"lease-{number:06d}.json"
    path.write_text(json.dumps({"host": "far", "pid": 1}))
    os.utime(path, (time.time() - silent, time.time() - silent))
    return path


def test_a_lease_names_its_owner_gives_signs_of_life_and_ends(tmp_path: Path) -> None:
    with hold(tmp_path, beat=0.01):
        (path,) = leases(tmp_path)
        assert json.loads(path.read_text()) == {"host": socket.gethostname(), "pid": os.getpid()}
        os.utime(path, (0, 0))
        until = time.monotonic() + 10
        while path.stat().st_mtime == 0 and time.monotonic() < until:
            time.sleep(0.01)
        assert path.stat().st_mtime > 0
    assert not leases(tmp_path)


def test_one_machine_has_one_owner_and_a_killed_one_is_replaced_at_once(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match="is being trained by another process; wait for it"), hold(tmp_path):
            pass
        other.send_signal(signal.SIGKILL)
        other.wait()
    with hold(tmp_path) as lease:
        assert leases(tmp_path) == [lease.path]


def test_a_living_owner_elsewhere_is_respected_and_a_silent_one_replaced(tmp_path: Path) -> None:
    theirs = elsewhere(tmp_path)
    with pytest.raises(ValueError, match="on far, which gave a sign of life 0 s ago"), hold(tmp_path):
        pass
    assert leases(tmp_path) == [theirs]
    os.utime(theirs, (time.time() - EXPIRED - 5, time.time() - EXPIRED - 5))
    with hold(tmp_path) as lease:
        assert leases(tmp_path) == [lease.path]
        assert lease.path.name == "lease-000008.json"


def test_a_late_owner_is_refused(tmp_path: Path) -> None:
    with hold(tmp_path) as lease:
        lease.check()
        elsewhere(tmp_path, number=2)
        lease.path.unlink()  # as whoever took it over does
        with pytest.raises(ValueError, match="was taken over by another process while this one gave no sign of life"):
            lease.check()


def test_of_many_who_find_a_silent_owner_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(tmp_path, silent=EXPIRED + 5)
    # machines that share no lock: each has a file of its own
    import contextlib

    monkeypatch.setattr("filelock.FileLock", lambda *_, **__: contextlib.nullcontext())
    gate, won, lost = threading.Barrier(8), list[str](), list[str]()

    def try_it() -> None:
        gate.wait()
        try:
            with hold(tmp_path) as lease:
                time.sleep(0.3)
                lease.check()
                won.append(lease.path.name)
        except ValueError as error:
            lost.append(str(error))

    monkeypatch.setattr("socket.gethostname", lambda: threading.current_thread().name)
    threads = [threading.Thread(target=try_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == ["lease-000008.json"]
    assert len(lost) == 7


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 3}'])
def test_a_damaged_lease_is_anyones_once_it_is_silent(tmp_path: Path, content: str) -> None:
    path = elsewhere(tmp_path, silent=EXPIRED + 5)
    path.write_text(content)
    with pytest.raises(ValueError, match="on an unknown machine"), hold(tmp_path):
        pass
    os.utime(path, (0, 0))
    with hold(tmp_path) as lease:
        lease.check()


def test_a_run_is_held_while_its_owner_gives_signs_of_life(tmp_path: Path) -> None:
    assert not held(tmp_path)
    elsewhere(tmp_path, number=3, silent=EXPIRED + 1)
    assert not held(tmp_path)
    with hold(tmp_path):
        assert held(tmp_path)
    assert not held(tmp_path)
