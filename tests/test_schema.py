"""Every value is checked before training: what is out of its range is one line that names the key."""

import copy
import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from conftest import composed
from omegaconf import OmegaConf
from test_config import OPTIONS

from ltl import schema
from ltl.allowed import Allowed
from ltl.errors import LtlError

WHOLE = [-1, 1.5, 2**62, "many", True, None, [1], {"a": 1}]
FRACTION = [-0.1, 1.1, "much", True, None, float("nan"), [0.5]]
RATIO = [-0.1, "much", True, None, float("inf"), float("nan"), [0.5]]
LENGTH = ["5", 5, "5 it", "5steps", "-5it", "1.5it", "it", "infit", f"{10**12}it", f"{10**12}ep", None, True, [5]]
ROUND = [*LENGTH, "0it", "0ep", "0.0ep"]
LENGTHS = ["5it", [5], ["5"], [None], None, 5]
SWITCH = ["maybe", 2, None, [True], "warn"]
WORD = ["", " ", 3, None, True, ["a"]]
WORDS = ["a", [1], [None], [""], None, {"a": "b"}]
CHOICE = ["other", 7, None, True, ["same"]]

# Every key of the default configuration and of every option, with values that are refused.
REFUSED: dict[str, list[Any]] = {
    "seed": WHOLE,
    **{f"seeds.{name}": [-1, 1.5, "many", True, [1]] for name in ("init", "order", "augmentation", "mask")},
    "seeds.order_by_round": CHOICE,
    "trials": [0, 10_001, *WHOLE],
    "draws": [0, 10_001, *WHOLE],
    "length": ROUND,
    "eval_every": ROUND,
    "batch": [0, *WHOLE],
    "clip": [0, -1, "much", True, float("nan"), float("inf")],
    "ticket": ["", 3, ["a"]],
    "resume": ["", 3, ["a"]],
    "plan": SWITCH,
    "ends": SWITCH,
    "tags": WORDS,
    "rewinding_note": ["", 3, ["a"]],
    "report.margin": FRACTION,
    "report.bars": CHOICE,
    **{f"recipe.rates.{kind}": [1001, *RATIO] for kind in ("conv", "linear", "output")},
    "recipe.milestones": LENGTHS,
    "recipe.augment": SWITCH,
    "recipe.depth_power": RATIO,
    "recipe.rewind_to": LENGTH,
    "recipe.scores_length": ROUND,
    "recipe.rounds.dense": [10_001, *WHOLE],
    "model._target_": WORD,
    "model._partial_": SWITCH,
    "model.name": WORD,
    "model.widths": [3, [0], [1.5], ["a"], [True], None, {"a": 1}],
    "model.blocks": [3, [], [0], [[]], [[0]], [1.5], None],
    "model.width": [0, *WHOLE],
    "model.bias": SWITCH,
    "model.widening": [0, *WHOLE],
    "model.dropout": [1.0, *FRACTION],
    "model.activation": CHOICE,
    "model.batch_norm": SWITCH,
    "model.width_factor": [0, *RATIO],
    "dataset._target_": WORD,
    **dict.fromkeys(["dataset.name", "dataset.root", "dataset.archive", "dataset.checksum", "dataset.folder"], WORD),
    **dict.fromkeys(["dataset.mirrors", "dataset.train_files", "dataset.test_files"], WORDS),
    "dataset.checksums": WORD,
    **dict.fromkeys(["dataset.verify", "dataset.download", "dataset.augment", "dataset.flip"], SWITCH),
    **{f"dataset.{name}": [0, *WHOLE] for name in ("outputs", "label_bytes", "validation", "test")},
    "dataset.limit": [0, -1, 1.5, "many", True],
    "dataset.mean": [0.0, [], ["a"], [None], [float("nan")], None],
    "dataset.std": [1.0, [], [0], [-1], ["a"], [float("inf")], None],
    "dataset.padding": WHOLE,
    "pruner.name": WORD,
    "pruner.rounds": [10_001, *WHOLE],
    "pruner.rate": [0, 1, 3, *FRACTION],
    "pruner.rewind_to": LENGTH,
    "pruner.momentum": CHOICE,
    "pruner.lr": CHOICE,
    **{
        f"pruner.{part}.{name}": bad
        for part in (
            "criterion",
            "criterion.criterion",
            "allocation",
            "schedule",
            "survivors",
            "filler",
            "replacement.drop",
            "replacement.grow",
        )
        for name, bad in (("_target_", WORD), ("_partial_", SWITCH))
    },
    **{f"pruner.criterion.{name}": [0, *WHOLE] for name in ("examples", "at_once", "criterion.examples")},
    **{f"pruner.criterion.{name}": [0, *RATIO] for name in ("temperature", "criterion.temperature")},
    **dict.fromkeys(
        [f"pruner.schedule.{name}" for name in ("begin", "end", "until", "fraction", "distance")], FRACTION
    ),
    "pruner.schedule.start": [0, 1.5, *RATIO],
    **{f"pruner.schedule.{name}": [0, *WHOLE] for name in ("prunings", "every", "looks")},
    "pruner.scores.estimator._target_": WORD,
    "pruner.scores.estimator.rescale": SWITCH,
    "pruner.scores.length": ROUND,
    "pruner.scores.samples": [10_001, *WHOLE],
    "pruner.scores.batch_norm": CHOICE,
    "pruner.replacement.redistribute": SWITCH,
    "pruner.replacement.grow.momentum": [1.0, *FRACTION],
    "pruner.replacement.grow.batches": [0, *WHOLE],
    "pruner.survivors.survivors._target_": WORD,
    "pruner.survivors.survivors._partial_": SWITCH,
    **dict.fromkeys([f"pruner.survivors.{name}" for name in ("among", "signs", "weights", "where")], CHOICE),
    "pruner.survivors.deviations": RATIO,
    "pruner.survivors.bits": [0, *WHOLE],
    "pruner.criterion.sign": CHOICE,
    **dict.fromkeys([f"pruner.allocation.{name}" for name in ("dense_first", "dense_last", "kernel")], SWITCH),
    "pruner.allocation.output_density": FRACTION,
    "pruner.allocation.depth_power": RATIO,
    "pruner.allocation.like.ticket": ["", 3, ["a"]],
    "pruner.allocation.like._target_": WORD,
    **{f"pruner.allocation.{kind}": [1001, *RATIO] for kind in ("conv", "linear", "output")},
    "pruner.allocation.layers": [[], 3, {"fc1.weight": -1}, {"fc1.weight": "a"}, {"fc1.weight": None}, None],
    "pruner.allocation.exclude": WORDS,
    "pruner.allocation.allow_empty": SWITCH,
    **{
        f"{section}.{name}": bad
        for section in ("optimizer", "lr_schedule", "initialiser")
        for name, bad in (("_target_", WORD), ("_partial_", SWITCH))
    },
    "optimizer.lr": RATIO,
    "optimizer.betas": [0.9, [0.9], [0.9, 1.0], [-0.1, 0.9], [0.9, "a"], [0.9, 0.99, 0.999], None],
    "optimizer.eps": RATIO,
    "optimizer.weight_decay": RATIO,
    "optimizer.momentum": [1.0, *FRACTION],
    "optimizer.nesterov": SWITCH,
    "optimizer.fused": SWITCH,
    "lr_schedule.warmup": LENGTH,
    "lr_schedule.milestones": LENGTHS,
    "lr_schedule.factor": [0, 1001, *RATIO],
    "initialiser.gain": [0, *RATIO],
    "hardware.accelerator": CHOICE,
    "hardware.devices": [0, *WHOLE],
    "hardware.strategy": CHOICE,
    "hardware.threads": [0, 1025, *WHOLE],
    "hardware.wait_policy": CHOICE,
    "hardware.precision": CHOICE,
    "hardware.memory_format": CHOICE,
    "hardware.deterministic": ["maybe", 2, None, [True]],
    "hardware.chunk": [0, *WHOLE],
    "hardware.eval_batch": [0, *WHOLE],
    "hardware.stack": CHOICE,
    "hardware.stack_size": [0, *WHOLE],
    "hardware.sparse_below": FRACTION,
    "hardware.sparse_inputs_below": FRACTION,
    "hardware.graph": SWITCH,
    "hardware.compile": SWITCH,
    "hardware.merge": SWITCH,
    "corruption.labels": SWITCH,
    "corruption.fraction": FRACTION,
    "control.*.data": CHOICE,
    "corruption._target_": WORD,
    "corruption.name": WORD,
    "hardware.tf32": SWITCH,
    "hardware.stop_after": ["9", "min", "-3min", 9, "9 min", [], "1d", "infh", f"{10**12}s"],
    "hardware.checkpoint_every": RATIO,
    "control.*.mask": CHOICE,
    "control.*.weights": CHOICE,
    "control.*.network": CHOICE,
    "control.*.rounds": [3, "3", "none", [0], [1.5], ["a"], None, {"a": 1}],
    "control.*.draws": [0, 10_001, *WHOLE],
    "control.*.train": SWITCH,
}
FREE = ("claim", "logger.", "control", "logger")  # a published experiment's words; what a logger's own code checks


