"""`make bench`: ltl's training speed as a ratio to a hand-written loop, both measured in turn in one run.

One thread; the data are random images of MNIST's and CIFAR-10's shapes with random labels. (Labels that can be learned
perfectly would drive gradients to denormal numbers, which are slow, and measure those.)
`ARGS="--quick"` takes a tenth of the steps. Quote the ratios with the load that is printed, not the absolute times.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import numpy as np
import torch
from data_files import idx_bytes
from numpy.typing import NDArray
from rich.console import Console
from torch import nn
from torch.nn import functional as F

from ltl.datasets.dataset import Split

REPEATS = 3


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )


def loop(network: nn.Module, optimizer: torch.optim.Optimizer, data: Split, batch: int, steps: int) -> float:
    """The hand-written masked loop: index batches from one tensor, float masks, fused optimiser; steps a second."""
    weights = [one for one in network.parameters() if one.dim() > 1]
    masks = [(torch.rand_like(weight) < 0.5).float() for weight in weights]
    order = torch.randperm(len(data))
    begun = time.perf_counter()
    for step in range(steps):
        start = step * batch % (len(data) - batch)
        indices = order[start : start + batch]
        loss = F.cross_entropy(network(data.inputs[indices]), data.targets[indices])
        loss.backward()
        torch._foreach_mul_([weight.grad for weight in weights], masks)  # type: ignore[arg-type, misc]
        optimizer.step()
        optimizer.zero_grad()
    return steps / (time.perf_counter() - begun)


class Clock:
    """Sums the seconds spent in the functions it wraps, less those of another clock in the meantime."""

    def __init__(self, less: "Clock | None" = None) -> None:
        self.seconds, self.less = 0.0, less

    @contextmanager
    def on(self, owner: Any, *names: str) -> Iterator[None]:
        """Wrap `names` of `owner` while the context lasts."""
        originals = {name: getattr(owner, name) for name in names}
        for name, function in originals.items():
            setattr(owner, name, self._timed(function))
        yield
        for name, function in originals.items():
            setattr(owner, name, function)

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            begun, other = time.perf_counter(), self.less.seconds if self.less else 0.0
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - begun - ((self.less.seconds - other) if self.less else 0.0)

        return timed


def ltl_run(root: Path, *overrides: str) -> dict[str, float]:
    """Train through ltl: steps a second of training, and with all that is not evaluation; shares of the whole time."""
    import ltl.callbacks.record as record
    from ltl import build, fit, resume
    from ltl.callbacks.checkpoint import IntervalCheckpoint
    from ltl.callbacks.progress import RunProgress
    from ltl.callbacks.prune_rewind import PruneRewind
    from ltl.results import read_table
    from ltl.run import CONF

    folder = Path(tempfile.mkdtemp(dir=root))
    fixed = (f"dataset.root={root}", "dataset.verify=false", "control=none", "trials=1")
    built = build.experiment(resume.composed([*fixed, *overrides], CONF), folder, hardware_number=0)
    evaluating = Clock()
    keeping = Clock(less=evaluating)
    with (
        evaluating.on(record, "evaluate"),
        keeping.on(record.Record, "_finish"),
        keeping.on(PruneRewind, "_next_round"),
        keeping.on(IntervalCheckpoint, "on_train_epoch_end"),
    ):
        begun = time.perf_counter()
        fit.run(built, lambda steps: RunProgress(total_steps=steps, console=Console(quiet=True)))
        wall = time.perf_counter() - begun
    rows = read_table(folder / "rounds.csv")
    steps = sum(int(row["steps"]) for row in rows)
    return {
        "training": steps / sum(float(row["seconds"]) for row in rows),
        "all but evaluation": steps / (wall - evaluating.seconds),
        "prune, rewind, records, ticket, checkpoint": keeping.seconds / (wall - evaluating.seconds),
        "evaluation": evaluating.seconds / wall,
    }


def write_noise(root: Path) -> None:
    """Write files of MNIST's and CIFAR-10's formats and sizes: random pixels, a fifth of them not 0, random labels."""
    source = np.random.default_rng(0)

    def images(*shape: int) -> NDArray[np.uint8]:
        return (source.integers(0, 256, shape) * (source.random(shape) < 0.2)).astype(np.uint8)

    (root / "mnist").mkdir()
    for split, count in (("train", 60_000), ("t10k", 10_000)):
        labels = source.integers(0, 10, count).astype(np.uint8)
        (root / "mnist" / f"{split}-images-idx3-ubyte.gz").write_bytes(idx_bytes(images(count, 28, 28)))
        (root / "mnist" / f"{split}-labels-idx1-ubyte.gz").write_bytes(idx_bytes(labels))
    folder = root / "cifar10" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        records = images(10_000, 3073)
        records[:, 0] = source.integers(0, 10, 10_000)
        records.tofile(folder / f"{name}.bin")


def peak(*arguments: str) -> float:
    """Return the peak memory in MB of this script run with `arguments` in a process of its own."""
    done = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def lenet_loop(root: Path, batch: int, steps: int) -> float:
    """The loop on LeNet-300-100 with Adam, at the paper's learning rate."""
    from data_files import load

    data = load("mnist", root=str(root), verify=False).train
    network = lenet()
    return loop(network, torch.optim.Adam(network.parameters(), lr=1.2e-3, fused=True), data, batch, steps)


