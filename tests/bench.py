"""`make bench`: ltl's training speed as a ratio to a hand-written loop, both measured in turn in one run.

One thread; the data are random images of MNIST's and CIFAR-10's shapes with random labels. (Labels that can be learned
perfectly would drive gradients to denormal numbers, which are slow, and measure those.)
`ARGS="stack sparse"` measures these parts alone, `ARGS="--quick"` takes a tenth of the steps.
Quote the ratios with the load that is printed, not the absolute times.
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
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import numpy as np
import torch
from data_files import idx_bytes
from numpy.typing import NDArray
from rich.console import Console
from torch import nn
from torch.nn import functional as F

from ltl.datasets.dataset import Split
from ltl.results import read_table

if TYPE_CHECKING:
    from ltl.supermasks import Estimator

REPEATS = 3


def perceptron() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )


def loop(network: nn.Module, optimizer: torch.optim.Optimizer, data: Split, batch: int, steps: int) -> float:
    """The hand-written masked loop: index batches from one tensor, float masks, fused optimiser; steps a second."""
    device = data.inputs.device
    weights = [one for one in network.parameters() if one.dim() > 1]
    masks = [(torch.rand_like(weight) < 0.5).float() for weight in weights]
    order = torch.randperm(len(data)).to(device)
    begun = time.perf_counter()
    for step in range(steps):
        start = step * batch % (len(data) - batch)
        indices = order[start : start + batch]
        loss = F.cross_entropy(network(data.inputs[indices]), data.targets[indices])
        loss.backward()
        torch._foreach_mul_([weight.grad for weight in weights], masks)  # type: ignore[arg-type, misc]
        optimizer.step()
        optimizer.zero_grad()
    if device.type == "cuda":
        torch.cuda.synchronize()
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


def ltl_run(root: Path, *overrides: str, folder: Path | None = None) -> dict[str, float]:
    """Train through ltl: steps a second of training, and with all that is not evaluation; shares of the whole time."""
    from ltl import build, fit, resume
    from ltl.callbacks import record
    from ltl.callbacks.checkpoint import IntervalCheckpoint
    from ltl.callbacks.progress import RunProgress
    from ltl.callbacks.prune_rewind import PruneRewind
    from ltl.run import CONF
    from ltl.training import search

    folder = folder or Path(tempfile.mkdtemp(dir=root))
    fixed = (f"dataset.root={root}", "dataset.verify=false", "control=none", "trials=1")
    built = build.experiment(resume.composed([*fixed, *overrides], CONF), folder, hardware_number=0)
    evaluating = Clock()
    keeping, pruning, hashing, saving, checking = (Clock(less=evaluating) for _ in range(5))
    timed = (
        (evaluating, record, "evaluating"),
        (evaluating, record, "awaited"),
        (pruning, PruneRewind, "_next_round"),
        (hashing, record, "mask_sha256"),
        (hashing, search, "tensors_sha256"),
        (saving, fit, "save"),
        (checking, IntervalCheckpoint, "on_train_epoch_end"),
        (keeping, record.Record, "_finish"),
        (keeping, PruneRewind, "_next_round"),
        (keeping, IntervalCheckpoint, "on_train_epoch_end"),
    )
    with ExitStack() as clocks:
        for clock, owner, name in timed:
            clocks.enter_context(clock.on(owner, name))
        begun = time.perf_counter()
        fit.run(built, lambda steps: RunProgress(total_steps=steps, console=Console(quiet=True)))
        wall = time.perf_counter() - begun
    rows = read_table(folder / "rounds.csv")
    steps = sum(int(row["steps"]) for row in rows)
    return {
        "training": steps / sum(float(row["seconds"]) for row in rows),
        "all but evaluation": steps / (wall - evaluating.seconds),
        "prune, rewind, records, ticket, checkpoint": keeping.seconds / (wall - evaluating.seconds),
        "prune and rewind": pruning.seconds / (wall - evaluating.seconds),
        "hashes": hashing.seconds / (wall - evaluating.seconds),
        "tickets": saving.seconds / (wall - evaluating.seconds),
        "checkpoints": checking.seconds / (wall - evaluating.seconds),
        "evaluation": evaluating.seconds / wall,
    }


def noise(source: np.random.Generator, filled: float, *shape: int) -> NDArray[np.uint8]:
    """Draw random pixels, the fraction `filled` of them not 0."""
    return (source.integers(1, 256, shape) * (source.random(shape) < filled)).astype(np.uint8)


def write_digits(root: Path, filled: float) -> None:
    """Write files of MNIST's format and size, with random pixels and labels."""
    source = np.random.default_rng(0)
    (root / "mnist").mkdir(parents=True)
    for split, count in (("train", 60_000), ("t10k", 10_000)):
        labels = source.integers(0, 10, count).astype(np.uint8)
        (root / "mnist" / f"{split}-images-idx3-ubyte.gz").write_bytes(idx_bytes(noise(source, filled, count, 28, 28)))
        (root / "mnist" / f"{split}-labels-idx1-ubyte.gz").write_bytes(idx_bytes(labels))


