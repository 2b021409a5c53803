"""The trackers that people watch runs with: each is shown the lines of a run's log, and none can end a run.

The log is the truth. A tracker that is opened for a run that goes on begins anew and is shown the log as it was cut
back to the checkpoint, so it holds every step once.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from isoflop.config import PARTS, RunConfig, TrackerName
from isoflop.flops import params_by_convention

log = logging.getLogger(__name__)


class Tracker(Protocol):
    """One run in one tracker."""

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Take the values of a step."""

    def close(self) -> None:
        """Write what is left."""


class TensorBoard:
    """Event files in the run's own folder, so that `tensorboard --logdir runs` names each run."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        board: Any = importlib.import_module("torch.utils.tensorboard")
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        # whoever watches meanwhile forgets the steps that come again
        self.writer = board.SummaryWriter(str(folder), purge_step=0)

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Write them at once: a killed process writes nothing later."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        """Close the file."""
        self.writer.close()


class WandB:
    """A Weights & Biases run in the run's folder: offline, for `wandb sync`, unless WANDB_MODE says otherwise."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        wandb: Any = importlib.import_module("wandb")
        mode = os.environ.get("WANDB_MODE", "offline")
        if mode == "offline":
            shutil.rmtree(folder / "wandb", ignore_errors=True)
        # a worker's standard output is its driver's, and it trains one run after another
        settings = wandb.Settings(mode=mode, silent=True, console="off", disable_git=True, save_code=False)
        known = config.to_dict()
        self.run = wandb.init(
            dir=str(folder),
            project=os.environ.get("WANDB_PROJECT", "isoflop"),
            id=config.id,
            name=config.id,
            config={part: known[part] for part in PARTS} | {"params_by_convention": params_by_convention(config.model)},
            settings=settings,
            resume="allow",
            reinit="create_new",
        )

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Log them under their step."""
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        """Finish the run."""
        self.run.finish()


@contextmanager
def tracking(folder: Path, config: RunConfig) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Open a run's trackers, show them its log so far, and yield what shows them each further line.

    One that fails is told of once and left out; the run goes on.
    """
    open_ones: dict[TrackerName, Tracker] = {}

    def attempt(name: TrackerName, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:
            if failed := open_ones.pop(name, None):
                with contextlib.suppress(Exception):
                    failed.close()
            log.warning("%s goes on without the tracker %s, which failed: %s", folder.name, name, error)

    def start(name: TrackerName) -> None:
        open_ones[name] = tracker = TRACKERS[name](folder, config)
        for line in (folder / "log.jsonl").read_bytes().splitlines():
            tracker.show(*_shown(json.loads(line), config))

    def tell(line: Mapping[str, Any]) -> None:
        step, values = _shown(line, config)
        for name, tracker in list(open_ones.items()):
            attempt(name, lambda tracker=tracker: tracker.show(step, values))  # type: ignore[misc]

    for name in config.train.trackers:
        attempt(name, lambda name=name: start(name))  # type: ignore[misc]
    try:
        yield tell
    finally:
        for name, tracker in list(open_ones.items()):
            attempt(name, tracker.close)


def _shown(line: Mapping[str, Any], config: RunConfig) -> tuple[int, dict[str, float]]:
    """Step and numbers of a line of the log; N, the compute count, stands beside every D and C."""
    values = {
        name: float(value)
        for name, value in line.items()
        if name != "step" and isinstance(value, (int, float)) and math.isfinite(value)
    }
    if "tokens" in values:
        values["params"] = params_by_convention(config.model)["compute"]
    return line["step"], values


def check_trackers(names: Sequence[TrackerName]) -> None:
    """Make sure that trackers can be used here, before anything is trained.

    Raises:
        ValueError: one's package, an extra of the same name, is not installed.
    """
    for name in names:
        if find_spec(name) is None:
            raise ValueError(f"trackers={name} needs {name}; install it with `pip install 'isoflop[{name}]'`")


TRACKERS: Mapping[TrackerName, Callable[[Path, RunConfig], Tracker]] = {"tensorboard": TensorBoard, "wandb": WandB}