@cache
def leaves() -> dict[str, str]:
    """Every key of the default configuration and of every option, with an override that has it."""
    found: dict[str, str] = {}
    chosen = [(g, o) for g, options in OPTIONS.items() if g not in ("hydra/launcher", "experiment") for o in options]
    for group, option in [("seed", "0"), *chosen, ("experiment", "frankle2019_lenet")]:
        for key, _ in schema.leaves(plain(f"{group}={option}")):
            found.setdefault(key, f"{group}={option}")
    return found


def pattern(key: str) -> str:
    """The entry of REFUSED that holds for a key."""
    parts = key.split(".")
    if parts[0] == "control" and len(parts) == 3:
        return f"control.*.{parts[2]}"
    if key.startswith(("pruner.scores.optimizer.", "pruner.scores.lr_schedule.")):
        return key.removeprefix("pruner.scores.")
    return "dataset.checksums" if key.startswith("dataset.checksums.") else key


@cache
def plain(override: str) -> Any:
    """What a run with `override` is given."""
    return OmegaConf.to_container(composed(override), resolve=True)


def refused(override: str, key: str, value: Any) -> str:
    """The error for `value` at `key`."""
    changed = copy.deepcopy(plain(override))
    *path, last = key.split(".") if not key.startswith("dataset.checksums.") else ["dataset", "checksums", key[18:]]
    node = changed
    for part in path:
        node = node[part]
    node[last] = value
    with pytest.raises(LtlError) as error:
        schema.check(OmegaConf.create(changed))
    return str(error.value)


