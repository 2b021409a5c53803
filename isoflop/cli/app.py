"""`isoflop`: finds the command, reads its flags, and turns every expected failure into one sentence and exit code 2."""

from __future__ import annotations

import contextlib
import difflib
import errno
import functools
import importlib
import inspect
import io
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

from isoflop.cli.misplaced import check_first, is_text, misplaced
from isoflop.counts import parse

Command = Callable[..., None]


class Verb(NamedTuple):
    """Where a command lives, and what it does in a few words."""

    where: str
    """`module:function`, imported when the command is called."""
    does: str
    """For the list of commands."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(args)
    except ValueError as error:
        return _fail(str(error))
    except BrokenPipeError:  # `isoflop … | head` has read enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - what is left to flush at exit has nowhere to go
        return 141
    except OSError as error:
        return _fail(_os_sentence(error))
    except KeyboardInterrupt as stop:
        said = str(stop) or "stopped; the same command goes on where this one was"
        print(f"\nisoflop: {said}", file=sys.stderr)
        return 130


def _dispatch(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if args[0] in ("-V", "--version"):
        from isoflop import __version__

        print(f"isoflop {__version__}")
        return 0
    name = args.pop(0)
    if any(verb.startswith(f"{name} ") for verb in VERBS):
        wanted = f"{name} {args[0]}" if args else name
        if wanted not in VERBS:
            return _nested_help(name, wanted)
        name, args = wanted, args[1:]
    if name not in VERBS:
        raise ValueError(f"there is no command {name!r}{_nearest(name, VERBS)}; `isoflop --help` lists them")
    module, function = VERBS[name].where.split(":")
    command: Command = getattr(importlib.import_module(module), function)
    call(command, args, prog=f"isoflop {name}")
    return 0


def call(command: Command, args: Sequence[str], *, prog: str) -> None:
    """Parse `args` by the command's signature (its docstring is the help) and call it.

    A command may carry `prepare`, which turns the arguments into its defaults before they are read (presets), and
    `options`, which lists what can be given beside them when one is misspelt.
    """
    import tyro

    prepare = getattr(command, "prepare", None)
    ready = prepare(list(args)) if prepare else command
    # the help that teaches goes out as tyro draws it; what it says of an error is reduced to a sentence
    said = io.StringIO()
    options: dict[str, Any] = {"prog": prog, "config": (tyro.conf.OmitArgPrefixes,), "registry": _counts()}
    try:
        with contextlib.redirect_stderr(said):
            bound, unknown = tyro.cli(_binder(ready), args=list(args), return_unknown_args=True, **options)
    except SystemExit as leave:
        if not leave.code:
            raise
        flags = _flags(_binder(ready), options)
        if strange := [arg for arg in args if arg.startswith("--") and _spelt(arg) not in flags and not is_text(arg)]:
            raise _unknown(strange[0], flags, command, args, prog) from None
        told = _sentence(_message(said.getvalue()), command, prog)
        raise ValueError(f"{told}; `{prog} --help` explains each option") from None
    if unknown and not unknown[0].startswith("-"):
        raise misplaced(unknown[0], args, prog)
    if unknown:
        raise _unknown(unknown[0], _flags(_binder(ready), options), command, args, prog)
    check_first(bound, args, lambda: _flags(_binder(ready), options), prog)
    bound()


def _unknown(flag: str, flags: list[str], command: Command, args: Sequence[str], prog: str) -> ValueError:
    if is_text(flag):
        return ValueError(f"text that starts with a dash stands behind `--`, as in `{prog} … -- {shlex.quote(flag)}`")
    listed = getattr(command, "options", lambda args: "")(list(args)) or f"`{prog} --help` lists them"
    return ValueError(f"{prog} has no option {flag!r}{_nearest(flag, flags)}; {listed}")


def _flags(command: Callable[..., Any], options: Mapping[str, Any]) -> list[str]:
    """Every flag that the command's help names."""
    import tyro

    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        tyro.cli(command, args=["--help"], **options)
    return sorted(set(re.findall(r"--[a-z][\w-]*", shown.getvalue())))


def with_defaults(command: Command, **defaults: Any) -> Command:
    """Return the command with other defaults, its help unchanged."""
    changed = functools.partial(command, **defaults)
    changed.__doc__ = command.__doc__
    return changed


def flag_value(args: Sequence[str], flag: str) -> str | None:
    """Value of `--flag value` or `--flag=value` before the arguments are parsed; None where it is absent."""
    for here, following in zip_longest(args, args[1:]):
        name, equals, value = here.partition("=")
        if name.replace("_", "-") == flag:
            return value if equals else following
    return None


