"""The typed schema of a run: every value is checked before training starts, and before PyTorch is imported."""

import difflib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ltl import lengths
from ltl.allowed import (
    Allowed,
    choice,
    either,
    is_density,
    is_duration,
    is_length,
    is_number,
    is_sizes,
    is_text,
    is_whole,
    list_of,
    number,
    or_null,
    whole,
)
from ltl.errors import LtlError

_LENGTH = Allowed(is_length, "a length: optimiser steps as 500it or data epochs as 2ep")
_ROUND = Allowed(lambda value: is_length(value) and float(value[:-2]) > 0, "a length above 0, such as 500it or 2ep")
_LENGTHS = list_of(is_length, "lengths such as [500it, 2ep]")
_SWITCH, _TEXT, _TEXTS = choice(True, False), Allowed(is_text, "text"), list_of(is_text, "text")
_STREAM = or_null(whole(0), "to follow seed")
_MULTIPLE = number(lambda value: 0 <= value <= 1000, "a multiple from 0 to 1000 of pruner.rate")
_POSITIVE = number(lambda value: value > 0, "a number above 0")
_FRACTION = number(lambda value: 0 <= value <= 1, "a fraction between 0 and 1")
_PART = Allowed(lambda value: isinstance(value, dict), "a part of its own, such as {_target_: …, _partial_: true}")
_MANY = 10_000  # each is planned before the first is trained
_DECAY = number(lambda value: 0 <= value < 1, "a number from 0 to below 1")
_NOT_NEGATIVE = number(lambda value: value >= 0, "a number ≥ 0")

