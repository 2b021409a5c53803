"""Fits of L = E + A/N^α + B/D^β by other means; run by benchmarks/fit.py in an environment of its own.

python benchmarks/fit_peers.py METHOD RUNS.json REPLICATES

{"N": [...], "D": [...], "L": [...]} in, one JSON object out.
"""

from __future__ import annotations

import itertools
import json
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

DELTA = 1e-3
Runs = dict[str, np.ndarray]
Values = dict[str, float]
NAMES = ("E", "A", "B", "alpha", "beta")


def cpu() -> float:
    """CPU seconds of this process and of those that it has waited for."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def curve_fit(runs: Runs) -> tuple[Values, str]:
    """Least squares of L in linear space from one start, as scipy's own documentation would have it."""
    from scipy.optimize import curve_fit as scipy_curve_fit

    def law(x: np.ndarray, E: float, A: float, B: float, alpha: float, beta: float) -> np.ndarray:
        return E + A * x[0] ** -alpha + B * x[1] ** -beta

    start, high = (1.7, 400, 400, 0.34, 0.28), (10, 1e7, 1e7, 1, 1)
    found, _ = scipy_curve_fit(
        law, np.stack([runs["N"], runs["D"]]), runs["L"], p0=start, bounds=(0, high), maxfev=100_000
    )
    return dict(zip(NAMES, map(float, found), strict=True)), "started at the published constants"


def grid(runs: Runs) -> tuple[Values, str]:
    """L-BFGS from 4500 starts on Huber's loss of ln L: arXiv:2203.15556, appendix D.3."""
    from scipy.optimize import minimize

    ln_n, ln_d, ln_l = (np.log(runs[letter]) for letter in "NDL")

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        a, b, e, alpha, beta = x
        parts = np.stack([a - alpha * ln_n, b - beta * ln_d, np.full_like(ln_n, e)])
        top = parts.max(0)
        share = np.exp(parts - top)
        total = share.sum(0)
        residual = top + np.log(total) - ln_l
        share /= total
        size = np.abs(residual)
        rho = np.where(size <= DELTA, residual**2 / 2, DELTA * (size - DELTA / 2))
        psi = np.clip(residual, -DELTA, DELTA)
        slopes = (share[0], share[1], share[2], -ln_n * share[0], -ln_d * share[1])
        return float(rho.sum()), np.array([psi @ slope for slope in slopes])

    starts = itertools.product(
        np.arange(0, 30, 5.0),
        np.arange(0, 30, 5.0),
        np.arange(-1, 1.5, 0.5),
        np.arange(0, 2.5, 0.5),
        np.arange(0, 2.5, 0.5),
    )
    found = [minimize(objective, start, jac=True, method="L-BFGS-B") for start in starts]
    best = min(found, key=lambda one: one.fun)
    arrived = np.mean([one.fun < best.fun * (1 + 1e-4) for one in found])
    a, b, e, alpha, beta = map(float, best.x)
    values = {"E": np.exp(e), "A": np.exp(a), "B": np.exp(b), "alpha": alpha, "beta": beta}
    return values, f"{100 * arrived:.1f} % of {len(found)} starts come within 1e-4 of the best"


def chinchilla(runs: Runs) -> tuple[Values, str]:
    """PyPI `chinchilla`: BFGS over a grid, with the paper's loss and 3^5 starts about the published constants."""
    from chinchilla import Chinchilla
    from chinchilla._metrics import log_huber

    def loss(y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return log_huber(y_true, np.maximum(y_pred, 1e-300), delta=DELTA) * 1e3  # BFGS stops at absolute tolerances

    starts = {
        "e": [-0.5, 0.5, 1.0],
        "a": [3, 6, 9],
        "b": [3, 6, 9],
        "alpha": [0.2, 0.35, 0.5],
        "beta": [0.2, 0.35, 0.5],
    }
    with tempfile.TemporaryDirectory() as folder:
        one = Chinchilla(
            folder,
            param_grid={name: np.array(column, dtype=float) for name, column in starts.items()},
            seed_ranges={"C": (1e18, 1e22), "N_to_D": (1, 100)},
            loss_fn=loss,
            scaling_factor=2.0,
            log_level=40,
        )
        for n, d, value in zip(*(runs[letter] for letter in "NDL"), strict=True):
            one.append(N=n, D=d, loss=value)
        one.fit(parallel=False)
        return {name: float(value) for name, value in one.get_params().items()}, "243 starts"


def simple_scaling_laws(runs: Runs, draws: int = 1) -> tuple[Values, str]:
    """PyPI `simple-scaling-laws`: squares of L, linear parameters solved on a grid of exponents, then polished.

    Its bounds on A and B for normalised N and D, and its bootstrap of at least one draw, are its own.
    """
    import polars
    from simple_scaling_laws import fit

    columns = {"model_size__N": runs["N"], "dataset_size__D": runs["D"], "test_loss__L": runs["L"]}
    runs_of_their_own = [str(i) for i in range(len(runs["L"]))]
    table = polars.DataFrame({"training_run_id": runs_of_their_own, "test_set_id": "one", **columns})
    found = fit(table, law="separable-power", n_draws=draws, seed=0)
    values = dict(found.params("test_loss__L"))
    for level, exponent, column in (("A", "alpha", "model_size__N"), ("B", "beta", "dataset_size__D")):
        values[level] *= found.observed_domain[column]["reference"] ** values[exponent]
    return values, f"with {draws} replicate" + "s" * (draws > 1)


def simple_scaling_laws_replicates(runs: Runs) -> tuple[Values, str]:
    """The same with as many replicates as asked for, of which the fit is a small part."""
    return simple_scaling_laws(runs, int(sys.argv[3]))


METHODS: dict[str, Callable[[Runs], tuple[Values, str]]] = {
    "curve_fit": curve_fit,
    "grid": grid,
    "chinchilla": chinchilla,
    "simple_scaling_laws": simple_scaling_laws,
    "simple_scaling_laws_replicates": simple_scaling_laws_replicates,
}
WARM = ("curve_fit", "simple_scaling_laws")
"""What is fitted once before it is timed: fast enough for an import to count."""


def main() -> None:
    """Fit once and print constants, CPU seconds and a remark."""
    runs = {letter: np.array(column) for letter, column in json.loads(Path(sys.argv[2]).read_text()).items()}
    with np.errstate(all="ignore"):
        if sys.argv[1] in WARM:
            METHODS[sys.argv[1]](runs)
        began = cpu()
        values, remark = METHODS[sys.argv[1]](runs)
    print(json.dumps({"values": values, "seconds": cpu() - began, "remark": remark}))


if __name__ == "__main__":
    main()