def test_the_default_and_every_option_are_accepted() -> None:
    assert len(leaves()) > 100
    for option in set(leaves().values()):
        schema.check(composed(option))


def test_every_key_is_known() -> None:
    """A key that is added to conf/ must be checked, or be named in FREE."""
    known = {pattern(key) for key in leaves() if not key.startswith(FREE) or pattern(key) in REFUSED}
    assert known == set(REFUSED)


@pytest.mark.parametrize("entry", REFUSED)
def test_a_value_out_of_its_range_is_one_line_with_its_key(entry: str) -> None:
    keys = [key for key in leaves() if pattern(key) == entry]
    assert keys
    for key, value in itertools.product(keys, REFUSED[entry]):
        message = refused(leaves()[key], key, value)
        assert message.startswith((f"{key}=", f"{key} ")), message
        assert "\n" not in message
        assert len(message) < 300
        assert message.endswith(".")


FORMS: tuple[Callable[[Any], Any], ...] = (  # in which a key may ask for a number
    lambda value: value,
    lambda value: [value],
    lambda value: [value, value],
    lambda value: {"fc1.weight": value},
    lambda value: f"{value}it",
    lambda value: f"{value}min",
)
NO_NUMBERS = [float("nan"), float("inf"), -float("inf"), 10**400, -(10**400), "many", True]
GRID = [-(2**62), -1e9, -2, -1, -0.5, -1e-300, 0, 1e-300, 0.5, 1, 1.5, 2, 1001, 10_001, 1e9, 2**62, 1e300]