def write_noise(root: Path) -> None:
    """Write files of MNIST's and CIFAR-10's formats and sizes; as in MNIST, a fifth of the pixels are not 0."""
    write_digits(root, 0.19)
    source = np.random.default_rng(0)
    folder = root / "cifar10" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        records = noise(source, 0.19, 10_000, 3073)
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
    network = perceptron()
    return loop(network, torch.optim.Adam(network.parameters(), lr=1.2e-3, fused=True), data, batch, steps)


def resnet_loop(root: Path, batch: int, steps: int, *, channels_last: bool = False, device: str = "cpu") -> float:
    """The loop on ResNet-20 with SGD and momentum, in float32; no augmentation on either side."""
    from data_files import load

    from ltl.models.resnet import ResNet

    data = load("cifar10", root=str(root), verify=False).train.to(device)
    network: nn.Module = ResNet(input_shape=(3, 32, 32), outputs=10, blocks=[3, 3, 3], width=16, activation="relu").to(
        device
    )
    if channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, fused=True)
    return loop(network, optimizer, data, batch, steps)


def compare(name: str, hand: Callable[[], float], ours: Callable[[], dict[str, float]]) -> None:
    """Print the loop, ltl and their ratio, taken in turn."""
    pairs = []
    for _ in range(REPEATS):
        before, measured, after = hand(), ours(), hand()
        pairs.append((statistics.mean((before, after)), measured))
    for what in ("training", "all but evaluation"):
        ratios = [measured[what] / theirs for theirs, measured in pairs]
        loops, speeds = [theirs for theirs, _ in pairs], [measured[what] for _, measured in pairs]
        print(
            f"{name}, {what}: ltl {statistics.median(speeds):.1f} steps/s, loop {statistics.median(loops):.1f}, "
            f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
            flush=True,
        )
    shares = {what: statistics.median(measured[what] for _, measured in pairs) for what in list(pairs[0][1])[2:]}
    parts = ", ".join(f"{what} {shares.pop(what):.2%}" for what in list(shares)[1:-1])
    for what, share in shares.items():
        print(f"{name}, {what}: {share:.2%} of the time", flush=True)
    print(f"{name}, of these: {parts}", flush=True)


def lenet(root: Path, scale: int) -> None:
    """One network through ltl against the loop."""
    for batch in (60, 128):
        steps = 5000 // scale
        ours = partial(ltl_run, root, "dataset=mnist", f"batch={batch}", f"length={steps}it", "pruner.rounds=1")
        compare(f"LeNet-300-100, batch {batch}", partial(lenet_loop, root, batch, steps), ours)


def stack(root: Path, scale: int) -> None:
    """Eight networks side by side, counted each, against the loop."""
    steps = 2000 // scale
    ours = partial(ltl_run, root, "dataset=mnist", "trials=8", f"length={steps}it", "pruner.rounds=1")
    compare("LeNet-300-100, batch 60, stack of 8", partial(lenet_loop, root, 60, 2 * steps), ours)


def cores(root: Path, scale: int) -> None:
    """Two processes of one thread each, with a stack of eight, against two loops side by side."""
    steps = 2000 // scale
    ratios = []
    for _ in range(REPEATS):
        speeds = {kind: sum(side_by_side([kind, kind], root, steps)) for kind in ("loop", "stack")}
        ratios.append(speeds["stack"] / speeds["loop"])
    print(
        f"LeNet-300-100, batch 60, stacks of 8 in two processes: {statistics.median(ratios):.3f} of two loops side by "
        f"side ({min(ratios):.3f} to {max(ratios):.3f})",
        flush=True,
    )


def side_by_side(kinds: Sequence[str], root: Path, steps: int) -> list[float]:
    """Run processes at once and return what each printed last."""
    command = [sys.executable, __file__, "--root", str(root), "--steps", str(steps), "--child"]
    children = [subprocess.Popen([*command, kind], stdout=subprocess.PIPE, text=True) for kind in kinds]
    return [float(child.communicate()[0].split()[-1]) for child in children]


