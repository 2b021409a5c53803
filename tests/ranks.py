"""Two ranks on this machine for the tests: forked off a process that has imported torch once, and met by gloo."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

import torch

from isoflop.lm.ranks import joined

SECONDS = 400.0
"""Until ranks that wait for each other in vain are ended."""


def together(do: Callable[..., Any], *args: Any, world: int = 2) -> list[str]:
    """Call a function of a module on every rank at once; return what each says of an error, or nothing."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")  # autograd refuses to work in a fork of a process that used it
    context.set_forkserver_preload(["isoflop.lm.train", "tests.test_ranks"])
    pipes = [context.Pipe(duplex=False) for _ in range(world)]
    ranks = [
        context.Process(target=_be, args=(rank, world, port, pipes[rank][1], do, args), daemon=True)
        for rank in range(world)
    ]
    for process, (_, told) in zip(ranks, pipes, strict=True):
        process.start()
        told.close()
    said = []
    for process, (heard, _) in zip(ranks, pipes, strict=True):
        process.join(SECONDS)
        hung = process.is_alive()
        process.kill()
        said.append("hangs" if hung else heard.recv() if process.exitcode == 0 else f"exit code {process.exitcode}")
    return said


def _be(rank: int, world: int, port: int, told: Any, do: Callable[..., Any], args: tuple[Any, ...]) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    said = ""
    try:
        with contextlib.redirect_stderr(io.StringIO()), joined():  # once: two meetings in turn would need two ports
            do(*args)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    told.send(said)
    told.close()
    os._exit(0)