_SCHEMA: dict[str, Allowed] = {
    "seed": whole(0),
    **{f"seeds.{stream}": _STREAM for stream in ("init", "order", "augmentation", "mask")},
    "seeds.order_by_round": choice("same", "fresh"),
    "trials": whole(1, most=_MANY),
    "draws": whole(1, most=_MANY),
    "length": _ROUND,
    "eval_every": _ROUND,
    "batch": whole(1, " of examples"),
    "clip": or_null(number(lambda value: value > 0, "a gradient norm above 0"), "for no clipping"),
    "ticket": or_null(_TEXT, "for a search"),
    "resume": or_null(_TEXT, "for a new run"),
    "plan": _SWITCH,
    "ends": _SWITCH,
    "tags": list_of(is_text, "words such as [first, try]"),
    "rewinding_note": or_null(_TEXT, "for none"),
    "report.margin": number(
        lambda value: 0 <= value <= 1, "a fraction between 0 and 1 (0.002 is 0.2 percentage points)"
    ),
    "report.bars": choice("interval", "range"),
    **{f"recipe.rates.{kind}": _MULTIPLE for kind in ("conv", "linear", "output")},
    "recipe.milestones": _LENGTHS,
    "recipe.augment": _SWITCH,
    "recipe.depth_power": _NOT_NEGATIVE,
    "recipe.rewind_to": _LENGTH,
    "recipe.scores_length": _ROUND,
    "recipe.rounds.dense": whole(0, " of prunings", most=_MANY),
    "pruner.name": _TEXT,
    "pruner.rounds": whole(0, " of prunings", most=_MANY),
    "pruner.rate": number(
        lambda value: 0 < value < 1,
        "the fraction of the remaining weights that a pruning removes, between 0 and 1; 0.2 keeps 80% each round",
    ),
    "pruner.rewind_to": _LENGTH,
    "pruner.momentum": choice("zero", "saved", "kept"),
    "pruner.lr": choice("rewound", "last"),
    "pruner.criterion.criterion": _PART,
    "pruner.criterion.sign": choice("same", "different"),
    "pruner.survivors.among": choice("layer", "kept"),
    "pruner.survivors.signs": choice("moved", "kept"),
    "pruner.survivors.deviations": _NOT_NEGATIVE,
    "pruner.survivors.bits": whole(1),
    "pruner.survivors.survivors": _PART,
    "pruner.survivors.weights": choice("pruned", "all"),
    "pruner.survivors.where": choice("shrank", "grew", "random"),
    "hardware.accelerator": choice("cpu", "gpu"),
    "hardware.devices": whole(1, " of processes"),
    "hardware.strategy": choice("auto", "ddp"),
    "hardware.threads": whole(1, " of threads", most=1024),
    "hardware.wait_policy": choice("PASSIVE", "ACTIVE"),
    "hardware.precision": choice("32-true", "64-true", "bf16-mixed"),
    "hardware.memory_format": choice("contiguous", "channels_last"),
    "hardware.deterministic": choice(True, False, "warn"),
    "hardware.chunk": whole(1, " of optimiser steps"),
    "hardware.stack": choice("together", "in_turn", "auto"),
    "hardware.stack_size": whole(1, " of networks"),
    "hardware.sparse_below": number(lambda value: 0 <= value <= 1, "a density between 0 (never) and 1"),
    "hardware.sparse_inputs_below": number(lambda value: 0 <= value <= 1, "a fraction between 0 (never) and 1"),
    "hardware.graph": _SWITCH,
    "hardware.compile": _SWITCH,
    "hardware.merge": _SWITCH,
    "hardware.tf32": _SWITCH,
    "hardware.stop_after": or_null(Allowed(is_duration, "a duration such as 90s, 9min or 2h"), "for no limit"),
    "hardware.eval_batch": whole(1, " of examples"),
    "hardware.checkpoint_every": number(lambda value: value >= 0, "a number ≥ 0 of seconds"),
    "control.*.mask": choice("same", "shuffled", "shuffled_inputs", "shuffled_units", "dense"),
    "control.*.weights": choice("rewound", "shuffled", "fresh"),
    "control.*.network": choice("same", "small"),
    "control.*.data": choice("same", "clean"),
    "control.*.rounds": Allowed(
        lambda value: value == "all" or (isinstance(value, list) and all(is_whole(one) and one >= 1 for one in value)),
        "all, or a list of rounds such as [3,7,12]",
    ),
    "control.*.draws": whole(1, most=_MANY),
    "control.*.train": _SWITCH,
    "optimizer.lr": _NOT_NEGATIVE,
    "optimizer.betas": Allowed(
        lambda value: isinstance(value, list) and len(value) == 2 and all(is_number(b) and 0 <= b < 1 for b in value),
        "two numbers from 0 to below 1",
    ),
    "optimizer.eps": _NOT_NEGATIVE,
    "optimizer.weight_decay": _NOT_NEGATIVE,
    "optimizer.momentum": _DECAY,
    "optimizer.nesterov": _SWITCH,
    "optimizer.fused": _SWITCH,
    "lr_schedule.warmup": _LENGTH,
    "lr_schedule.milestones": _LENGTHS,
    "lr_schedule.factor": number(lambda value: 0 < value <= 1000, "a number above 0, up to 1000"),
    "initialiser.gain": _POSITIVE,
    "model.name": _TEXT,
    "model.widths": list_of(is_sizes, "numbers of units ≥ 1"),
    "model.width": whole(1, " of channels"),
    "model.widening": whole(1),
    "model.blocks": list_of(is_sizes, "numbers ≥ 1, or of lists of them", least=1),
    "model.bias": _SWITCH,
    "model.dropout": number(lambda value: 0 <= value < 1, "a fraction from 0 to below 1 of units to drop"),
    "model.activation": choice("relu", "sign"),
    "model.batch_norm": _SWITCH,
    "model.width_factor": number(lambda value: 0 < value <= 1000, "a number above 0, up to 1000"),
    **{f"pruner.criterion.{inner}examples": whole(1, " of each class") for inner in ("", "criterion.")},
    **{f"pruner.criterion.{inner}temperature": _POSITIVE for inner in ("", "criterion.")},
    "pruner.criterion.at_once": whole(1, " of examples"),
    "pruner.schedule.prunings": whole(1, " of prunings"),
    "pruner.schedule.start": number(lambda value: 0 < value <= 1, "a density above 0, up to 1"),
    "pruner.schedule.begin": _FRACTION,
    "pruner.schedule.end": _FRACTION,
    "pruner.schedule.every": whole(1, " of optimiser steps"),
    "pruner.schedule.until": _FRACTION,
    "pruner.schedule.fraction": _FRACTION,
    "pruner.schedule.looks": whole(1),
    "pruner.schedule.distance": _FRACTION,
    "pruner.scores.estimator.rescale": _SWITCH,
    "pruner.scores.length": _ROUND,
    "pruner.scores.samples": whole(0, " of masks", most=_MANY),
    "pruner.scores.batch_norm": choice("frozen", "trained"),
    "pruner.replacement.redistribute": _SWITCH,
    "pruner.replacement.grow.momentum": _DECAY,
    "pruner.replacement.grow.batches": whole(1),
    "pruner.allocation.conv": _MULTIPLE,
    "pruner.allocation.linear": _MULTIPLE,
    "pruner.allocation.output": _MULTIPLE,
    "pruner.allocation.layers": Allowed(
        lambda value: isinstance(value, dict) and all(map(_MULTIPLE.test, value.values())),
        "multiples ≥ 0 of pruner.rate by name, such as {fc1.weight:0.5}",
    ),
    **{f"pruner.allocation.{name}": _SWITCH for name in ("dense_first", "dense_last", "kernel")},
    "pruner.allocation.output_density": number(lambda value: 0 <= value <= 1, "a density between 0 and 1"),
    "pruner.allocation.depth_power": _NOT_NEGATIVE,
    "pruner.allocation.like": _PART,
    "pruner.allocation.like.ticket": or_null(_TEXT, "until it is given"),
    "pruner.allocation.exclude": list_of(is_text, "patterns of names such as [output.weight]"),
    "pruner.allocation.allow_empty": _SWITCH,
    **{f"dataset.{name}": _TEXT for name in ("name", "root", "archive", "checksum", "folder", "checksums.*")},
    **{f"dataset.{name}": _TEXTS for name in ("mirrors", "train_files", "test_files")},
    **{f"dataset.{name}": _SWITCH for name in ("verify", "download", "augment", "flip")},
    "dataset.outputs": whole(1, " of classes"),
    "dataset.label_bytes": whole(1, " of bytes"),
    "dataset.test": whole(1, " of examples"),
    "dataset.validation": whole(1, " of examples carved from the training set"),
    "dataset.limit": or_null(whole(1, " of examples"), "for all"),
    "dataset.mean": list_of(is_number, "numbers, one for each channel", least=1),
    "dataset.std": list_of(
        lambda value: is_number(value) and value > 0, "numbers above 0, one for each channel", least=1
    ),
    "dataset.padding": whole(0, " of pixels"),
    "corruption.name": _TEXT,
    "corruption.labels": _SWITCH,
    "corruption.fraction": number(lambda value: 0 <= value <= 1, "a fraction of the training examples, from 0 to 1"),
    **{f"logger.wandb.{name}": _TEXT for name in ("project", "job_type", "name")},
    "logger.wandb.entity": or_null(_TEXT, "for the key's own"),
    "logger.wandb.group": or_null(_TEXT, "for a job's sweep, else the experiment"),
    "logger.wandb.mode": choice("auto", "offline", "online"),
    "logger.wandb.tags": _TEXTS,
    "logger.wandb.tickets": _SWITCH,
    "*._target_": _TEXT,
    "*._partial_": _SWITCH,
}
_SETTINGS = Allowed(
    lambda value: isinstance(value, dict) and bool(value), "settings by key, such as {pruner.name: imp}"
)
_TWO = Allowed(
    lambda value: isinstance(value, list) and len(value) == 2 and all(map(_SETTINGS.test, value)),
    "two settings, such as [{pruner.name: imp}, {pruner.name: rigl}]",
)
_DENSITIES = list_of(is_density, "fractions between 0 and 1, or pairs of one for each side", least=1)
_COMPARISON: dict[str, Allowed] = {  # an entry of claim.comparisons
    "sentence": _TEXT,
    "quantity": choice("accuracy", "end_accuracy", "best_accuracy", "sampled_accuracy"),
    "better": _SETTINGS,
    "worse": _SETTINGS,
    "equal": _TWO,
    "between": _TWO,
    "arms": Allowed(
        lambda value: isinstance(value, list) and len(value) == 2 and all(map(is_text, value)),
        "two names of arms, such as [ticket, reinit]",
    ),
    "densities": or_null(either(_DENSITIES, choice("last")), "for all that both measured"),
}
_REACH: dict[str, Allowed] = {  # an entry of claim.reach
    "sentence": _TEXT,
    "quantity": choice("accuracy", "end_accuracy", "best_accuracy"),
    "along": Allowed(is_text, "the key that a sweep varies, such as model.width_factor"),
    "baseline": _SETTINGS,
    "arm": _TEXT,
}
MAY_CHANGE = ("logger", "hardware", "report", "tags")  # on a resume
# Sections that are handed to what their `_target_` names: it decides which other keys there may be, and which must be.
_PARTS = ("criterion", "allocation", "schedule", "survivors", "filler")
_WHOLE = ("optimizer", "lr_schedule", "initialiser", "model", "dataset", "corruption")
_TARGETS = (*_WHOLE, *(f"pruner.{part}" for part in _PARTS))
_OPTIONAL = {  # sections of pruner: all of the keys, or none
    "replacement": ("drop", "grow", "redistribute"),
    "scores": ("estimator", "optimizer", "lr_schedule", "length", "samples", "batch_norm"),
}
_EXAMPLE = {"replacement": "rigl", "scores": "edge_popup"}
_OWN = ("replacement.drop", "replacement.grow", "scores.estimator", "scores.optimizer", "scores.lr_schedule")
_FREE = (
    *(f"{section}." for section in (*_TARGETS, *(f"pruner.{part}" for part in _OWN))),
    *("logger.", "claim."),
)
_REQUIRED = (
    *(
        key
        for key in _SCHEMA
        if "*" not in key and not key.startswith(("recipe.", "pruner.replacement.", "pruner.scores.", *_FREE))
    ),
    *(f"{section}._target_" for section in _TARGETS),
    *("model.name", "dataset.name", "corruption.name"),
)


