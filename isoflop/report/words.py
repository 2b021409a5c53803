"""What figures and pages say, in English and Chinese."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Lang = Literal["en", "zh"]


def word(key: str, lang: Lang, **values: object) -> str:
    """Return one entry of WORDS in a language, its places filled."""
    return WORDS[key][("en", "zh").index(lang)].format(**values)


WORDS: Mapping[str, tuple[str, str]] = {
    # axes
    "N": ("N, parameters ({count})", "N，参数量（{count}）"),
    "D": ("D, training tokens", "D，训练 token 数"),
    "C": ("C, training FLOPs", "C，训练 FLOPs"),
    "L": ("L, validation loss (nats per token)", "L，验证损失（nat/token）"),
    "N*": ("N*, optimal N ({count})", "N*，最优 N（{count}）"),
    "D*": ("D*, optimal training tokens", "D*，最优训练 token 数"),
    "loss": ("loss (nats per token)", "损失（nat/token）"),
    "perplexity": ("perplexity (e^loss, per token)", "困惑度（e^损失，每 token）"),
    "tokens": ("training tokens", "训练 token 数"),
    # how N is counted
    "compute": ("FLOPs per token ÷ 6", "每 token FLOPs ÷ 6"),
    "body": ("attention and MLP matrices", "注意力与 MLP 矩阵"),
    "body+head": ("matrices and read-out", "各矩阵与输出层"),
    "total": ("all parameters", "全部参数"),
    "given": ("as the table gives them", "按表中所给"),
    # legends
    "budget": ("{C} FLOPs", "{C} FLOPs"),
    "minimum": ("minimum of the parabola", "抛物线最低点"),
    "sampled": ("budgets of the runs", "已训练的预算范围"),
    "approach 2": ("approach 2, minima", "方法二（最低点）"),
    "approach 3": ("approach 3, law", "方法三（参数化定律）"),
    "line": ("{approach}: {letter}* ∝ $C^{{{slope:.2f}}}$", "{approach}：{letter}* ∝ C^{slope:.2f}"),
    "interval": (" ({low:.2f} to {high:.2f})", "（{low:.2f} 至 {high:.2f}）"),
    "law": ("fitted law", "拟合的定律"),
    "band": ("90% interval of the curve", "曲线的 90% 区间"),
    "runs": ("runs", "各次训练"),
    "forecast": ("forecast with its {level:.0%} interval", "预测及其 {level:.0%} 区间"),
    "measured": ("measured", "实测"),
    "train": ("training", "训练"),
    "validation": ("validation", "验证"),
    "size": ("N = {N}", "N = {N}"),
    # titles
    "isoflop": ("At each budget one size is best", "每个预算都有一个最优规模"),
    "no bottom": ("Loss against size at each budget", "各预算下损失随规模的变化"),
    "optimal_params": ("The optimal size grows as $C^{{{slope:.2f}}}$", "最优规模按 C^{slope:.2f} 增长"),
    "optimal_tokens": (
        "The optimal number of tokens grows as $C^{{{slope:.2f}}}$",
        "最优 token 数按 C^{slope:.2f} 增长",
    ),
    "fixed_size": (
        "Loss against compute, one line for each size",
        "损失随算力的变化，每条线一个规模",
    ),
    "optimal_loss": ("Loss of the best model of each budget", "每个预算下最优模型的损失"),
    "verdict": (
        "The larger run: forecast {loss:.3f} ({low:.3f} to {high:.3f}), measured {measured:.3f}",
        "更大的一次训练：预测 {loss:.3f}（{low:.3f} 至 {high:.3f}），实测 {measured:.3f}",
    ),
    "training": ("Training loss of every run against the compute spent", "各次训练的损失随所用算力的变化"),
    "loss of": ("Loss while {run} trains", "{run} 的损失曲线"),
    "perplexity of": ("Perplexity while {run} trains", "{run} 的困惑度曲线"),
    # what is not drawn, and why
    "no budgets": (
        "no budget has runs of three sizes or more, so there is no curve over sizes to draw",
        "没有一个预算训练过三种以上的规模，因此没有随规模变化的曲线可画",
    ),
    "no lines": (
        "no law is fitted yet, and parabolas have a clear minimum inside at fewer than three budgets, so there is no "
        "line of optima to draw; run `isoflop fit` first",
        "还没有拟合定律，抛物线在内部有明确最低点的预算也不足三个，因此没有最优线可画；请先运行 `isoflop fit`",
    ),
    "no optimum": (
        "no law is fitted yet, and parabolas have a clear minimum inside at fewer than three budgets, so no optimal "
        "loss is known; run `isoflop fit` first",
        "还没有拟合定律，抛物线在内部有明确最低点的预算也不足三个，最优损失未知；请先运行 `isoflop fit`",
    ),
    "no lengths": (
        "no size was trained for two lengths and no law was fitted, so there is no line of one size to draw",
        "没有任何规模训练过两种长度，也没有拟合的定律，因此没有同一规模的曲线可画",
    ),
    "no logs": ("no run has a log of its training", "没有训练日志"),
    # the page
    "page title": ("{name}: a scaling study", "{name}：规模定律研究"),
    "asked": ("What was asked", "研究的问题"),
    "question": (
        "Which model size and how many tokens give the lowest loss for a given compute, and what loss follows?",
        "给定算力时，多大的模型、多少 token 能得到最低的损失？这个损失是多少？",
    ),
    "design": (
        "{runs} runs at {budgets} budgets from {low} to {high} FLOPs, sizes N from {small} to {large}.",
        "共 {runs} 次训练，{budgets} 个预算，从 {low} 到 {high} FLOPs，规模 N 从 {small} 到 {large}。",
    ),
    "text": ("Text: {source}; tokenizer: {tokenizer}.", "文本：{source}；分词器：{tokenizer}。"),
    "asked target": (
        "Then one larger run of {flops} FLOPs, {times:.3g} times the largest budget, whose loss is forecast before it "
        "is trained.",
        "此外还有一次 {flops} FLOPs 的更大训练（最大预算的 {times:.3g} 倍），其损失在训练之前就写下预测。",
    ),
    "counting": ("N is counted as: {count}.", "N 的计法：{count}。"),
    "found": ("What was found", "结论"),
    "found exponent": (
        "{approach}: N* ∝ C^a with a = {a}, D* ∝ C^b with b = {b}.",
        "{approach}：N* ∝ C^a，a = {a}；D* ∝ C^b，b = {b}。",
    ),
    "found nothing": (
        "No law yet: `isoflop fit {name}` fits one.",
        "还没有定律：运行 `isoflop fit {name}` 进行拟合。",
    ),
    "figures": ("Figures", "图"),
    "the page": ("the page: {path}", "网页：{path}"),
    "not drawn": ("{figure} is not drawn: {reason}.", "{figure} 没有画：{reason}。"),
    "law title": ("The law", "定律"),
    "parameter": ("parameter", "参数"),
    "loss short": ("L (nats per token)", "L（nat/token）"),
    "value": ("value", "值"),
    "interval 90": ("90% interval", "90% 区间"),
    "status": ("status", "状态"),
    "identified": ("identified", "已确定"),
    "on bound": ("on its bound", "位于边界"),
    "flat valley": ("flat valley", "未能确定"),
    "complete": ("complete", "完成"),
    "diverged": ("diverged", "发散"),
    "failed": ("failed", "失败"),
    "fitted to": ("Fitted to {runs} runs; {law}, source {source}.", "用 {runs} 次训练拟合；{law}，出处 {source}。"),
    "stale": (
        "fit.json was made from {fitted} runs, but {runs} are complete now; `isoflop fit {name}` takes all of them in",
        "fit.json 用了 {fitted} 次训练，而现在已完成 {runs} 次；重新运行 `isoflop fit {name}` 即可全部计入",
    ),
    "forecast title": ("Forecast and measurement", "预测与实测"),
    "forecast row": ("forecast", "预测"),
    "measured row": ("measured", "实测"),
    "error row": ("measured over forecast", "实测比预测"),
    "inside": (
        "The measured loss lies inside the {level:.0%} interval that was written down before.",
        "实测损失落在事先写下的 {level:.0%} 区间之内。",
    ),
    "outside": (
        "The measured loss lies outside the {level:.0%} interval that was written down before: the forecast missed.",
        "实测损失落在事先写下的 {level:.0%} 区间之外：这次预测没有命中。",
    ),
    "unmeasured": (
        "The larger run is not trained yet: `isoflop study run {name} --target` trains it.",
        "更大的训练尚未进行：运行 `isoflop study run {name} --target`。",
    ),
    "no forecast": (
        "No forecast was written down before the larger run: `isoflop lock {name}` writes one.",
        "更大的训练之前没有写下预测：可用 `isoflop lock {name}` 写下。",
    ),
    "runs title": ("Runs", "各次训练"),
    "run": ("run", "训练"),
    "seconds": ("seconds", "秒"),
    "lowest": ("Bold: the lowest loss of its budget.", "粗体：该预算下最低的损失。"),
    "left out": ("What was left out", "未计入的内容"),
    "nothing": (
        "Nothing: every run that was trained is in the fit.",
        "没有：每一次训练都已计入拟合。",
    ),
    "repeat": ("How to repeat it", "如何重复"),
    "repeat how": (
        "In the folder that holds {name}; study.json there holds every choice, and what is done is not done again.",
        "在 {name} 所在的文件夹中运行；其中的 study.json 记录了全部设置，已完成的部分不会重做。",
    ),
    "made by": ("Made by isoflop {version}{engine}.", "由 isoflop {version}{engine} 生成。"),
}
