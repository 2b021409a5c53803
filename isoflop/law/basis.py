"""What losses are predicted by: a law fitted to runs, or a published one, and what it knows of repeated tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from isoflop.counts import number_of
from isoflop.law.fit import Fit
from isoflop.law.fit import fit as fit_law
from isoflop.law.lawful import lawful
from isoflop.law.laws import LAWS, PUBLISHED, Terms, Value
from isoflop.law.repetition import MUCH, effective
from isoflop.record import ParamConvention, Records

REPEATED = "data_constrained"
"""Key of LAWS: the law that knows repeated tokens."""


@dataclass(frozen=True)
class Basis:
    """What losses are predicted by: a fit of runs, or a published law."""

    law: str
    """Key of LAWS."""
    parameters: Mapping[str, float]
    named: str
    """What to print: whose constants made a number."""
    convention: ParamConvention
    """How the law counts N; `given` by an outside table is taken as `total`."""
    fit: Fit | None = None
    """The fit, which knows the runs; None for a published law."""
    tried: Records | None = None
    """All the runs, those of other learning rates too; None: those of the fit."""
    faded: Mapping[str, float] = field(default_factory=dict)
    """Constants of repetition that the runs tell, where the law has none (`with_repetition`)."""
    notes: tuple[str, ...] = ()
    """What a reader must know of it."""

    @property
    def terms(self) -> Terms:
        """The falling part of the loss."""
        return LAWS[self.law].balance(self.parameters)

    @property
    def fades(self) -> dict[str, float]:
        """R*_D and R*_N: the law's own, or those fitted to the runs, or those of arXiv:2305.16264."""
        known = PUBLISHED["muennighoff2023"].parameters
        return {name: self.parameters.get(name, self.faded.get(name, known[name])) for name in ("R_D", "R_N")}

    @property
    def counted(self) -> str:
        """Key of `params_by_convention` under which a shape's N enters the law."""
        return "total" if self.convention == "given" else self.convention

    @property
    def records(self) -> Records | None:
        """The runs, where there are any."""
        return None if self.fit is None else self.fit.records

    def loss(self, N: Value, D: Value, unique: float | None = None) -> Value:
        """L of the law, nats per token; with unique tokens, of N' and D' (arXiv:2305.16264)."""
        law = LAWS[self.law]
        if unique is not None and "U" not in law.variables:
            N, D = self.worth(N, D, unique)
        return law.loss(self.parameters, N=N, D=D, U=unique)

    def worth(self, N: Value, D: Value, unique: Value) -> tuple[Value, Value]:
        """Return N' and D' by the law's own constants of repetition, or by those of arXiv:2305.16264."""
        return effective(N, D, unique, **self.terms._asdict(), **self.fades)

    def worths(self) -> Records:
        """Return the runs with N' and D' for N and D where the law was fitted to repeated tokens; else as they are."""
        runs = self.fit.records if self.fit is not None else None
        assert runs is not None
        if "U" not in LAWS[self.law].variables:
            return runs
        N, D = (np.asarray(part, dtype=np.float64) for part in self.worth(runs.N, runs.D, runs.U))
        changed = zip(runs.runs, N.tolist(), D.tolist(), strict=True)
        return replace(runs, runs=tuple(replace(run, params={runs.convention: n}, tokens=d) for run, n, d in changed))


def published(name: str) -> Basis:
    """Return a published law as a basis.

    Raises:
        ValueError: there is no such law.
    """
    if name not in PUBLISHED:
        raise ValueError(f"{name!r} is no published law; choose one of {', '.join(PUBLISHED)}")
    law = PUBLISHED[name]
    convention: Any = law.convention
    return Basis(law.law, law.parameters, f"{name} ({law.source})", convention)


def fitted(fit: Fit, *, tried: Records | None = None, notes: tuple[str, ...] = ()) -> Basis:
    """Return a fit of runs as a basis; it may leave out runs that were tried."""
    named = f"{fit.law} fitted to {number_of(len(fit.records), 'run')} of {fit.records.source}"
    return Basis(fit.law, fit.values, named, fit.records.convention, fit, tried or fit.records, notes=notes)


def with_repetition(basis: Basis) -> Basis:
    """Return the basis with what its runs tell of repeated tokens: R*_D and R*_N of a data-constrained fit to them."""
    runs = basis.tried
    if runs is None or "R_D" in basis.parameters or any(run.unique_tokens is None for run in runs.runs):
        return basis
    if not (runs.D > MUCH * runs.U).any():
        return basis
    try:
        own = fit_law(lawful(runs, law=REPEATED)[0], law=REPEATED)
    except ValueError as reason:
        return replace(basis, notes=(*basis.notes, f"the runs do not tell how repeated tokens fade: {reason}"))
    if own.parameters["R_D"].status != "identified":
        open_ = f"the runs leave R*_D, how fast repeated tokens fade, open (a fit says {own.values['R_D']:.3g})"
        return replace(basis, notes=(*basis.notes, open_))
    faded = {name: own.values[name] for name in ("R_D", "R_N") if own.parameters[name].status == "identified"}
    return replace(basis, faded=faded)
