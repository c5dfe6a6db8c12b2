"""Builds an experiment from a checked configuration: the one place below the command line that reads it."""

import ctypes
import inspect
import json
import math
import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger

from ltl import lengths, schema
from ltl.datasets.dataset import Dataset, checked
from ltl.errors import LtlError
from ltl.experiment import Experiment
from ltl.hardware import Hardware
from ltl.models.scaling import scaled
from ltl.pruning.pruner import Pruner, Replacement
from ltl.pruning.schedules import planned
from ltl.results import rank
from ltl.rng import Seeds, generator
from ltl.supermasks import Estimator
from ltl.tickets import find, load
from ltl.training.controls import Control
from ltl.training.scoring import Scoring

_PRUNER = {
    "criterion": ("evidence",),
    "allocation": ("scores", "masks", "target"),
    "survivors": ("evidence", "masks"),
    "filler": ("evidence", "masks"),
}
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's numbers
_LONGEST = 10**9  # steps of a round
# What a training does not depend on, or a resume may add to; the rest must be that of its checkpoint.
_MAY_DIFFER = (
    *schema.MAY_CHANGE,
    "control",
    "draws",
    "pruner.rounds",
    "resume",
    "claim",
    "rewinding_note",
    "dataset.root",
)
_SHARED = tuple("model dataset corruption optimizer lr_schedule length batch clip eval_every hardware".split())
_PACKAGES = ("torch", "pytorch-lightning", "hydra-core", "omegaconf", "torchmetrics", "numpy", "safetensors")


def stackable(cfg: DictConfig) -> str:
    """Return, as text, what jobs must share to train as one stack: all that happens between two prunings."""
    return json.dumps({key: plain(cfg[key]) if isinstance(cfg[key], DictConfig) else cfg[key] for key in _SHARED})


def experiment(cfg: DictConfig, folder: Path, *, hardware_number: int, like: Experiment | None = None) -> Experiment:
    """Return the experiment that `cfg` describes, to run in `folder`; LtlError for values that do not fit together.

    `hardware_number` marks the rows: 0, and one more each time that a resume changed the hardware. The data are those
    of `like`, if it is given, a `stackable` experiment.
    """
    _set_up(cfg.hardware)
    clean, dataset = _data(cfg) if like is None else (like.clean, like.dataset)
    examples = len(clean.train)  # an epoch, also where the search sees fewer
    if cfg.batch > len(dataset.train):
        seen = "" if len(dataset.train) == examples else f" that corruption leaves of the {examples}"
        raise LtlError(
            f"batch={cfg.batch} is larger than the {len(dataset.train)} training examples{seen} of {dataset.name}."
        )

    def steps(text: str, key: str = "length") -> int:
        return lengths.parse(text, key).steps(examples=examples, batch=cfg.batch)

    length, rewind_step = steps(cfg.length), steps(cfg.pruner.rewind_to, "pruner.rewind_to")
    if not 1 <= length <= _LONGEST:
        raise LtlError(f"length={cfg.length} is {length} steps of {cfg.batch} examples: a round has 1 to {_LONGEST}.")
    if rewind_step >= length:
        raise lengths.beyond_the_end(cfg.pruner.rewind_to, cfg.length)
    lr_schedule = _instantiate(cfg.lr_schedule, "lr_schedule", "length", "steps")
    own_schedule = _instantiate(cfg.pruner.schedule, "pruner.schedule", "rounds", "rate", "length", "rewind_step")
    schedule = partial(planned, own_schedule)
    untrained = cfg.pruner.get("scores") is not None or any(
        event.untrained
        for event in schedule(rounds=cfg.pruner.rounds, rate=cfg.pruner.rate, length=length, rewind_step=rewind_step)
    )
    built = Experiment(
        folder=folder,
        dataset=dataset,
        clean=clean,
        model=_instantiate(cfg.model, "model", "input_shape", "outputs"),
        weight_init=_instantiate(cfg.initialiser, "initialiser", "weight", "generator"),
        pruner=_pruner(cfg.pruner),
        schedule=schedule,
        rounds=cfg.pruner.rounds,
        rate=cfg.pruner.rate,
        length=length,
        rewind_step=rewind_step,
        eval_every=max(1, steps(cfg.eval_every, "eval_every")),
        batch=cfg.batch,
        clip=cfg.clip,
        optimizer=_instantiate(cfg.optimizer, "optimizer", "params"),
        lr_schedule=lr_schedule(length=length, steps=partial(steps, key="lr_schedule")),
        seeds=Seeds(seed=cfg.seed, **cfg.seeds),
        trials=cfg.trials,
        controls={
            str(arm): _control(
                str(arm), control, cfg.seeds.order_by_round, untrained=untrained, corrupted=dataset is not clean
            )
            for arm, control in cfg.control.items()
        },
        hardware=_hardware(cfg.hardware),
        loggers=[_logger(name, logger, folder) for name, logger in cfg.logger.items()],
        hardware_number=hardware_number,
        provenance=_provenance(cfg),
        settings=_settings(cfg),
        tickets=find(cfg.ticket) if cfg.ticket else [],
        ends=cfg.ends,
        scoring=_scoring(cfg.pruner.scores, steps) if cfg.pruner.get("scores") is not None else None,
    )
    try:
        built.check()
        _check_controls(built)
    except RuntimeError as error:  # PyTorch's: a size that overflows, or memory that is not there
        raise LtlError(f"model={cfg.model.name} cannot be built: {str(error).splitlines()[0]}") from error
    return built


