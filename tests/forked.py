"""Processes forked from one that has imported PyTorch: as far apart as any, and seconds sooner there."""

import gc
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from unittest.mock import patch

import report_rows
import torch
from matplotlib.figure import Figure

import ltl.launch
import ltl.plan
import ltl.report.gallery
import ltl.report.report  # noqa: F401
from ltl import run

torch.set_num_threads(1)
gc.freeze()  # the collection after every fit leaves out the libraries

Done = subprocess.CompletedProcess[str]


@cache
def context() -> ForkServerContext:
    """The context that processes are made in; it looks for modules in PYTHONPATH only."""
    tests = Path(__file__).parent
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(["forked", "kills"])
    with patch.dict(os.environ, PYTHONPATH=os.pathsep.join([str(tests), str(tests.parent)])):
        forkserver.ensure_running()
    return made


def command(folder: Path, arguments: tuple[str, ...], environment: Mapping[str, str]) -> Done:
    """Run `python -m ltl.run` with `arguments` in `folder`; it draws no figure, which is most of a report's time."""
    with tempfile.TemporaryDirectory() as where:
        out, err = (Path(where) / name for name in ("out", "err"))
        process = context().Process(target=_command, args=(folder, arguments, dict(environment), out, err))
        process.start()
        process.join(300)
        process.kill()
        process.join()
        return Done(arguments, process.exitcode or 0, out.read_text(), err.read_text())


def _command(folder: Path, arguments: tuple[str, ...], environment: dict[str, str], out: Path, err: Path) -> None:
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["ltl", *arguments]
    Figure.savefig = report_rows.save_empty  # type: ignore[method-assign]
    run.cli()