def positional(args: Sequence[str], command: Command) -> str | None:
    """First argument that is no flag's, before the arguments are parsed; None where there is none."""
    flags = inspect.signature(command).parameters.values()
    switches = {f"--{flag.name}".replace("_", "-") for flag in flags if flag.annotation in (bool, "bool")}
    before = ""
    for here in args:
        if not here.startswith("-") and (not before.startswith("--") or "=" in before or before in switches):
            return here
        before = here.replace("_", "-")
    return None


def _binder(command: Command) -> Callable[..., functools.partial[None]]:
    """Give the command's signature to a function that only binds, so that parsing errors and its own stay apart."""

    @functools.wraps(command)
    def bind(*args: Any, **kwargs: Any) -> functools.partial[None]:
        return functools.partial(command, *args, **kwargs)

    return bind


def parse_count(text: str) -> float:
    """Read 1e9, 20M, 1.5B, 3_000 or 2T as a number.

    Raises:
        ValueError: the text is no number.
    """
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{text!r} {error}") from None


def _whole(text: str) -> int:
    value = parse_count(text)
    if not (math.isfinite(value) and value.is_integer()):
        raise ValueError(f"{text!r} must be a whole number; write it without a fraction")
    return int(value)


def _counts() -> Any:
    """Let every number on the command line be written as a count."""
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

    registry = ConstructorRegistry()

    @registry.primitive_rule
    def number(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        reader: Callable[[str], float] | None = {int: _whole, float: parse_count}.get(info.type)
        if reader is None:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="INT" if info.type is int else "FLOAT",
            instance_from_str=lambda args: reader(args[0]),
            is_instance=lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
            str_from_instance=lambda value: [f"{value:g}" if isinstance(value, float) else str(value)],
        )

    return registry


def _spelt(flag: str) -> str:
    return flag.split("=")[0].replace("_", "-")


