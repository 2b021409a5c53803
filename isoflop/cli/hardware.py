"""What there is to spend, in FLOPs or as time of devices: the same flags in every command that takes a budget."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from isoflop.devices import flops_of_hours, hours_of_flops
from isoflop.record import of_a_run

if TYPE_CHECKING:
    from isoflop.cli.target import Wanted


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """A budget as time of devices instead of --flops; with --flops, --device tells the time and --price the cost."""

    gpu_hours: float | None = None
    """Hours of one device, summed over all devices, instead of --flops."""
    hours: float | None = None
    """Hours on the clock of --count devices, instead of --flops."""
    device: str | None = None
    """Accelerator, such as h100 or tpu-v5p, which turns hours into FLOPs and FLOPs into hours."""
    count: int = 1
    """How many of them work at once."""
    mfu: float = 0.4
    """Part of their peak that training reaches, model FLOPs utilisation (arXiv:2407.21783: 0.38 to 0.43 at 405B)."""
    price: float | None = None
    """Price per GPU-hour, in your currency."""

    def __post_init__(self) -> None:
        if self.price is not None and not 0 <= self.price < math.inf:
            raise ValueError(f"--price {self.price:g} per GPU-hour must be 0 or more, and finite")
        idle = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        if idle and self.device is None:
            flags = [f"--{name.replace('_', '-')} {getattr(self, name):g}" for name in idle]
            verb = "needs" if len(flags) == 1 else "need"
            raise ValueError(f"{' and '.join(flags)} {verb} --device; give one, such as --device h100")

    def flops(self, given: float | None) -> float:
        """Return the FLOPs that are given, or those of the device's hours.

        Raises:
            ValueError: none or several are given, or a number that cannot be.
        """
        asked = {"--flops": given, "--gpu-hours": self.gpu_hours, "--hours": self.hours}
        said = [f"{flag} {value:g}" for flag, value in asked.items() if value is not None]
        if len(said) != 1:
            told = " and ".join(said) + " were given" if said else "none was given"
            raise ValueError(f"a budget is --flops, or --device with --gpu-hours or --hours, but {told}; give one")
        if given is not None:
            of_a_run(f"--flops {given:g}", given)
            return given
        assert self.device is not None
        if self.hours is not None:
            return flops_of_hours(self.device, self.count, self.hours, self.mfu)
        assert self.gpu_hours is not None
        return flops_of_hours(self.device, 1, self.gpu_hours, self.mfu)

    def of(self, run: Wanted) -> Wanted:
        """Return a run whose FLOPs are those of the hours, where hours are given."""
        if self.gpu_hours is None and self.hours is None:
            return run
        return replace(run, flops=self.flops(run.flops))

    def bill(self, flops: float) -> dict[str, float | None]:
        """Hours on the clock, GPU-hours and cost of so many FLOPs; None what device or price do not tell."""
        if self.device is None:
            return {"hours": None, "gpu_hours": None, "cost": None}
        hours = hours_of_flops(self.device, self.count, flops, self.mfu)
        cost = None if self.price is None else self.price * self.count * hours
        return {"hours": hours, "gpu_hours": self.count * hours, "cost": cost}

    def told(self, flops: float) -> list[str]:
        """Time and cost of so many FLOPs in words; nothing where no device is named."""
        bill = self.bill(flops)
        if bill["hours"] is None:
            return []
        line = f"{_plain(bill['hours'])} hours on {self.count} × {self.device} at {self.mfu:.0%} of the peak (MFU), "
        line += f"{_plain(bill['gpu_hours'])} GPU-hours"
        if self.price is not None:
            line += f"; cost {_plain(bill['cost'])} in your currency, at {self.price:g} per GPU-hour"
        return [line]


def _plain(value: float | None) -> str:
    """Hours and money as a bill has them: 10,000 and not 1e+04."""
    assert value is not None
    return f"{value:,.0f}" if 1000 <= value < 1e12 else f"{value:.4g}"


HARDWARE = Hardware()