def paper(root: Path, scale: int) -> None:
    """The paper's LeNet experiment, rounds 0 to 16 of five trials in two processes, by what longer rounds add."""
    steps = 1000 // scale
    minutes = max(side_by_side(["paper-3", "paper-2"], root, steps)) * 50_000 / steps / 60
    print(
        f"the paper's LeNet experiment, evaluations included: {minutes:.1f} min in two processes, by proportion from "
        f"rounds of {steps} and {2 * steps} steps",
        flush=True,
    )


def sparse(root: Path, scale: int) -> None:
    """Seconds a step at 3.6% density, of the seconds of one network's dense step."""
    fixed = ("dataset=mnist", f"length={1000 // scale}it", "pruner.rounds=1", "pruner.rate=0.964")
    ratios: dict[int, list[float]] = {1: [], 8: []}
    for _ in range(REPEATS):
        dense = seconds_of_rounds(root, *fixed, "trials=1")
        for size in ratios:
            ratios[size].append(seconds_of_rounds(root, *fixed, f"trials={size}")[1] / dense[0])
    for size, found in ratios.items():
        print(
            f"LeNet-300-100, batch 60, density 3.6%, {size} side by side: {statistics.median(found):.3f} of one dense "
            f"step ({min(found):.3f} to {max(found):.3f})",
            flush=True,
        )


def seconds_of_rounds(root: Path, *overrides: str) -> list[float]:
    """Return the mean training seconds a network of each round."""
    folder = Path(tempfile.mkdtemp(dir=root))
    ltl_run(root, *overrides, folder=folder)
    rows = read_table(folder / "rounds.csv")
    return [statistics.mean(float(row["seconds"]) for row in rows if row["round"] == turn) for turn in ("0", "1")]


def inputs(root: Path, scale: int) -> None:
    """Training time of a stack that leaves out inputs that are 0, of its time with all: what the rule rests on."""
    for filled in (0.1, 0.19, 0.3, 0.5):
        data = root / f"filled-{filled}"
        write_digits(data, filled)
        fixed = ("dataset=mnist", "trials=8", "control=none", f"length={1000 // scale}it", "pruner.rounds=0")
        ratios = []
        for _ in range(REPEATS):
            ways = [1 / ltl_run(data, *fixed, f"hardware.sparse_inputs_below={below}")["training"] for below in (0, 1)]
            ratios.append(ways[1] / ways[0])
        print(
            f"LeNet-300-100, stack of 8, {filled:.0%} of inputs filled: {statistics.median(ratios):.2f} of the time "
            f"with all inputs ({min(ratios):.2f} to {max(ratios):.2f})",
            flush=True,
        )


def rule(root: Path, scale: int) -> None:
    """Training time a network side by side, of its time in turn: what `hardware.stack=auto` decides by."""
    cases = {
        "LeNet-300-100": ("dataset=mnist", "trials=4", f"length={1000 // scale}it"),
        "Conv-2": ("dataset=cifar10", "model=conv2", "trials=2", f"length={max(2, 20 // scale)}it"),
        "ResNet-20": ("dataset=cifar10", "model=resnet20", "trials=2", f"length={max(2, 10 // scale)}it"),
    }
    for name, fixed in cases.items():
        ratios = []
        for _ in range(REPEATS):
            ways = {}
            for way in ("in_turn", "together"):
                more = ("dataset.limit=2000", "pruner.rounds=0", f"hardware.stack={way}")
                ways[way] = 1 / ltl_run(root, *fixed, *more)["training"]
            ratios.append(ways["together"] / ways["in_turn"])
        print(
            f"{name}, side by side: {statistics.median(ratios):.2f} of the time in turn ({min(ratios):.2f} to "
            f"{max(ratios):.2f})",
            flush=True,
        )


