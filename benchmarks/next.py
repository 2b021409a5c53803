"""How far `isoflop next` gets with a fraction of a sweep's FLOPs, on a known surface: python benchmarks/next.py.

A 72-run IsoFLOP sweep (9 budgets of 8 sizes within ×/÷ 4) of a published law with noise 0.01 in ln L,
against a pilot of the three smallest budgets and what `advise` adds. Errors are those of fits to freshly drawn noise.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from isoflop.law.advise import advise
from isoflop.law.fit import Fit, fit
from isoflop.law.laws import LAWS, PUBLISHED, optimum
from isoflop.law.published import Published
from isoflop.law.simulate import isoflop_design, simulate
from isoflop.record import Floats

BUDGETS = np.array([6e18, 1e19, 3e19, 6e19, 1e20, 3e20, 6e20, 1e21, 3e21])
"""FLOPs of Stanford CS336's sweep of 72 runs."""
NOISE = 0.01
TARGETS = (1e24, 3e22)
"""FLOPs at which the two are compared; runs are advised for the first."""


def errors(fitted: Fit, target: float, true: Published) -> tuple[float, float]:
    """Errors of ln L at the target's true optimum, and of ln N*."""
    best = optimum(LAWS[true.law].terms(true.parameters), target)
    true = LAWS[true.law](N=best.N, D=best.D, **true.parameters)
    loss = np.log(np.asarray(fitted.loss(best.N, best.D)) / np.asarray(true))
    return float(loss), float(np.log(np.asarray(fitted.optimum(target).N) / np.asarray(best.N)))


def sweep(rng: np.random.Generator, true: Published) -> tuple[Fit, float]:
    """Fit the whole sweep once; return its FLOPs too."""
    N, D = isoflop_design(true.law, true.parameters, BUDGETS, sizes=8, span=4.0)
    records = simulate(true.law, true.parameters, N=N, D=D, noise=NOISE, rng=rng)
    return fit(records), float(records.C.sum())


def advised(
    rng: np.random.Generator, true: Published, flops: float, *, rounds: int, smallest: float | None
) -> tuple[Fit, float]:
    """Fit a pilot, then what is advised with the other FLOPs, in rounds; return the FLOPs spent too."""
    N, D = isoflop_design(true.law, true.parameters, BUDGETS[:3], sizes=4, span=4.0)
    draws = simulate(true.law, true.parameters, N=N, D=D, noise=NOISE, rng=rng)
    records, spent = draws, float(draws.C.sum())
    share = (flops - spent) / rounds
    for _ in range(rounds):
        told = advise(fit(records), share, target=TARGETS[0], noise=NOISE, smallest=smallest)
        N = np.concatenate([records.N, [run.params for run in told.runs]])
        D = np.concatenate([records.D, [run.tokens for run in told.runs]])
        new = simulate(true.law, true.parameters, N=N[len(records) :], D=D[len(records) :], noise=NOISE, rng=rng)
        records = type(records)(records.runs + new.runs, source=records.source, convention="given")
        spent += told.spent
    return fit(records), spent


def main() -> None:
    """Print root mean square errors of both designs, and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=100)
    parser.add_argument("--part", type=float, default=0.15, help="FLOPs of the advised design over the sweep's")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--smallest", type=float, help="fewest FLOPs of a run; default: what `isoflop next` chooses")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--law", default="besiroglu2024", help="published constants that are the truth")
    args = parser.parse_args()
    true = PUBLISHED[args.law]
    rng = np.random.default_rng(0)
    whole = [sweep(rng, true) for _ in range(args.replicates)]
    flops = whole[0][1]
    few = [
        advised(rng, true, args.part * flops, rounds=args.rounds, smallest=args.smallest)
        for _ in range(args.replicates)
    ]
    result = {
        "sweep": {f"{C:.3g}": summary([fitted for fitted, _ in whole], C, true) for C in TARGETS},
        "advised": {f"{C:.3g}": summary([fitted for fitted, _ in few], C, true) for C in TARGETS},
        "flops": [flops, float(np.mean([spent for _, spent in few]))],
        "least": float(np.mean([fitted.records.C.min() for fitted, _ in few])),
        "runs": [len(whole[0][0].records), float(np.mean([len(fitted.records) for fitted, _ in few]))],
    }
    print(json.dumps(result) if args.json else report(result))


def summary(fits: list[Fit], target: float, true: Published) -> dict[str, float]:
    """Root mean square of the errors, and half the width of their central 68 %, which outliers do not move."""
    table: Floats = np.array([errors(fitted, target, true) for fitted in fits])
    half = (np.percentile(table, 84, axis=0) - np.percentile(table, 16, axis=0)) / 2
    rms = np.sqrt((table**2).mean(0))
    return {"loss_rms": float(rms[0]), "size_rms": float(rms[1]), "loss_68": float(half[0]), "size_68": float(half[1])}


def report(result: dict) -> str:
    """Lay the two designs side by side."""
    lines = [
        f"{result['runs'][0]} runs of {result['flops'][0]:.3g} FLOPs against {result['runs'][1]:.1f} runs of "
        f"{result['flops'][1]:.3g} ({result['flops'][1] / result['flops'][0]:.1%})",
        f"  smallest run: {BUDGETS[0]:.3g} against {result['least']:.3g} FLOPs; the true law holds everywhere",
        f"  {'':<22} {'sweep':>9} {'advised':>9} {'ratio':>7}",
    ]
    names = {"loss_rms": "ln L, rms", "size_rms": "ln N*, rms", "loss_68": "ln L, 68 %", "size_68": "ln N*, 68 %"}
    for target in result["sweep"]:
        for key, name in names.items():
            a, b = result["sweep"][target][key], result["advised"][target][key]
            lines.append(f"  {f'{target}: {name}':<22} {a:>9.4f} {b:>9.4f} {b / a:>7.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