def _data(cfg: DictConfig) -> tuple[Dataset, Dataset]:
    """Return the data as they are and as the search sees them."""
    device = _device(cfg.hardware.accelerator)
    load = _instantiate(cfg.dataset, "dataset", "split_generator")
    clean = checked(load(split_generator=generator("order", 0, "split")))
    corrupt = _instantiate(cfg.corruption, "corruption", "dataset", "generator")
    corrupted = corrupt(clean, generator=generator("order", 0, "corruption"))
    kinds = [clean] if corrupted is clean else [clean, corrupted]
    kinds = [(one.double() if cfg.hardware.precision == "64-true" else one).to(device) for one in kinds]
    return kinds[0], kinds[-1]


def _set_up(hardware: DictConfig) -> None:
    """Set what holds for the whole process."""
    torch.set_num_threads(hardware.threads)
    # Moments of weights without gradients decay to such numbers, which cost an Intel processor half of a LeNet's time.
    torch.set_flush_denormal(True)
    _keep_freed_memory()
    # What is not written is not read: filling it costs a pass over memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if hardware.accelerator == "gpu":
        torch.set_float32_matmul_precision("high" if hardware.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = hardware.tf32
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it two runs may differ


def _keep_freed_memory() -> None:
    """Have glibc reuse what a step frees: given back to the system, a stack's gradients are zeroed again every step."""
    with suppress(OSError, AttributeError):  # another libc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, 32 * 1024**2)  # its largest
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)


@cache
def versions() -> dict[str, str]:
    """Return the versions of the libraries that a result may depend on."""
    return {name: version(name) for name in _PACKAGES}


