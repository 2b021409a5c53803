"""从模拟的训练到一个经得起检验的预测：python examples/tutorial.zh-CN.py。"""

# %% [markdown]
# # 大模型会有多好？
#
# 一个有 N 个参数、读过 D 个 token 的语言模型，预测下一个 token 时的平均损失是 L，单位是 nat。在许多个数量级上，
# 一个公式就能很好地描述它：
#
#     L(N, D) = E + A/N^α + B/D^β
#
# E 是任何模型都无法知道的部分，A/N^α 是有限的模型漏掉的，B/D^β 是有限的数据漏掉的。训练大约花费 C = 6·N·D 次浮点运算，
# 所以在 C 给定时，模型越大，读到的就越少，最好的大小在中间某处。
#
# 同一件事我们做两遍。第一遍用一个已知的定律模拟训练，这样就能看清什么时候可以相信拟合。第二遍训练真的小模型，
# 先写下一个更大的模型会达到多少损失，然后才去训练它。
#
# 在认得 `# %%` 的编辑器里，每一格都可以单独运行。所有文件都写在启动时所在的文件夹里。

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
# ## 1. 一个已知的定律
#
# 借用一篇论文的常数，把它们当作真值。扫描就是在几档预算上问同一个问题：花费正好这么多的模型里，哪一个最好？
# 下面是最便宜的一档，不加噪声。每行依次是 N、D、每个参数的 token 数，以及损失的三项与总和。

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
# 从上往下读：模型变大，第二项下降；token 变少，第三项上升；总和在中间最低。最低点附近很平，相邻的大小只差一点点。
# 所以大小选得不太准也无妨，但也正因如此，最优大小很难测准。
#
# ## 2. 能找回什么
#
# 只有随机种子不同的两次训练，损失并不相同。我们给 ln L 加上噪声，然后忘掉真值。拟合让 ln L 的误差最小。
# 自助法（bootstrap）有放回地重抽各次训练，对每次抽样再做拟合，结果中间的十分之九就是 90% 区间。下面每行是拟合值和区间，
# 最后说明区间是否包含真值（holds 是包含，misses 是没有）。


# %%
def runs(seed: int) -> Records:
    """返回别人实际会测到的那次扫描。"""
    rng = np.random.default_rng(seed)
    return simulate(truth.law, truth.parameters, N=N, D=D, noise=0.003, rng=rng)


fitted = bootstrap(fit(runs(seed=0)), replicates=300)
for name, found in fitted.parameters.items():
    true = truth.parameters[name]
    held = "holds the truth" if found.low <= true <= found.high else "misses the truth"
    print(f"{name:<6} {found.value:8.4g}  ({found.low:.4g} to {found.high:.4g})  {held}, {true:.4g}")

# %% [markdown]
# B 很不确定，这不能怪拟合：数据确定的是 B/D^β 这一项，B 和 β 一起变大，这一项几乎不变，所以重抽样里两者的相关系数接近
# 1。我们真正关心的量比它的组成部分更确定：最大训练再往外一千倍处的最优大小 N*，把它的区间宽度和 B 的比一比。
# 最后一行是真值。

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
# 90% 区间名副其实吗？既然知道真值，数一数就行：把扫描模拟许多遍，看 α 的区间有几次包含真值。
# 打印的是包含的次数和总次数，以及完美的方法平均应有的次数。

# %%
trials = 30
hits = 0
for seed in range(trials):
    again = bootstrap(fit(runs(seed)), replicates=100).parameters["alpha"]
    hits += again.low <= alpha <= again.high
print(f"{hits} of {trials} intervals hold the true alpha; a perfect method holds {0.9 * trials:.0f} on average")