def resnet_loop(root: Path, batch: int, steps: int) -> float:
    """The loop on ResNet-20 with SGD and momentum; no augmentation on either side."""
    from data_files import load

    from ltl.models.resnet import ResNet

    data = load("cifar10", root=str(root), verify=False).train
    network = ResNet(input_shape=(3, 32, 32), outputs=10, blocks=[3, 3, 3], width=16)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, fused=True)
    return loop(network, optimizer, data, batch, steps)


def compare(root: Path, name: str, hand: Callable[[], float], overrides: Sequence[str]) -> None:
    """Print the loop, ltl and their ratio, taken in turn."""
    pairs = []
    for _ in range(REPEATS):
        before, ours, after = hand(), ltl_run(root, *overrides), hand()
        pairs.append((statistics.mean((before, after)), ours))
    for what in ("training", "all but evaluation"):
        ratios = [ours[what] / theirs for theirs, ours in pairs]
        loops, speeds = [theirs for theirs, _ in pairs], [ours[what] for _, ours in pairs]
        print(
            f"{name}, {what}: ltl {statistics.median(speeds):.1f} steps/s, loop {statistics.median(loops):.1f}, "
            f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        )
    for what in ("prune, rewind, records, ticket, checkpoint", "evaluation"):
        print(f"{name}, {what}: {statistics.median(ours[what] for _, ours in pairs):.2%} of the time")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the steps")
    parser.add_argument("--memory", choices=["loop", "ltl"], help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        if options.memory == "loop":
            lenet_loop(options.root, 60, 500)
        else:
            ltl_run(options.root, "dataset=mnist", "length=500it", "pruner.rounds=1")
        status = Path("/proc/self/status").read_text()  # unlike ru_maxrss, not inherited from the parent
        print(int(status.split("VmHWM:")[1].split()[0]) / 1024)
        return
    scale = 10 if options.quick else 1
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_noise(root)
        where = f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores"
        print(f"{where}, load {os.getloadavg()[0]:.1f} before, one thread")
        for batch in (60, 128):
            steps = 5000 // scale
            overrides = ["dataset=mnist", f"batch={batch}", f"length={steps}it", "pruner.rounds=1"]
            compare(root, f"LeNet-300-100, batch {batch}", partial(lenet_loop, root, batch, steps), overrides)
        steps = max(2, 30 // scale)
        overrides = [
            "dataset=cifar10",
            "model=resnet20",
            "dataset.augment=false",
            f"length={steps}it",
            "pruner.rounds=1",
        ]
        overrides += ["dataset.limit=2000"]  # evaluations are not what is compared
        compare(root, "ResNet-20, batch 128", partial(resnet_loop, root, 128, steps), overrides)
        sizes = {kind: peak("--memory", kind, "--root", folder) for kind in ("loop", "ltl")}
        ratio = sizes["ltl"] / sizes["loop"]
        print(f"peak memory on MNIST: ltl {sizes['ltl']:.0f} MB, loop {sizes['loop']:.0f} MB, ratio {ratio:.2f}")
        print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
