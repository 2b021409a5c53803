"""A study: a question, and everything that its runs share, as one small file."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from isoflop.config import LENGTHS, PARTS, DataConfig, ModelConfig, OptimConfig, TrainConfig, part_from
from isoflop.fields import of_their_types, positive
from isoflop.lm.schedule import BRANCHES
from isoflop.presets import preset
from isoflop.study.ablation import parse, written
from isoflop.study.rates import RateName

DesignKind = Literal["isoflop", "grid", "trunk", "ladder", "ablation", "next"]
QuestionKind = Literal["regime", "rate", "aspect", "heads", "heads-fixed", "batch", "epochs"]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A question, and everything that its runs share."""

    name: str = "study"
    """Name of the study, and of its folder unless another is given."""
    source: tuple[str, ...] = ()
    """Texts to make the token folder from, as `isoflop data` takes them, unless data names one."""
    tokenizer: str = "bytes"
    """Tokenizer for these texts: bytes, bpe, or a tokenizer.json."""
    question: QuestionKind | None = None
    """What `isoflop study run` answers when the runs are done (`isoflop study answer`); None: nothing."""
    design: DesignKind = "isoflop"
    """How the question becomes runs."""
    budgets: tuple[float, ...] = ()
    """FLOPs of each run, one group of sizes for each budget."""
    sizes: int = 5
    """Model sizes for each budget."""
    span: float = 4.0
    """Sizes reach from the guessed optimum over span to the optimum times span, in N."""
    tokens_per_param: float = 20.0
    """Guess of the optimal D/N, which centres the sizes (arXiv:2203.15556: about 20)."""
    aspect: float | None = None
    """d_model over num_layers of every size; None: num_layers as it is."""
    widths: tuple[int, ...] = ()
    """d_model of every run, `sizes` of them for each budget in turn, instead of the guess; of an ablation, either;
    of next, one for each budget; elsewhere, each."""
    depths: tuple[int, ...] = ()
    """num_layers of an ablation: of every width the first, of the least width the others too; none: the model's own."""
    lengths: tuple[float, ...] = ()
    """Training tokens of a grid, an ablation or trunks: every width is trained for each of them."""
    ratios: tuple[float, ...] = ()
    """Tokens per parameter of a ladder: every width is trained for each of them."""
    rate: RateName = "given"
    """Where each run's learning rate and batch come from: optim and train as they are, or Step Law."""
    vary: tuple[str, ...] = ()
    """Fields that an ablation compares, with their values: num_heads=1,2,4 (`d_model/8`: one for every 8 of it)."""
    seeds: int = 1
    """Seeds of each setting of an ablation; runs of one seed see the same data in the same order."""
    same_params: bool = False
    """Let the width of an ablation follow what it varies, so that attention and MLP keep their N."""
    recentre: bool = False
    """Centre each budget's sizes on what the finished budgets found, one budget after the other."""
    target_flops: float | None = None
    """FLOPs of the larger run whose loss is forecast before it is trained."""
    target_d_model: int | None = None
    """d_model of that run."""
    cap_flops: float | None = None
    """FLOPs that the study may spend, its larger run included; None: no cap."""
    cap_hours: float | None = None
    """Process-hours that it may spend."""
    cap_cost: float | None = None
    """Money that it may spend, at price_per_hour."""
    price_per_hour: float | None = None
    """Price of an hour of one process."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """What every model shares; the design sets d_model, and num_layers where aspect is given."""
    data: DataConfig = field(default_factory=DataConfig)
    """Tokens."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizer."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Batch; the design sets the length."""

    def __post_init__(self) -> None:
        of_their_types(self)
        _CHECKS[self.design](self)
        if self.design != "ablation" and (self.vary or self.seeds != 1 or self.same_params or self.depths):
            raise ValueError(
                "vary, seeds, same_params and depths belong to design=ablation; leave them out, or choose it"
            )
        least = min(self.sizes, self.tokens_per_param, *self.budgets, *self.lengths, *self.ratios)
        if least <= 0 or self.span <= 1:
            raise ValueError(
                f"budgets={self.budgets}, lengths={self.lengths}, ratios={self.ratios}, sizes={self.sizes} and "
                f"tokens_per_param={self.tokens_per_param} must be positive, and span={self.span} above 1"
            )
        positive(self, "cap_flops", "cap_hours", "cap_cost", "price_per_hour")
        if self.cap_cost is not None and self.price_per_hour is None:
            raise ValueError(f"cap_cost={self.cap_cost:g} needs a price; give price_per_hour, of one process")
        if (self.target_flops is None) != (self.target_d_model is None):
            raise ValueError("a target needs both target_flops and target_d_model; give the other one too")
        if any(getattr(self.train, name) is not None for name in LENGTHS):
            raise ValueError(f"the design decides how long a study's runs are; leave {', '.join(LENGTHS)} out")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for study.json."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Study:
        """Read what `to_dict` wrote.

        Raises:
            ValueError: a field is missing or unknown.
        """
        try:
            parts = {name: part_from(part, value[name]) for name, part in PARTS.items()}
            plain: dict[str, Any] = {
                name: tuple(v) if isinstance(v, list) else v
                for name, v in value.items()
                if name not in (*PARTS, "folder")  # of `isoflop.places.lasting`
            }
            return cls(**plain, **parts)
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is no study ({error}); was it written by another version?") from error

    def model_of(self, width: int) -> ModelConfig:
        """Return the model of a width, made and checked once for all the runs that train it."""
        if width not in self._models:
            layers = self.model.num_layers if self.aspect is None else max(1, round(width / self.aspect))
            self._models[width] = replace(self.model, d_model=width, num_layers=layers)
        return self._models[width]

    def lasting(self, train: TrainConfig, flops: float | None, tokens: int | None) -> TrainConfig:
        """Return a run's training with its length; of the study's own, made and checked once for all sizes."""
        if train is not self.train:
            return replace(train, flops=flops, tokens=tokens)
        if (flops, tokens) not in self._lengths:
            self._lengths[flops, tokens] = replace(train, flops=flops, tokens=tokens)
        return self._lengths[flops, tokens]

    @cached_property
    def _models(self) -> dict[int, ModelConfig]:
        return {}

    @cached_property
    def _lengths(self) -> dict[tuple[float | None, int | None], TrainConfig]:
        return {}

    def recipe(self) -> dict[str, Any]:
        """What all runs of a study must share, whatever sizes and budgets are added to it later."""
        shared = {name: value for name, value in self.to_dict().items() if name in PARTS}
        for part, name in VARYING:
            del shared[part][name]
        return {f"{part}.{name}": value for part, values in shared.items() for name, value in values.items()}


def _check_isoflop(study: Study) -> None:
    if not study.budgets:
        raise ValueError("a study needs budgets, such as --budgets 1e11 2e11 4e11, or a study file that gives them")
    if study.lengths:
        raise ValueError("lengths belong to design=grid, but this design has budgets; leave lengths out")
    if study.widths and len(study.widths) != study.sizes * len(study.budgets):
        raise ValueError(
            f"widths gives {len(study.widths)} values, but sizes={study.sizes} × {len(study.budgets)} budgets need "
            f"{study.sizes * len(study.budgets)}: one flat list, the {study.sizes} of the first budget, then those of "
            "the next; give all of them, or leave widths out"
        )
    if study.widths and study.recentre:
        raise ValueError("recentre chooses the sizes that widths gives already; leave one of them out")
    if list(study.budgets) != sorted(study.budgets) and study.recentre:
        raise ValueError(f"recentre goes from the smallest budget up, but budgets={study.budgets}; sort them")


def _check_grid(study: Study) -> None:
    if not study.widths or not study.lengths:
        raise ValueError("design=grid needs widths and lengths (tokens), such as --widths 16 32 64 --lengths 1M 2M 4M")
    if study.budgets or study.recentre:
        raise ValueError("design=grid has no budgets, and so nothing to recentre; leave budgets and recentre out")


def _check_trunk(study: Study) -> None:
    if not study.widths or len(study.lengths) < 2:
        raise ValueError("design=trunk needs widths and two or more lengths, such as --widths 16 32 --lengths 3M 7M")
    if BRANCHES.get(study.optim.schedule) != study.optim.schedule:
        raise ValueError(
            f"design=trunk cannot branch off schedule={study.optim.schedule}; give --schedule wsd or --schedule power"
        )
    if study.budgets or study.recentre:
        raise ValueError("design=trunk has no budgets, and so nothing to recentre; leave budgets and recentre out")


def _check_ladder(study: Study) -> None:
    if not study.widths or not study.ratios:
        raise ValueError(
            "design=ladder needs widths and ratios (tokens per parameter), such as --widths 16 24 32 --ratios 20 40 80"
        )
    if study.target_flops is None:
        raise ValueError("design=ladder climbs to a target; give --target-flops and --target-d-model, or [target]")
    if study.budgets or study.lengths or study.recentre:
        raise ValueError("a ladder's lengths follow from its ratios; leave budgets, lengths and recentre out")


def _check_ablation(study: Study) -> None:
    if not study.vary or not study.widths or not (study.budgets or study.lengths):
        raise ValueError(
            "design=ablation needs vary, widths and budgets or lengths, such as --vary num_heads=1,2,4 --widths 32 "
            "--budgets 1e11"
        )
    if study.recentre or study.seeds < 1:
        raise ValueError(f"design=ablation needs seeds={study.seeds} above 0 and nothing to recentre; change them")
    if study.depths and any("num_layers" in item.partition("=")[0] for item in study.vary):
        raise ValueError(f"depths={study.depths} and vary both say num_layers; leave one of them out")
    parse(study.vary)


def _check_next(study: Study) -> None:
    if not study.widths or len(study.widths) != len(study.budgets):
        raise ValueError(
            f"design=next needs a width and a budget for each run, but has {len(study.widths)} widths and "
            f"{len(study.budgets)} budgets; `isoflop next STUDY --run` proposes them"
        )
    if study.lengths or study.ratios or study.recentre:
        raise ValueError("design=next names each run's width and budget; leave lengths, ratios and recentre out")


_CHECKS: Mapping[DesignKind, Callable[[Study], None]] = {
    "isoflop": _check_isoflop,
    "grid": _check_grid,
    "trunk": _check_trunk,
    "ladder": _check_ladder,
    "ablation": _check_ablation,
    "next": _check_next,
}
VARYING = [("model", "d_model"), ("model", "num_layers"), ("data", "data"), *(("train", name) for name in LENGTHS)]
"""Fields of the parts in which the runs of one folder may differ: what is no recipe."""
STUDY_FIELDS = frozenset({"name", "source", "tokenizer", "question"})
TARGET_FIELDS = {"flops": "target_flops", "d_model": "target_d_model"}
CAP_FIELDS = {"flops": "cap_flops", "hours": "cap_hours", "cost": "cap_cost", "price_per_hour": "price_per_hour"}
DESIGN_FIELDS = (
    frozenset(f.name for f in fields(Study)) - STUDY_FIELDS - {*TARGET_FIELDS.values(), *CAP_FIELDS.values(), *PARTS}
)


def read_study(path: Path, **changes: Any) -> Study:
    """Read a study file; `changes` replace single fields.

    The file is TOML: tables [study], [design], [target], [cap], [model] (which may name a preset), [data], [optim],
    [train]; "None" is a field's None.

    Raises:
        ValueError: no such file, no TOML, or a field that no table has.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist; a study is a TOML file with [study], [design] and [model] tables")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        twice = (
            "; a name is given twice, or both as a value and as a [table]: keep one" if "Cannot" in str(error) else ""
        )
        raise ValueError(f"{path} is no study file: {error}{twice}") from error
    return study_from_tables(tables, where=str(path), **changes)