def forms(allowed: Allowed) -> list[Callable[[Any], Any]]:
    """The forms in which `allowed` takes a number, and not just any text."""
    return [form for form in FORMS if any(map(allowed.test, map(form, (1, 0.5)))) and not allowed.test(form("many"))]


NUMERIC = {key: forms(allowed) for key, allowed in schema._SCHEMA.items() if forms(allowed)}


def test_every_numeric_key_is_found() -> None:
    """By the schema itself, and among the keys whose refused values are written down above."""
    assert len(NUMERIC) > 50
    assert set(NUMERIC) <= set(REFUSED)
    numbers = {key for key, one in leaves().items() if type(OmegaConf.select(composed(one), key)) in (int, float)}
    assert {pattern(key) for key in numbers if not key.startswith("claim.")} <= set(NUMERIC)


@pytest.mark.parametrize("key", NUMERIC)
def test_no_number_and_no_number_out_of_its_range_gets_past_its_key(key: str) -> None:
    """NaN, infinity, text and switches never; below the least and above the greatest, one line with the key."""
    name, allowed = key.replace("*", "reinit"), schema._SCHEMA[key]
    for form, value in itertools.product(NUMERIC[key], [*NO_NUMBERS, *GRID]):
        if value in GRID and allowed.test(form(value)):
            continue
        with pytest.raises(LtlError, match=r" is not possible: it must be .*\.$") as error:
            schema._check_one(name, form(value))
        assert str(error.value).startswith(f"{name}=")
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 300
    assert key == "dataset.mean" or not any(allowed.test(form(-1)) for form in NUMERIC[key])


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("clip", [1.0, 1, None]),
        ("model.widths", [[], [1], [300, 100]]),
        ("optimizer.lr", [0, 1e-3]),
        ("dataset.limit", [1, None]),
        ("length", ["1it", "2ep", "0.5ep"]),
        ("seeds.init", [0, None, 2**61]),
        ("pruner.allocation.layers", [{}, {"fc1.weight": 0.5}]),
        ("control.reinit.rounds", ["all", [3, 7]]),
        ("report.margin", [0, 1, 0.002]),
        ("tags", [[], ["a", "b"]]),
        ("hardware.deterministic", [True, False, "warn"]),
    ],
)
def test_values_at_the_edge_are_accepted(key: str, values: list[Any]) -> None:
    for value in values:
        cfg = composed()
        OmegaConf.set_struct(cfg, False)
        OmegaConf.update(cfg, key, value, merge=False)
        schema.check(cfg)


@pytest.mark.parametrize(
    "key",
    [
        "seed",
        "batch",
        "seeds.order_by_round",
        "hardware.chunk",
        "pruner.rate",
        "model.name",
        "optimizer",
        "pruner.filler",
    ],
)
def test_a_key_that_was_deleted_is_missed(key: str) -> None:
    name = {"optimizer": "optimizer._target_", "pruner.filler": "pruner.filler._target_"}.get(key, key)
    with pytest.raises(LtlError, match=rf"^{name} is missing"):
        schema.check(composed(f"~{key}"))