@cache
def revision() -> str:
    """Return the git revision of ltl's checkout, marked `+` if files differ from it; "" outside a checkout.

    It is that of the first call in a process, whose code is what runs, whatever the checkout becomes.
    """
    here = Path(__file__).parent
    try:
        head = _git(here, "rev-parse", "HEAD")
        return head + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _instantiate(cfg: DictConfig, key: str, *given: str, **offered: Any) -> "partial[Any]":
    """Return the target of `cfg` with its values, to be called with those `given`; LtlError if it takes others.

    Of the values `offered` it gets those that it takes and `cfg` does not set.
    """
    values = plain(cfg)
    target, factor = values["_target_"], 1
    if key in ("model", "corruption"):
        del values["name"]  # what tickets and reports call it
        factor = values.pop("width_factor", 1)
    try:
        made: partial[Any] = instantiate({**values, "_partial_": True}, _convert_="all")
    except HydraException as error:
        if isinstance(error.__cause__, LtlError):  # from a part of this one, such as a ticket that is read
            raise error.__cause__ from None
        cause = getattr(error.__cause__, "__cause__", None) or error  # of the module that is imported
        reason = " ".join(f"{type(cause).__name__}: {cause}".split())
        raise LtlError(
            f"{key}._target_={target} is not possible: nothing of this name can be imported and called ({reason})."
        ) from None
    takes = inspect.signature(made.func)
    keywords = {name: value for name, value in offered.items() if name in takes.parameters} | made.keywords
    try:
        takes.bind(**dict.fromkeys(given), **keywords)
    except TypeError as error:
        names = " and ".join((*given, f"the keys of {key}"))
        raise LtlError(f"{key}: {target} {error}; it is called with {names} (see `--cfg job`).") from None
    made = partial(made.func, **keywords)  # Hydra's own would copy the configuration at every call
    return made if factor == 1 else scaled(made, factor)


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Return `cfg` as plain values, interpolations resolved."""
    values: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    return values


def _pruner(cfg: DictConfig) -> Pruner:
    part = {name: _instantiate(cfg[name], f"pruner.{name}", *given) for name, given in _PRUNER.items()}
    replacement = None
    if cfg.get("replacement") is not None:
        replacement = Replacement(
            drop=_instantiate(cfg.replacement.drop, "pruner.replacement.drop", "evidence"),
            grow=_instantiate(cfg.replacement.grow, "pruner.replacement.grow", "evidence"),
            redistribute=cfg.replacement.redistribute,
        )
    return Pruner(**part, momentum=cfg.momentum, lr=cfg.lr, replacement=replacement)


def _scoring(cfg: DictConfig, steps: Callable[..., int]) -> Scoring:
    length = steps(cfg.length, "pruner.scores.length")
    estimator: Any = _instantiate(cfg.estimator, "pruner.scores.estimator")()
    if not 1 <= length <= _LONGEST:
        raise LtlError(f"pruner.scores.length={cfg.length} is {length} steps: scores are trained for 1 to {_LONGEST}.")
    if not isinstance(estimator, Estimator):
        raise LtlError(
            f"pruner.scores.estimator._target_={cfg.estimator._target_} is no estimator of masks: it must have draws, "
            "fresh, weights and found, as ltl.supermasks.EdgePopup has."
        )
    lr_schedule = _instantiate(cfg.lr_schedule, "pruner.scores.lr_schedule", "length", "steps")
    return Scoring(
        estimator=estimator,
        optimizer=_instantiate(cfg.optimizer, "pruner.scores.optimizer", "params"),
        lr_schedule=lr_schedule(length=length, steps=partial(steps, key="pruner.scores.lr_schedule")),
        length=length,
        samples=cfg.samples,
        batch_norm=cfg.batch_norm == "trained",
    )


def _device(accelerator: Literal["cpu", "gpu"]) -> torch.device:
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise LtlError("hardware.accelerator=gpu needs a CUDA GPU and a PyTorch built for it; choose hardware=cpu.")
    return torch.device("cuda", rank()) if accelerator == "gpu" else torch.device("cpu")  # Lightning's, one a process


def _control(arm: str, cfg: DictConfig, order_by_round: str, *, untrained: bool, corrupted: bool) -> Control:
    """Return a control; LtlError for one that only repeats the tickets that it is compared with.

    `untrained` says whether these are not trained themselves, `corrupted` whether the search sees other data.
    """
    again = cfg.mask in ("same", "dense") and cfg.draws > 1
    repeats = (cfg.mask == "same" and not untrained) or again
    if (
        repeats
        and (cfg.data == "same" or not corrupted)
        and cfg.train
        and (cfg.weights, cfg.network, order_by_round) == ("rewound", "same", "same")
    ):
        data, choose = (
            (", on the same data (corruption=none)", "a corruption, or ") if cfg.data == "clean" else ("", "")
        )
        raise LtlError(
            f"control={arm} trains the same weights with the same mask again{data}, in the same data order: set "
            f"{choose}seeds.order_by_round=fresh for another order in every draw."
        )
    rounds = None if cfg.rounds == "all" else tuple(cfg.rounds)
    return Control(**{**plain(cfg), "rounds": rounds})


def _check_controls(built: Experiment) -> None:
    """LtlError for a control that no ticket of the run would have, or whose smaller network cannot be made."""
    if any(control.network == "small" for control in built.controls.values()):
        scaled(built.model, 0)  # as narrow as can be
    named = {arm: control.rounds for arm, control in built.controls.items() if control.rounds is not None}
    turns = _turns(built) if named else []
    for arm, rounds in named.items():
        if turns and not set(rounds) & set(turns):
            raise LtlError(
                f"control.{arm}.rounds={list(rounds)} names no round that this run has a ticket of: name some of "
                f"{', '.join(map(str, turns))}, or all."
            )


def _turns(built: Experiment) -> list[int]:
    """Return the rounds of the tickets that are given or to be found, but for the dense network's."""
    rounds = {int(load(path).metadata["round"]) for path in built.tickets} if built.tickets else range(built.rounds + 1)
    return sorted({*rounds} - {0})