def scores(root: Path, scale: int) -> None:
    """Processor time of a step that trains scores, of that of a plain step, of the same five LeNets with Adam."""
    from ltl import build, resume
    from ltl.run import CONF
    from ltl.supermasks import Bernoulli, Binary, EdgePopup

    build._set_up(resume.composed([], CONF).hardware)
    plain = stack_step(None)
    kinds = {
        "edge-popup": stack_step(EdgePopup()),
        "edge-popup, one threshold for all layers": stack_step(EdgePopup(), pooled=True),
        "binary": stack_step(Binary()),
        "probabilities": stack_step(Bernoulli(rescale=False)),
        "probabilities, rescaled": stack_step(Bernoulli(rescale=True)),
    }
    for batch in (60, 128, 250):
        ratios: dict[str, list[float]] = {name: [] for name in kinds}
        for turn in range(-3, 100 // scale):
            inputs, targets = torch.rand(5, batch, 1, 28, 28), torch.randint(10, (5 * batch,))
            before = plain(inputs, targets)
            for name, step in kinds.items():
                ratio = step(inputs, targets) / before
                ratios[name] += [ratio] if turn >= 0 else []  # the first ones are slower
        for name, found in ratios.items():
            low, middle, high = statistics.quantiles(found)
            print(
                f"scores of 5 LeNets, batch {batch}, {name}: {middle:.2f} of a plain step ({low:.2f} to {high:.2f}, "
                "quartiles)",
                flush=True,
            )


def stack_step(estimator: "Estimator | None", *, pooled: bool = False) -> Callable[[torch.Tensor, torch.Tensor], float]:
    """Return a step of five LeNets side by side, of their scores with an `estimator`, that says its processor time."""
    from ltl.masks import prunable
    from ltl.models.lenet import LeNet
    from ltl.models.stack import Stack
    from ltl.rng import generator
    from ltl.training.scoring import Pool, Scores, Scoring

    shape: dict[str, Any] = {"input_shape": (1, 28, 28), "outputs": 10, "widths": [300, 100]}
    networks = [LeNet(**shape, dropout=0.0, activation="relu", bias=True) for _ in range(5)]
    stack, held = Stack(networks, stacked=True, compiled=False, merge=False).train(), None
    if estimator is not None:
        weights = [{name: one.get_parameter(name).detach() for name in prunable(one)} for one in networks]
        fresh = [
            {name: estimator.fresh(weight, 0.5, generator("mask", number)) for name, weight in one.items()}
            for number, one in enumerate(weights)
        ]
        counts = [{name: weight.numel() // 2 for name, weight in one.items()} for one in weights]
        scoring = Scoring(estimator, torch.optim.Adam, lambda step: 1.0, length=1, samples=0, batch_norm=False)
        held = Scores(stack, scoring, fresh, counts, Pool(list(counts[0]), allow_empty=False) if pooled else None)
    optimizer = torch.optim.Adam([one for one in stack.parameters() if one.requires_grad], lr=1e-3, fused=True)

    def step(inputs: torch.Tensor, targets: torch.Tensor) -> float:
        begun = time.process_time()
        if held and held.draws:
            held.draw(range(5))
        F.cross_entropy(stack(inputs).flatten(0, 1), targets).backward()
        optimizer.step()
        if held:
            held.share()
        optimizer.zero_grad()
        return time.process_time() - begun

    return step


def resnet(root: Path, scale: int) -> None:
    """ResNet-20 in float32 and in bfloat16 with channels-last, against loops in float32."""
    steps = max(2, 30 // scale)
    fixed = ["dataset=cifar10", "model=resnet20", "dataset.augment=false", f"length={steps}it", "pruner.rounds=1"]
    fixed += ["dataset.limit=2000"]  # evaluations are not what is compared
    compare("ResNet-20, batch 128", partial(resnet_loop, root, 128, steps), partial(ltl_run, root, *fixed))
    low = ["hardware.precision=bf16-mixed", "hardware.memory_format=channels_last"]
    hand = partial(resnet_loop, root, 128, steps, channels_last=True)
    compare("ResNet-20, batch 128, bfloat16 channels-last", hand, partial(ltl_run, root, *fixed, *low))


def memory(root: Path, scale: int) -> None:
    """Peak memory against the loop's, and how it grows with trials."""
    hand = peak("--child", "memory-loop", "--root", str(root))
    sizes = {trials: peak("--child", f"memory-{trials}", "--root", str(root)) for trials in (1, 2, 16, 32, 48)}
    ratio = sizes.pop(1) / hand
    slope = (sizes[48] - sizes[16]) / 32  # making the data ready takes more than a small stack does
    print(
        f"peak memory on MNIST: loop {hand:.0f} MB, ltl {ratio:.2f} of it; stacks of "
        f"{', '.join(f'{trials}: {size:.0f} MB' for trials, size in sizes.items())}; from 16 on {slope:.1f} MB a trial",
        flush=True,
    )


def bytes_moved(network: nn.Module, inputs: torch.Tensor, width: int) -> int:
    """Return the bytes that an optimiser step moves at least if every layer is a kernel: activations of `width` bytes.

    Forwards each layer reads its inputs and writes its outputs; backwards it reads both sides' and writes the inputs'
    gradients. Weights are read twice, gradients written and read, and momentum and weights read and written.
    """
    activations = 0

    def count(_: nn.Module, given: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        nonlocal activations
        activations += (given[0].numel() + out.numel()) + (2 * given[0].numel() + out.numel())

    leaves = [module for module in network.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(count) for module in leaves]
    with torch.no_grad():
        network(inputs)
    for hook in hooks:
        hook.remove()
    return activations * width + 8 * 4 * sum(one.numel() for one in network.parameters())


def bandwidth(device: str) -> float:
    """Return the bytes a second of a copy on `device`, read and written."""
    source = torch.empty(2**28, device=device)
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(10):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        target.copy_(source)
        torch.cuda.synchronize()
        best = max(best, 2 * source.numel() * 4 / (time.perf_counter() - begun))
    return best


def gpu(root: Path, scale: int) -> None:
    """Sixteen ResNet-20 side by side on a GPU, counted each, against the eager loop of one; and five LeNets."""
    if not torch.cuda.is_available():
        print("GPU: there is none here; nothing was measured", flush=True)
        return
    from ltl.models.resnet import ResNet

    print(torch.cuda.get_device_name(), flush=True)
    network = ResNet(input_shape=(3, 32, 32), outputs=10, blocks=[3, 3, 3], width=16, activation="relu")
    limit = bandwidth("cuda")
    hand = partial(resnet_loop, root, 128, 150 // scale, device="cuda")
    resnet = ["dataset=cifar10", "model=resnet20", "dataset.augment=false", "dataset.limit=2000", "pruner.rounds=0"]

    def stacked(hardware: str, graph: str, steps: int) -> None:
        more = (f"hardware={hardware}", f"hardware.graph={graph}", f"length={steps // scale}it", "trials=16")
        ours = partial(ltl_run, root, *resnet, *more)
        compare(f"ResNet-20, batch 128, 16 side by side, hardware={hardware}, graph={graph}", hand, ours)

    stacked("gpu_bf16", "true", 1000)
    begun = time.perf_counter()
    fixed = ("dataset=mnist", "hardware=gpu", "trials=5", f"length={50_000 // scale}it", "eval_every=100it")
    speed = ltl_run(root, *fixed, "pruner.rounds=1")
    seconds = (time.perf_counter() - begun) / 2 * scale
    print(
        f"the paper's LeNet experiment: {seconds:.1f} s a training of five trials with its evaluations, 17 of them "
        f"{17 * seconds / 60:.2f} min; {speed['evaluation']:.1%} of it evaluation",
        flush=True,
    )
    for width in (2, 4):
        moved = bytes_moved(network, torch.zeros(128, 3, 32, 32), width)
        print(
            f"bandwidth limit at {limit / 1e9:.0f} GB/s and {moved / 1e6:.0f} MB a step of {8 * width} bits: "
            f"{limit / moved:.0f} network-steps/s",
            flush=True,
        )
    stacked("gpu", "true", 60)
    stacked("gpu_bf16", "false", 10)


PARTS = {
    part.__name__: part for part in (lenet, stack, cores, paper, sparse, inputs, rule, scores, resnet, memory, gpu)
}


def child(kind: str, root: Path, steps: int) -> None:
    """Do one measurement in this process and print it."""
    if kind == "loop":
        print(lenet_loop(root, 60, 2 * steps))
    elif kind == "stack":
        print(ltl_run(root, "dataset=mnist", "trials=8", f"length={steps}it", "pruner.rounds=0")["training"])
    elif kind.startswith("paper"):
        fixed, spent = ("dataset=mnist", "eval_every=100it", "pruner.rounds=16", f"trials={kind[-1]}"), []
        for length in (steps, 2 * steps):
            folder = Path(tempfile.mkdtemp(dir=root))
            ltl_run(root, *fixed, f"length={length}it", folder=folder)
            rows = read_table(folder / "rounds.csv")
            spent.append(sum(float(row["seconds"]) + float(row["eval_seconds"]) for row in rows))
        print(spent[1] - spent[0])
    else:
        if kind == "memory-loop":
            lenet_loop(root, 60, 500)
        else:
            more = (f"trials={kind.removeprefix('memory-')}", "hardware.stack_size=48")
            ltl_run(root, "dataset=mnist", "length=100it", "pruner.rounds=1", *more)
        status = Path("/proc/self/status").read_text()  # unlike ru_maxrss, not inherited from the parent
        print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what to measure: {', '.join(PARTS)} (all)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the steps")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=500, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.child:
        child(options.child, options.root, options.steps)
        return
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: choose from {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_noise(root)
        where = f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores"
        print(f"{where}, load {os.getloadavg()[0]:.1f} before, one thread", flush=True)
        for name in options.parts or PARTS:
            PARTS[name](root, 10 if options.quick else 1)
        print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
