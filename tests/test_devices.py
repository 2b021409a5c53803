"""python -m pytest tests/test_devices.py"""

import subprocess
import sys

import pytest

from isoflop.devices import DEVICES, device, flops_of_hours, hours_of_flops


@pytest.mark.parametrize("name", DEVICES)
def test_every_device_has_positive_numbers_and_a_source(name: str) -> None:
    peak, memory, source = DEVICES[name]
    assert name == name.lower()
    # FLOP/s of an accelerator of this decade and bytes of its memory; a slip of the unit falls outside
    assert 5e13 < peak < 1e16
    assert 8e9 < memory < 1e12
    assert any(site in source for site in ("github.com/", "docs.cloud.google.com/"))


def test_the_devices_people_ask_for_are_there() -> None:
    wanted = {"a10", "a100", "h100", "h200", "b200", "l4", "l40s", "rtx3090", "rtx4090", "v100", "t4", "mi300x"}
    assert wanted | {"tpu-v4", "tpu-v5e", "tpu-v5p", "tpu-v6e"} <= set(DEVICES)


def test_peaks_are_dense() -> None:
    # tables that print sparse numbers show the A100 at 624, the H100 at 1,979 and the B200 at 4,500 TFLOP/s
    assert [DEVICES[name].peak for name in ("a100", "h100", "b200")] == [312e12, 989.5e12, 2250e12]


def test_a_name_is_found_whatever_its_case() -> None:
    assert device("H100") == device("h100") and device("RTX 4090") == DEVICES["rtx4090"]


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"device='H1000' is not known, perhaps you meant 'h100'; choose one of v100"):
        device("H1000")
    with pytest.raises(ValueError, match=r"device='abacus' is not known; choose one of"):
        device("abacus")


def test_hours_and_flops_are_each_others_inverse() -> None:
    # 8 H100 for a day at 40 %: 989.5e12 · 8 · 86400 · 0.4
    assert flops_of_hours("h100", 8, 24, 0.4) == pytest.approx(2.7357696e20)
    assert hours_of_flops("h100", 8, 2.7357696e20, 0.4) == pytest.approx(24)


@pytest.mark.parametrize(
    ("count", "hours", "mfu", "message"),
    [
        (0, 1, 0.4, "count=0 must be at least 1"),
        (1, 0, 0.4, "hours=0 must be positive and finite"),
        (1, float("nan"), 0.4, "hours=nan must be positive"),
        (1, float("inf"), 0.4, "hours=inf must be positive and finite"),
        (1, 1, 40, "mfu=40 is the part of the peak"),
        (1, 1, 0, "mfu=0 is the part of the peak"),
    ],
)
def test_impossible_numbers_are_refused(count: int, hours: float, mfu: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        flops_of_hours("a100", count, hours, mfu)


def test_the_table_needs_no_torch() -> None:
    code = "import sys, isoflop.devices; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