def check(cfg: DictConfig) -> None:
    """Check every value of a composed configuration; LtlError names the first key that is missing or not possible."""
    try:
        plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        key, reason = getattr(error, "full_key", None), str(error).splitlines()[0]
        raise LtlError(f"{key or 'the configuration'} cannot be resolved: {reason.rstrip('.')}.") from None
    _check_sections(plain)
    found = dict(leaves(plain))
    ours = str(found.get("model._target_")).startswith("ltl.")  # what a user's own model takes is its own affair
    for key, value in found.items():
        if ours or not key.startswith("model.") or key in ("model.name", "model._target_"):
            _check_one(key, value)
    for key in _REQUIRED:
        if key not in found:
            raise LtlError(f"{key} is missing: it was deleted, or its section was replaced; give it a value.")
    _check_comparisons(plain.get("claim"))
    _check_reach(plain.get("claim"))
    _check_together(plain)


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and value of everything that is not a section; an empty section is a value."""
    if isinstance(node, dict) and node and path != "pruner.allocation.layers":
        for key, value in node.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def _check_one(key: str, value: Any) -> None:
    allowed = _allowed(key)
    if allowed is None and _allowed(key.rpartition(".")[0]) is not None:  # a section stands where a value should be
        key, _, name = key.rpartition(".")
        allowed, value = _allowed(key), {name: value}
    if allowed is None and f"{key}." in _FREE and key not in ("claim", "logger"):
        allowed = _PART
    if allowed is not None:
        _check_value(key, value, allowed)
    if allowed is None and not key.startswith(_FREE) and key not in ("claim", "control", "logger"):
        near = difflib.get_close_matches(key, [name for name in _SCHEMA if "*" not in name], 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise LtlError(f"{key}={_shown(value)} is not possible: nothing reads a key of this name.{hint}")


def _check_value(key: str, value: Any, allowed: Allowed) -> None:
    if not allowed.test(value):
        raise LtlError(f"{key}={_shown(value)} is not possible: it must be {allowed.words}.")


def _allowed(key: str) -> Allowed | None:
    if key.startswith(("pruner.scores.optimizer.", "pruner.scores.lr_schedule.")):
        key = key.removeprefix("pruner.scores.")  # they take what those of the weights take
    patterns = (pattern for pattern in _SCHEMA if pattern == key or ("*" in pattern and fnmatchcase(key, pattern)))
    return next((_SCHEMA[pattern] for pattern in patterns), None)


def _shown(value: Any) -> str:
    """Return `value` as one short line."""
    text = "null" if value is None else " ".join(str(value).split())
    return text if len(text) <= 80 else f"{text[:78]} …"


def _check_sections(plain: dict[str, Any]) -> None:
    """Check the groups that hold any number of named members."""
    members = {"control": ("mask", "weights", "network", "data", "rounds", "draws", "train"), "logger": ("_target_",)}
    write = {"control": "control=[reinit,random_mask], or control=none", "logger": "logger=csv, wandb or none"}
    for group, keys in members.items():
        section = plain.get(group)
        if not isinstance(section, dict) or not all(isinstance(member, dict) for member in section.values()):
            raise LtlError(f"{group}={_shown(section)} is not possible: write {write[group]}.")
        for name, member in section.items():
            for key in keys:
                if key not in member:
                    raise LtlError(
                        f"{group}.{name} has settings but no {key}: choose {name} in {group}=[…], or take its settings "
                        f"away with '~{group}.{name}'."
                    )


def _check_comparisons(claim: Any) -> None:
    """Check the order of settings that a claim states, entry by entry."""
    given = claim.get("comparisons", []) if isinstance(claim, dict) else []
    _check_value("claim.comparisons", given, list_of(lambda entry: isinstance(entry, dict), "comparisons"))
    for place, entry in enumerate(given):
        named = f"claim.comparisons[{place}]"
        sides = set(entry) - {"sentence", "quantity", "arms", "densities"}
        if not {"sentence", "quantity"} <= set(entry) or sides not in ({"better", "worse"}, {"equal"}, {"between"}):
            raise LtlError(
                f"{named}={_shown(entry)} is not possible: it must have sentence, quantity, and either better and "
                "worse, or equal, or between; it may have arms and densities, and nothing else."
            )
        for key, value in entry.items():
            _check_value(f"{named}.{key}", value, _COMPARISON[key])


def _check_reach(claim: Any) -> None:
    """Check what a claim says of a key that a sweep varies, entry by entry."""
    given = claim.get("reach", []) if isinstance(claim, dict) else []
    _check_value("claim.reach", given, list_of(lambda entry: isinstance(entry, dict), "entries with along"))
    for place, entry in enumerate(given):
        if not set(_REACH) - {"arm"} <= set(entry) <= set(_REACH):
            raise LtlError(
                f"claim.reach[{place}]={_shown(entry)} is not possible: it must have sentence, quantity, along and "
                "baseline; it may have arm, and nothing else."
            )
        for key, value in entry.items():
            _check_value(f"claim.reach[{place}].{key}", value, _REACH[key])


def _check_together(plain: dict[str, Any]) -> None:
    """Check the values that depend on one another."""
    length, rewind = (lengths.parse(text, "") for text in (plain["length"], plain["pruner"]["rewind_to"]))
    if rewind.unit == length.unit and rewind.value >= length.value:
        raise lengths.beyond_the_end(plain["pruner"]["rewind_to"], plain["length"])
    for section, names in _OPTIONAL.items():
        given = plain["pruner"].get(section)
        for name in names if given is not None else ():
            if name not in given:
                raise LtlError(
                    f"pruner.{section}.{name} is missing: write {', '.join(names[:-1])} and {names[-1]}, as "
                    f"pruner={_EXAMPLE[section]} does."
                )
    if plain["pruner"]["name"] == "dense" and plain["pruner"]["rounds"]:
        raise LtlError(
            f"pruner.rounds={plain['pruner']['rounds']} is not possible with pruner=dense, which prunes nothing: leave "
            "it out, or choose another pruner, whose round 0 is the dense network."
        )
    schedule = plain["pruner"]["schedule"]
    if schedule.get("begin", 0) > schedule.get("end", 1):
        raise LtlError(
            f"pruner.schedule.begin={schedule['begin']} comes after pruner.schedule.end={schedule['end']}: swap them."
        )
    scores = plain["pruner"].get("scores") or {}
    for key, one in (("optimizer", plain["optimizer"]), ("pruner.scores.optimizer", scores.get("optimizer", {}))):
        if one.get("nesterov") and not one.get("momentum"):
            raise LtlError(f"{key}.nesterov=true needs {key}.momentum above 0.")
    hardware, devices = plain["hardware"], plain["hardware"]["devices"]
    if devices > 1 and (hardware["strategy"] != "ddp" or hardware["chunk"] != 1):
        raise LtlError(
            f"hardware.devices={devices} needs hardware.strategy=ddp and hardware.chunk=1, as hardware=ddp sets them: "
            "gradients are exchanged once a chunk."
        )
    if plain["batch"] % devices:
        raise LtlError(
            f"batch={plain['batch']} cannot be shared evenly by hardware.devices={devices}: choose a multiple."
        )