def _hardware(cfg: DictConfig) -> Hardware:
    names = (
        "accelerator devices strategy precision memory_format deterministic chunk eval_batch checkpoint_every stack "
        "stack_size sparse_below sparse_inputs_below graph compile merge"
    ).split()
    stop_after = math.inf if cfg.stop_after is None else lengths.seconds(cfg.stop_after, "hardware.stop_after")
    return Hardware(**{name: cfg[name] for name in names}, stop_after=stop_after)


def _logger(name: str, cfg: DictConfig, folder: Path) -> Logger:
    """Return a logger, ours or any other of Lightning's, that writes into the run folder; LtlError if it is none."""
    make = _instantiate(cfg, f"logger.{name}", folder=folder, save_dir=folder)
    try:
        logger = make()
    except ModuleNotFoundError as error:
        reason = str(error).splitlines()[0]
        raise LtlError(f"logger.{name} needs a package that is not installed: {reason}") from None
    if not isinstance(logger, Logger):
        raise LtlError(f"logger.{name}._target_={cfg._target_} is not possible: it makes no logger of Lightning's.")
    return logger


def _provenance(cfg: DictConfig) -> dict[str, str]:
    model, dataset = plain(cfg.model), plain(cfg.dataset)
    dataset.pop("root", None)  # a path of this machine
    return {
        "model": json.dumps(model, sort_keys=True),
        "dataset": json.dumps(dataset, sort_keys=True),
        "corruption": json.dumps(plain(cfg.corruption), sort_keys=True),
        "pruner": cfg.pruner.name,
        "revision": revision(),
        "versions": json.dumps(versions(), sort_keys=True),
    }


def _settings(cfg: DictConfig) -> dict[str, Any]:
    apart = set(_MAY_DIFFER)
    return {key: value for key, value in schema.leaves(plain(cfg)) if apart.isdisjoint({key, key.partition(".")[0]})}


def used_hardware(cfg: DictConfig) -> dict[str, Any]:
    """Return the hardware settings by which is computed, and the device that they mean here."""
    device = _device(cfg.hardware.accelerator)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    settings = {
        key: value for key, value in plain(cfg.hardware).items() if key not in ("stop_after", "checkpoint_every")
    }
    return {**settings, "device": name, "cores": os.cpu_count()}


def status(built: Experiment) -> dict[str, Any]:
    """Return what `status.json` says of a run besides its state and hardware."""
    dataset: Dataset = built.dataset
    sizes = {name: len(getattr(dataset, name)) for name in ("train", "validation", "test")}
    return {
        "versions": versions(),
        "revision": revision(),
        "dataset": {"name": dataset.name, "canonical": dataset.canonical, **sizes},
        **built.counts(),
    }
