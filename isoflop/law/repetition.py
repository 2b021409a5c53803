"""What repeated tokens, and parameters beyond what the unique ones call for, are worth (arXiv:2305.16264)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Value = float | NDArray[Any]
MUCH = 4.0
"""Epochs beyond which a token is worth visibly less than a fresh one (arXiv:2305.16264)."""


def worth(amount: Value, unique: Value, fade: Value) -> Value:
    """Return how much of the unique an amount of it and its repetitions is worth.

    U·(1 + R·(1 − e^(−r/R))) with r = amount/U − 1 repetitions (arXiv:2305.16264, equation 5).

    Args:
        amount: Tokens seen, or parameters; at least the unique ones.
        unique: U.
        fade: R, the repetitions after which a further one has lost most of its worth.
    """
    return unique * (1 - fade * np.expm1((1 - amount / unique) / fade))


def effective(
    N: Value, D: Value, U: Value, *, A: Value, alpha: Value, B: Value, beta: Value, R_D: Value, R_N: Value
) -> tuple[Value, Value]:
    """Return N' and D' that stand in the law A/N'^α + B/D'^β for N parameters and D tokens of which U are unique.

    N' is as D', with U_N = min(N, the N whose optimum under C = 6ND is the unique tokens) (arXiv:2305.16264, appendix
    A).
    """
    unique = np.minimum(U, D)
    ln_g = (np.log(alpha * A) - np.log(beta * B)) / (alpha + beta)
    suited = np.minimum(N, np.exp(ln_g + beta / alpha * (np.log(unique) + ln_g)))
    return worth(N, suited, R_N), worth(D, unique, R_D)
