"""The run that a command asks about, from its flags; and the runs that the answer comes from."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from tyro.conf import Suppress

from isoflop.cli.app import Command, flag_value, positional, with_defaults
from isoflop.config import ModelConfig
from isoflop.files import read_json
from isoflop.flops import params_by_convention
from isoflop.presets import PresetName, preset
from isoflop.sources.columns import GUESSED, Columns

if TYPE_CHECKING:
    from isoflop.law.fit import Fit
    from isoflop.record import Records

Count = Literal["compute", "body", "body+head", "total"]
SHAPE_FLAGS = frozenset(field.name for field in fields(ModelConfig)) | {"preset", "model_config"}


class Target(NamedTuple):
    """A run that is asked about."""

    N: float
    D: float
    C: float


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The run that is asked about: two of model, tokens and flops."""

    params: float | None = None
    """N, parameters, as the source counts them."""
    preset: PresetName | None = None
    """Model to start from; flags change single fields of it."""
    model_config: str | None = None
    """JSON file with the fields of a model, or a run's config.json."""
    params_count: Count | None = None
    """How N is counted: in own runs instead of compute; for a shape, where a table does not say."""
    tokens: float | None = None
    """D, training tokens."""
    flops: float | None = None
    """C, training FLOPs."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Shape."""
    shaped: Suppress[bool] = False
    """Whether a shape was given."""

    @property
    def anything(self) -> bool:
        """Whether any of the run was said."""
        return self.shaped or any(value is not None for value in (self.params, self.tokens, self.flops))

    def counted(self, records: Records) -> Records:
        """Return runs with N counted as asked; a table that does not say its count keeps the N it has."""
        if self.params_count is None or records.convention == "given":
            return records
        return records.under(self.params_count)

    def under(self, convention: str) -> Target:
        """Return N, D and C, N counted as the source does."""
        model = self.model if self.shaped else None
        size = {"params": self.params, "tokens": self.tokens, "flops": self.flops}
        return asked(convention, model=model, count=self.params_count, **size)


WANTED = Wanted()


def asked(
    convention: str,
    *,
    params: float | None,
    model: ModelConfig | None,
    count: Count | None,
    tokens: float | None,
    flops: float | None,
) -> Target:
    """Work out N, D and C from two of model, tokens and flops.

    Args:
        convention: How the source counts N; `given`: it does not say.
        params: N itself.
        model: A shape instead.
        count: How N of a shape is counted where the source does not say.
        tokens: D.
        flops: C; 6ND, or what the shape costs where N is one of our own counts.

    Raises:
        ValueError: too little is given, or too much, or a number that no run can have.
    """
    from isoflop.record import of_a_run

    given = {"--params": params, "--tokens": tokens, "--flops": flops}
    for flag, value in given.items():
        if value is not None:
            of_a_run(f"{flag} {value:g}", value)
    if params is not None and model is not None:
        raise ValueError("--params and a shape both name the model; leave one out")
    if model is not None:
        counts = params_by_convention(model)
        known = count if convention == "given" else convention
        if known is None:
            raise ValueError(
                "the source does not say how it counts parameters, so a shape has no N in it; give "
                "--params-count body, body+head, total or compute, or give --params"
            )
        params, per_token = counts[known], 6 * counts[known if convention == "given" else "compute"]
    elif params is not None:
        per_token = 6 * params
    elif tokens is None or flops is None:
        raise ValueError("say which run: a model (--params, --preset or a shape) and --tokens or --flops")
    else:
        return _possible(Target(flops / (6 * tokens), tokens, flops))
    if (tokens is None) == (flops is None):
        raise ValueError("say how long it trains: --tokens or --flops, one of them")
    if tokens is not None:
        return _possible(Target(params, tokens, per_token * tokens))
    assert flops is not None
    return _possible(Target(params, flops / per_token, flops))


def _possible(run: Target) -> Target:
    from isoflop.record import of_a_run

    for letter, value in run._asdict().items():
        of_a_run(f"the run's {letter} = {value:g}", value)
    return run


def counting(convention: str) -> str:
    """Say how N is counted."""
    return "as the table counts it" if convention == "given" else f"counted as {convention}"


def with_shape(command: Command) -> Callable[[Sequence[str]], Command]:
    """Let --preset, --model-config, or a study's own model be the shape that single flags change."""

    def prepare(args: Sequence[str]) -> Command:
        given = {arg.lstrip("-").split("=")[0].replace("-", "_") for arg in args if arg.startswith("--")}
        if not given & SHAPE_FLAGS:
            return command
        return with_defaults(command, run=Wanted(model=_shape(args, positional(args, command)), shaped=True))

    return prepare


def _shape(args: Sequence[str], source: str | None) -> ModelConfig:
    name, file = flag_value(args, "--preset"), flag_value(args, "--model-config")
    if name and file:
        raise ValueError("--preset and --model-config both name the model; leave one out")
    if name:
        return preset(name)
    if file:
        return read_model(Path(file))
    if source and (Path(source) / "study.json").exists():
        from isoflop.study.drive import open_study

        return open_study(Path(source)).model
    return ModelConfig()


def read_model(path: Path) -> ModelConfig:
    """Read the model of a run's config.json, or of a JSON file that holds its fields alone.

    Raises:
        ValueError: the file is no JSON object, or has a field that a model lacks.
    """
    value = read_json(path)
    try:
        return ModelConfig(**value.get("model", value))
    except (AttributeError, TypeError) as error:
        names = ", ".join(field.name for field in fields(ModelConfig))
        raise ValueError(f"{path} is no model ({error}); its fields are {names}") from error


def read_source(source: str, series: str | None, columns: Columns = GUESSED) -> Records | Fit:
    """Read a fit.json, or the runs of anything that `isoflop fit` takes.

    Raises:
        ValueError: columns are said of a fit, or as `isoflop.sources.read`.
    """
    from isoflop.law.fit import Fit

    path = Path(source)
    if path.suffix == ".json" and path.is_file():
        value = read_json(path)
        if isinstance(value, dict) and {"law", "parameters", "runs"} <= set(value):
            if columns != GUESSED:
                raise ValueError(f"{source} is a fit, which holds its runs already; leave {columns.flags} out")
            return Fit.read(path)
    return read_runs(source, series, columns)


def read_runs(source: str, series: str | None = None, columns: Columns = GUESSED) -> Records:
    """Read the runs of a source that is no fit; how it was read goes to the error stream."""
    from isoflop.sources import read

    records = read(source, series=series, columns=columns)
    for note in records.notes:
        print(f"{source}: {note}", file=sys.stderr)
    return records


def records_of(source: str, series: str | None = None, columns: Columns = GUESSED) -> Records:
    """Read the runs of a source, which a fit.json holds too."""
    from isoflop.record import Records

    read = read_source(source, series, columns)
    return read if isinstance(read, Records) else read.records