def _nearest(name: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    close = difflib.get_close_matches(_spelt(name), list(known), n=1, cutoff=0.5)
    return f", perhaps you meant {close[0]!r}" if close else ""


def _message(box: str) -> str:
    """Take the message out of the parser's framed answer: what stands between its title and the next rule."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [line.strip("│╭╮╰╯| ") for line in plain.splitlines()][1:]
    message = list[str]()
    for line in lines:
        if line.strip("─- "):
            message.append(line.strip())
        elif message:
            break
    return " ".join(message).rstrip(".")


def _sentence(told: str, command: Command, prog: str) -> str:
    """Say in isoflop's words what the parser found: the option, the value, the remedy."""
    if re.match(r"Missing from |Missing value for argument '[^-]", told):
        lacking = [
            f"{name} ({help[:1].lower()}{help[1:]})"
            for name, help in _required(command)
            if help in told or repr(name.lower()) in told
        ]
        return f"{prog} needs {' and '.join(lacking)}, as in `{prog} {_usage(command)}`"
    if match := re.fullmatch(r"Missing value for argument '(-\S+?)'.*", told):
        return f"{match[1]} stands without a value; write one after it, or leave it out"
    if match := re.fullmatch(r"invalid choice '(.*)' for argument '(\S+?)'\. Expected one of \((.*)\)", told):
        choices = re.findall(r"'([^']*)'", match[3])
        return f"{match[2]} {match[1]} is not known{_nearest(match[1], choices)}; choose one of {', '.join(choices)}"
    if match := re.fullmatch(r"Error parsing (-\S+): .* (?:from|arguments:) \[(.*)\]", told):
        # of an option that may be left out or repeated the parser keeps to itself what the number's reader said
        for text in re.findall(r"'([^']*)'", match[2]):
            for reader in (parse_count, _whole):
                try:
                    reader(text)
                except ValueError as error:
                    return f"{match[1]} {error}"
    return re.sub(r"^Error parsing (-\S+): ", r"\1 ", re.sub(r"^Error parsing \w+: ", "", told))


def _required(command: Command) -> list[tuple[str, str]]:
    """What must be given, as it is written, with the first words that the help says of it."""
    lines = dict(re.findall(r"^ +(\w+): ([^:;.]+)", inspect.getdoc(command) or "", re.MULTILINE))
    return [(_written(flag), lines.get(flag.name, "")) for flag in _obligatory(command)]


def _obligatory(command: Command) -> list[inspect.Parameter]:
    return [flag for flag in inspect.signature(command).parameters.values() if flag.default is flag.empty]


def _written(flag: inspect.Parameter) -> str:
    dashed = flag.name.replace("_", "-")
    return f"--{dashed}" if flag.kind is flag.KEYWORD_ONLY else dashed.upper()


def _usage(command: Command) -> str:
    return " ".join(_written(flag) + (" …" * (flag.kind is flag.KEYWORD_ONLY)) for flag in _obligatory(command))


def _os_sentence(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        where = f" ({error.filename})" if error.filename else ""
        return f"the disk is full{where}; free some space and repeat the command"
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{error.filename} does not exist; check the path"
    return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"


def _fail(sentence: str) -> int:
    print(f"isoflop: {' '.join(sentence.split())}", file=sys.stderr)
    return 2


def _nested_help(group: str, wanted: str) -> int:
    known = {verb: entry for verb, entry in VERBS.items() if verb.startswith(f"{group} ")}
    if wanted not in (group, f"{group} --help", f"{group} -h"):
        raise ValueError(f"there is no command {wanted!r}{_nearest(wanted, known)}; choose one of {', '.join(known)}")
    print("\n".join([f"usage: isoflop {group} COMMAND", "", *_rows(known)]))
    return 0


def _rows(verbs: Mapping[str, Verb]) -> list[str]:
    width = max(map(len, verbs))
    return [f"  {name:<{width}}  {verb.does}" for name, verb in verbs.items()]


def _overview() -> str:
    return "\n".join(
        [
            "usage: isoflop COMMAND [OPTIONS]      `isoflop COMMAND --help` explains one",
            "",
            "From a folder of text to token files, Transformers, and studies of runs. With --json each prints one JSON",
            "object on standard output when it succeeds; progress, warnings and errors go to standard error.",
            "",
            *_rows(VERBS),
        ]
    )


VERBS: Mapping[str, Verb] = {
    "demo": Verb("isoflop.cli.demo:demo", "go the whole way once, in minutes: the place to start"),
    "data": Verb("isoflop.cli.data:data", "build token files from texts"),
    "train": Verb("isoflop.cli.train:train", "train a model, or go on with a run"),
    "generate": Verb("isoflop.cli.models:generate", "write text with a trained model"),
    "evaluate": Verb("isoflop.cli.models:evaluate", "measure a trained model on any text"),
    "export": Verb("isoflop.cli.models:export", "write a model as a folder that transformers opens"),
    "import": Verb("isoflop.cli.models:import_model", "make a run of a Llama or GPT-2 folder"),
    "study plan": Verb("isoflop.cli.price:plan", "show a study's runs, time and price before it starts"),
    "study run": Verb("isoflop.cli.study:run", "train the runs of a study, here, on Slurm or on Ray"),
    "study status": Verb("isoflop.cli.status:status", "show what of a study is done, under way or lost"),
    "study answer": Verb("isoflop.cli.answer:answer", "answer the question that a study asks, with its uncertainty"),
    "study cancel": Verb("isoflop.cli.study:cancel", "call runs off, wherever they are trained"),
    "study retry": Verb("isoflop.cli.study:retry", "let failed and cancelled runs be tried again"),
    "study watch": Verb("isoflop.cli.watch:watch", "watch a study while it runs, from anywhere that sees its folder"),
    "study export": Verb("isoflop.cli.export:export", "write a study as JSON and Parquet, to fit it elsewhere"),
    "fit": Verb("isoflop.cli.law:fit", "fit a scaling law to a study or a table of runs"),
    "predict": Verb("isoflop.cli.forecast:predict", "predict the loss of a larger run, with an interval"),
    "optimal": Verb("isoflop.cli.forecast:optimal", "find the best size and number of tokens for a budget"),
    "lock": Verb("isoflop.cli.lock:lock", "write a forecast down before its run exists"),
    "score": Verb("isoflop.cli.lock:score", "set a forecast beside what was measured"),
    "backtest": Verb("isoflop.cli.backtest:backtest", "forecast a source's dearest runs from its cheap ones"),
    "plan": Verb(
        "isoflop.cli.plan:plan", "turn a budget into a model, tokens, batch and rate, with the loss to expect"
    ),
    "next": Verb("isoflop.cli.next:next_runs", "choose the runs to train next with so many FLOPs"),
    "compare": Verb(
        "isoflop.cli.compare:compare", "say whether recipe B is better than A, by how much, and if it lasts"
    ),
    "coordcheck": Verb("isoflop.cli.transfer:coordcheck", "check that activations keep their size as a model grows"),
    "lr-sweep": Verb("isoflop.cli.transfer:lr_sweep", "see whether the best rate of a small model serves larger ones"),
    "diagnose": Verb("isoflop.cli.diagnose:diagnose", "say what a fit rests on, and what should make one doubt it"),
    "render": Verb("isoflop.cli.report:render", "draw a study or a run, and the page of a study"),
}
