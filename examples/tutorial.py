"""A law found, tested and used, from simulated runs to a forecast: python examples/tutorial.py."""

# %% [markdown]
# # How good will the big model be?
#
# A language model with N parameters that has read D tokens predicts the next token with some mean loss L, in nats.
# Over many orders of magnitude one formula describes it well:
#
#     L(N, D) = E + A/N^α + B/D^β
#
# E is what no model can know, A/N^α is what a finite model misses, B/D^β what finite data leave out. Training costs
# about C = 6·N·D floating-point operations, so with C given a larger model must read less. Some size in between is
# best.
#
# We do this twice. First the runs are simulated by a law that we know, so that we can see when to trust a fit. Then we
# train real models, small ones, write down what a larger one will reach, and only then train that one.
#
# Each cell can be run by itself in an editor that knows `# %%`. Everything lands in the folder you start from.

# %%
import shlex
import time
from pathlib import Path

import numpy as np

from isoflop.cli.app import main
from isoflop.law.fit import Fit, fit
from isoflop.law.frontier import approach3
from isoflop.law.laws import LAWS, PUBLISHED
from isoflop.law.simulate import isoflop_design, simulate
from isoflop.law.uncertainty import bootstrap
from isoflop.record import Records
from isoflop.sources import read

began = time.monotonic()

# %% [markdown]
# ## 1. A law that we know
#
# We borrow the constants of a paper and call them the truth. A sweep then asks the same at several budgets: of the
# models that cost exactly this much, which one is best? Here is the cheapest budget, without noise.

# %%
truth = PUBLISHED["besiroglu2024"]
law = LAWS[truth.law]
print(f"{truth.source}: {dict(truth.parameters)}")

budgets = np.array([1e18, 1e19, 1e20, 1e21])
sizes = 7
N, D = isoflop_design(truth.law, truth.parameters, budgets, sizes=sizes, span=4.0)

E, A, B, alpha, beta = (truth.parameters[name] for name in ("E", "A", "B", "alpha", "beta"))
for n, d in zip(N[:sizes], D[:sizes], strict=True):
    model, data = A * n**-alpha, B * d**-beta
    print(f"N {n:8.3g}  D {d:8.3g}  D/N {d / n:6.1f}   L = {E:.3f} + {model:.3f} + {data:.3f} = {E + model + data:.4f}")

# %% [markdown]
# Read the rows downwards: the second term falls as the model grows, the third rises as tokens run short, and the sum
# is lowest in the middle. Near its lowest point it is flat: the sizes next to the best cost little. This forgives a
# wrong choice of size, and it also makes the best size hard to measure.
#
# ## 2. What can be found again
#
# Two runs that differ only in their seed do not reach the same loss. We give ln L some noise and forget the truth. The
# fit minimises the error in ln L. The bootstrap draws the runs again, with replacement, and fits each draw: the middle
# nine tenths of the results are the 90 % interval.


# %%
def runs(seed: int) -> Records:
    """Return the sweep as somebody would have measured it."""
    rng = np.random.default_rng(seed)
    return simulate(truth.law, truth.parameters, N=N, D=D, noise=0.003, rng=rng)


fitted = bootstrap(fit(runs(seed=0)), replicates=300)
for name, found in fitted.parameters.items():
    true = truth.parameters[name]
    held = "holds the truth" if found.low <= true <= found.high else "misses the truth"
    print(f"{name:<6} {found.value:8.4g}  ({found.low:.4g} to {found.high:.4g})  {held}, {true:.4g}")

# %% [markdown]
# B is vague, and that is no fault of the fit: the data fix the term B/D^β, and a larger B with a larger β gives almost
# the same term. The draws show it as a correlation near 1. What we want to know is better determined than what it is
# made of: compare the width of B's interval with that of the best size N*, a thousand times beyond the largest run.

# %%
together = np.corrcoef(np.log(fitted.samples["B"]), fitted.samples["beta"])[0, 1]
best = approach3(fitted).params(1e24)
B_found = fitted.parameters["B"]
print(f"correlation of ln B and beta: {together:.4f}")
print(f"B: high / low = {B_found.high / B_found.low:.2f}")
print(
    f"N* at 1e24 FLOPs: {best.value:.3g} ({best.low:.3g} to {best.high:.3g}), high / low = {best.high / best.low:.2f}"
)
print(f"the truth: {law.optimum(truth.parameters, 1e24).N:.3g}")

# %% [markdown]
# Does a 90 % interval deserve its name? With a known truth we can count: simulate the sweep again and again, and see
# how often the interval of α holds it.

# %%
trials = 30
hits = 0
for seed in range(trials):
    again = bootstrap(fit(runs(seed)), replicates=100).parameters["alpha"]
    hits += again.low <= alpha <= again.high