# %% [markdown]
# 有些问题，数据回答不了。只训练一种大小，就没有任何算法能说出更大的模型会好多少：E 和 A/N^α 合成了一个常数。
# 随便做曲线拟合，照样会给出数字；这里的拟合则会拒绝，打印的那句话说：所有训练的 N 都相同，N 的贡献无从分辨，
# 请加入别的大小。

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
# ## 3. 真实模型的一组实验
#
# 现在不再知道真值。一组实验（study）就是写在文件里的一个问题：用什么文本，哪几档预算，每档几种大小。
# 文本是 Python 自己的标准库，按字节读取。`span` 说明大小从猜测的最优值向两边伸出多远，`[target]` 是一次更大的训练，
# 留待预测。从这里起，我们像在终端里一样使用 isoflop 的命令。


# %%
def isoflop(line: str) -> None:
    """像终端那样运行一条命令。"""
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
# 一次训练还没开始，计划就已列出全部训练。下一条命令把它们全部训练完，几个同时进行。做完的不会重做：再运行这一格，
# 只会读取结果。

# %%
isoflop("study run tutorial.toml")

# %% [markdown]
# 一行是一档预算，一列是一种模型大小，最低的损失在方括号里。如果它落在行的一端，最优大小就在试过的范围之外，
# 需要再加几种。从左到右，损失应当像第 1 部分那样先降后升。
#
# ## 4. 这些训练的定律

# %%
isoflop("fit tutorial")

# %% [markdown]
# 五个常数（值、90% 区间、能否由数据确定）下面，是求同一个指数 N* ∝ C^a 的四种方法。方法 1（approach 1）
# 在每个 FLOPs 处取最低的训练曲线，方法 2 取每档预算抛物线的最低点，方法 3 用拟合的定律，变量投影（variable projection）
# 用另一种办法拟合同一个定律。它们不一致时，要相信这种不一致：任何单独一个区间都没有把它算进去。
#
# 拟合还应当看一看。每次训练离定律多远，占损失的百分之几？

# %%
records, found_law = read("tutorial"), Fit.read(Path("tutorial") / "fit.json")
away = 100 * (records.L / np.asarray(found_law.loss(records.N, records.D)) - 1)
for n, d, loss, percent in zip(records.N, records.D, records.L, away, strict=True):
    print(f"N {n:8.3g}  D {d:8.3g}   L {loss:.4f}   {percent:+.2f} %")

# %% [markdown]
# ## 5. 一个可能失败的预测
#
# 目标的花费是最大训练的三倍。`lock` 把它的损失和区间连同所依据的全部文件的哈希一起写下；那次训练一旦开始，
# 它就拒绝再写。预测取几个拟合的平均，离训练越远，区间越宽，因为定律的形式本身也值得怀疑。

# %%
isoflop("lock tutorial")

# %% [markdown]
# 现在训练它，把结果和写下的预测并排放在一起：forecast 是预测，measured 是实测，a hit 是落在区间之内，
# a miss 是落在区间之外。

# %%
isoflop("study run tutorial --target")
isoflop("score tutorial")

# %% [markdown]
# 命中不是证明，落空也不是灾难：每十个区间本来就该有一个落空。多预测几次，`isoflop score` 会一直记数。
#
# ## 6. 下一个模型
#
# 有十倍于目标的预算，该训练什么？计划（plan）是一个造得出来的模型形状，它的 token 数、批大小和学习率，还有预期的损失。

# %%
isoflop("plan tutorial --flops 2.4e12")

# %% [markdown]
# ## 7. 一页报告
#
# 最后，一切都放进一页：问题、图、定律、预测与检验、每一次训练，还有重现它们的命令。它是单个文件，可以发给任何人。
# `--lang zh` 画出中文的一页。

# %%
isoflop("render tutorial")
print(f"\nAll of this took {time.monotonic() - began:.0f} s.")

# %% [markdown]
# ## 自己试试
#
# - 把第 2 部分的噪声乘以五。先丢掉的是哪个常数？N* 的区间有多宽？
# - 把第 1 部分的 span 改成 16.0。哪些区间变窄了？N* 的呢？
# - 在 `tutorial.toml` 里加一档预算，重做第 3、4 部分：只会训练新的那几个。
# - 把 `source` 换成你自己的文本文件夹，并换一个实验名。指数一样吗？