def study_from_tables(tables: Mapping[str, Any], *, where: str, **changes: Any) -> Study:
    """Build a study from the tables of its file."""
    known = {
        "study": STUDY_FIELDS,
        "design": DESIGN_FIELDS,
        "target": frozenset(TARGET_FIELDS),
        "cap": frozenset(CAP_FIELDS),
        **{part: frozenset(f.name for f in fields(config)) for part, config in PARTS.items()},
    }
    for table, values in tables.items():
        if not isinstance(values, Mapping):
            name = table if table in known else next((n for n, names in known.items() if table in names), "study")
            raise ValueError(
                f"{where}: {table} = {values!r} stands in no table; write [{name}] on a line above it, so that it is "
                f"{table} of [{name}]"
            )
        _known(table, known, f"{where}: there is no table [{table}]")
        for name in values:
            if (table, name) != ("model", "preset"):
                _known(name, known[table], f"{where}: [{table}] has no field {name}")
    flat: dict[str, Any] = {**tables.get("study", {}), **tables.get("design", {})}
    for table, names in (("target", TARGET_FIELDS), ("cap", CAP_FIELDS)):
        flat |= {names[name]: value for name, value in tables.get(table, {}).items()}
    flat = {name: tuple(value) if isinstance(value, list) else value for name, value in flat.items()}
    widths = flat.get("widths", ())
    if not isinstance(widths, tuple) or any(isinstance(width, list) for width in widths):
        raise ValueError(
            f"{where}: widths = {list(widths) if isinstance(widths, tuple) else widths!r} must be one flat list of "
            "d_model, as long as sizes × budgets: with sizes = 2 and two budgets [16, 24, 24, 32]"
        )
    if isinstance(flat.get("vary"), dict):
        flat["vary"] = written(flat["vary"])
    # TOML has no word for nothing, so a file writes it as the command line does
    tables = {
        table: {name: None if value == "None" else value for name, value in values.items()}
        for table, values in tables.items()
    }
    shape = dict(tables.get("model", {}))
    name = shape.pop("preset", None)
    parts: dict[str, Any] = {"model": preset(name, **shape) if name else ModelConfig(**shape)}
    parts |= {part: part_from(config, tables.get(part, {})) for part, config in PARTS.items() if part != "model"}
    together: dict[str, Any] = {**flat, **parts, **changes}
    return Study(**together)


def _known(name: str, names: Mapping[str, Any] | frozenset[str], said: str) -> None:
    if name not in names:
        close = get_close_matches(name, names, n=1)
        hint = f"perhaps you meant {close[0]}" if close else f"it has {', '.join(sorted(names))}"
        raise ValueError(f"{said}; {hint}")