print(f"{hits} of {trials} intervals hold the true alpha; a perfect method holds {0.9 * trials:.0f} on average")

# %% [markdown]
# Some questions the runs cannot answer. Train one size only, and no arithmetic can tell what a larger model would
# gain: E and A/N^α are one constant. A curve fit returns numbers all the same. Ours refuses, and says what to add.

# %%
lengths = np.geomspace(1e9, 1e11, 12)
one_size = simulate(
    truth.law, truth.parameters, N=np.full(12, 1e9), D=lengths, noise=0.003, rng=np.random.default_rng(0)
)
try:
    fit(one_size)
except ValueError as refusal:
    print(refusal)

# %% [markdown]
# ## 3. A study of real models
#
# Now the truth is unknown. A study is a question in a file: which text, which budgets, how many sizes at each. The
# text is Python's own standard library, read as bytes. `span` says how far the sizes reach to either side of a guessed
# optimum, and `[target]` names a larger run that we shall forecast. From here on we use isoflop's commands, as in a
# terminal.


# %%
def isoflop(line: str) -> None:
    """Run a command as a terminal would."""
    print(f"\n$ isoflop {line}", flush=True)
    assert main(shlex.split(line)) == 0


Path("tutorial.toml").write_text("""
[study]
name = "tutorial"
source = ["stdlib"]

[design]
budgets = [2e10, 4e10, 8e10]
sizes = 4
span = 2

[target]
flops = 2.4e11
d_model = 32

[model]
preset = "small"

[optim]
lr = 0.005
lr_width = 64

[train]
batch_size = 8
eval_every = 1000000
""")
isoflop("study plan tutorial.toml --seconds 0")

# %% [markdown]
# The plan names every run before a single one is trained. The next command trains them all, several at a time. What is
# done stays done: run this cell again, and it only reads.

# %%
isoflop("study run tutorial.toml")

# %% [markdown]
# A row is a budget, a column a model size, and the lowest loss stands in brackets. If it stood at the end of a row,
# the best size would lie beyond those tried, and we would have to add some. From left to right the loss should fall
# and rise again, as in part 1.
#
# ## 4. The law of these runs

# %%
isoflop("fit tutorial")

# %% [markdown]
# Below the five constants stand four ways to the same exponent, N* ∝ C^a. Approach 1 takes the lowest training curve
# at each number of FLOPs, approach 2 the bottom of a parabola through each budget, approach 3 the fitted law; variable
# projection fits the same law in another way. Where they disagree, believe the disagreement: no single interval holds
# it.
#
# A fit should also be looked at. How far is each run from the law, in percent of its loss?

# %%
records, found_law = read("tutorial"), Fit.read(Path("tutorial") / "fit.json")
away = 100 * (records.L / np.asarray(found_law.loss(records.N, records.D)) - 1)
for n, d, loss, percent in zip(records.N, records.D, records.L, away, strict=True):
    print(f"N {n:8.3g}  D {d:8.3g}   L {loss:.4f}   {percent:+.2f} %")

# %% [markdown]
# ## 5. A forecast that can fail
#
# The target costs three times as much as the largest run. `lock` writes its loss and an interval down, with the hashes
# of all that they were made from, and refuses to do so once the run has begun. The forecast averages several fits, and
# its interval grows with the distance from the runs, because the form of the law is itself in doubt.

# %%
isoflop("lock tutorial")

# %% [markdown]
# Now we train that run, and set what came out beside what was written.

# %%
isoflop("study run tutorial --target")
isoflop("score tutorial")

# %% [markdown]
# A hit is no proof and a miss no disaster: one interval in ten should miss. Forecast many runs, and `isoflop score`
# keeps count.
#
# ## 6. The next model
#
# What would you train with ten times the target's budget? A plan is a shape that can be built, its tokens, its batch
# and its learning rate, and the loss to expect.

# %%
isoflop("plan tutorial --flops 2.4e12")

# %% [markdown]
# ## 7. The page
#
# Last, everything on one page: the question, the figures, the law, the forecast beside its test, every run, and the
# commands that repeat it. It is a single file that you can send to anyone.

# %%
isoflop("render tutorial")
print(f"\nAll of this took {time.monotonic() - began:.0f} s.")

# %% [markdown]
# ## Try it
#
# - Multiply the noise in part 2 by five. Which constant is lost first, and how wide does N* become?
# - Put 16.0 for the span in part 1. Which intervals become narrower, and does that of N*?
# - Add a budget to `tutorial.toml` and repeat parts 3 and 4: only the new runs are trained.
# - Name a folder of your own text as the `source`, and another study name. Is its exponent the same?