@pytest.mark.parametrize(
    ("added", "near"),
    [
        ("seeed=1", "seed"),
        ("hardware.thread=1", "hardware.threads"),
        ("pruner.round=3", "pruner.rounds"),
        ("zzz=1", ""),
    ],
)
def test_a_key_that_nothing_reads_is_refused(added: str, near: str) -> None:
    """+key=value is Hydra's way to add one; only sections that are handed to a target take any."""
    with pytest.raises(LtlError, match=rf"^{added} is not possible: nothing reads") as error:
        schema.check(composed(f"+{added}"))
    assert (f"Did you mean {near}?" in str(error.value)) == bool(near)
    schema.check(composed("+optimizer.amsgrad=true", "+logger.csv.more=1"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["pruner.rewind_to=500it"], r"^pruner\.rewind_to=500it is at or past the end of a round \(length=500it\)"),
        (["pruner.rewind_to=3ep", "length=3ep"], r"^pruner\.rewind_to=3ep is at or past"),
        (
            ["pruner=dense", "pruner.rounds=2"],
            r"^pruner\.rounds=2 is not possible with pruner=dense, which prunes noth",
        ),
        (["optimizer=sgd", "optimizer.nesterov=true", "optimizer.momentum=0"], r"^optimizer\.nesterov=true needs"),
        (
            ["pruner=edge_popup", "pruner.scores.optimizer.nesterov=true", "pruner.scores.optimizer.momentum=0"],
            r"^pruner\.scores\.optimizer\.nesterov=true needs pruner\.scores\.optimizer\.momentum above 0",
        ),
        (["hardware.devices=2"], r"^hardware\.devices=2 needs hardware\.strategy=ddp and hardware\.chunk=1"),
        (["hardware=ddp", "hardware.chunk=9"], r"^hardware\.devices=2 needs hardware\.strategy=ddp and"),
        (["hardware=ddp", "batch=61"], r"^batch=61 cannot be shared evenly by hardware\.devices=2"),
        (["control.reinit=3"], r"^control=.* is not possible: write control=\[reinit,random_mask\]"),
        (
            ["experiment=frankle2020_missing_the_mark", "control=[reinit]"],
            r"^control\.random_mask has settings but no mask: choose random_mask in control=\[…\], or .* '~control\.",
        ),
        (["~control.reinit.mask"], r"^control\.reinit has settings but no mask"),
        (["~control.reinit.train"], r"^control\.reinit has settings but no train"),
        (
            ["pruner=small_final", "pruner.criterion.criterion=3"],
            r"^pruner\.criterion\.criterion=3 .* a part of its own",
        ),
        (["pruner=set", "~pruner.replacement.drop"], r"^pruner\.replacement\.drop is missing: write drop, grow and"),
        (["pruner=rigl", "~pruner.replacement.redistribute"], r"^pruner\.replacement\.redistribute is missing"),
        (["pruner=edge_popup", "~pruner.scores.samples"], r"^pruner\.scores\.samples is missing: write estimator, "),
        (["logger.csv=null"], r"^logger=.* is not possible: write logger=csv"),
        (["~recipe"], r"^[a-z._]+ cannot be resolved: Interpolation key 'recipe"),
        (["model.widths=???"], r"^model\.widths cannot be resolved: Missing mandatory value"),
        (["dataset.name='a\nb'", "seed=x"], r"^seed=x"),
    ],
)
def test_values_that_do_not_fit_together(overrides: list[str], message: str) -> None:
    with pytest.raises(LtlError, match=message) as error:
        schema.check(composed(*overrides))
    assert "\n" not in str(error.value)


def test_long_and_many_lined_values_are_shown_short() -> None:
    with pytest.raises(LtlError) as error:
        schema.check(composed(f"seed='{'a long tale ' * 50}'"))
    assert len(str(error.value)) < 200


def test_all_errors_name_what_is_allowed() -> None:
    """Each allowed set is said in words of its own."""
    for key, bad in itertools.islice(REFUSED.items(), 60):
        real = next(leaf for leaf in leaves() if pattern(leaf) == key)
        assert " must be " in refused(leaves()[real], real, bad[0]), key


def test_a_model_of_the_users_own_takes_what_it_likes() -> None:
    """The sizes of ltl's models are checked; a keyword of the same name elsewhere may mean something else."""
    schema.check(composed("+model.depth=3", "model._target_=mine.Net", "model.widths=12"))
    with pytest.raises(LtlError, match=r"model\.widths=12"):
        schema.check(composed("model.widths=12"))


@pytest.mark.parametrize("key", ["pruner.criterion", "optimizer", "pruner.scores.estimator"])
def test_a_name_where_a_part_should_be_is_told_what_a_part_is(key: str) -> None:
    """As `criterion: mine.relative_movement` in a file, where `_target_` is forgotten."""
    cfg = composed("pruner=edge_popup")
    OmegaConf.update(cfg, key, "mine.part", merge=False)
    with pytest.raises(LtlError) as error:
        schema.check(cfg)
    assert f"{key}=mine.part is not possible: it must be a part of its own, such as {{_target_: …" in str(error.value)
