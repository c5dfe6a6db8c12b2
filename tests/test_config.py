"""The command line never changes by accident: groups, options and keys are frozen here, compose, and run."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import data_files
import pytest
import torch
from conftest import CONF, composed
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf

from ltl import build, lengths, schema
from ltl.errors import LtlError
from ltl.overrides import _hydra
from ltl.results import read_status, read_table

Launch = Callable[..., Path]

OPTIONS = {
    "allocation": [
        "erdos_renyi",
        "erdos_renyi_kernel",
        "global",
        "matched",
        "per_layer",
        "positive",
        "smart_ratio",
        "uniform",
    ],
    "control": [
        "clean",
        "dense_reordered",
        "none",
        "random_mask",
        "random_ticket",
        "reinit",
        "reordered",
        "shuffled_inputs",
        "shuffled_units",
        "shuffled_weights",
        "small_dense",
        "trained",
        "untrained",
    ],
    "corruption": ["none", "random_labels", "random_pixels", "subset"],
    "dataset": ["cifar10", "cifar100", "digits", "fashion_mnist", "mnist"],
    "debug": ["fast"],
    "experiment": [
        "diffenderfer2021_multi_prize",
        "diffenderfer2021_multi_prize_conv",
        "evci2020_rigl",
        "frankle2019_conv2",
        "frankle2019_conv4",
        "frankle2019_conv6",
        "frankle2019_lenet",
        "frankle2019_lenet_oneshot",
        "frankle2019_lenet_sgd",
        "frankle2019_resnet20",
        "frankle2019_resnet20_low_lr",
        "frankle2019_resnet20_warmup",
        "frankle2019_vgg19",
        "frankle2019_vgg19_low_lr",
        "frankle2019_vgg19_warmup",
        "frankle2020_linear_mode_connectivity",
        "frankle2020_missing_the_mark",
        "frankle2020_resnet20",
        "lecun1990_obd",
        "pensia2020_subset_sum",
        "ramanujan2019_edge_popup",
        "ramanujan2019_edge_popup_conv",
        "ramanujan2019_edge_popup_width",
        "renda2020_oneshot",
        "renda2020_rewinding",
        "strong_lth_width",
        "su2020_random_tickets",
        "su2020_sanity_checks",
        "tanaka2020_synflow",
        "zhou2019_criteria",
        "zhou2019_heuristic",
        "zhou2019_heuristic_conv",
        "zhou2019_signs",
        "zhou2019_supermask",
        "zhou2019_supermask_conv",
        "zhou2019_zeros",
    ],
    "hardware": ["cpu", "ddp", "gpu", "gpu_bf16"],
    "hydra/launcher": ["basic", "joblib", "submitit_local", "submitit_slurm"],
    "initialiser": ["glorot_normal", "kaiming_normal", "kaiming_uniform", "orthogonal", "signed_constant"],
    "logger": ["csv", "none", "wandb"],
    "lr_schedule": ["constant", "cosine", "milestones"],
    "model": [
        "conv2",
        "conv4",
        "conv6",
        "conv8",
        "lenet_300_100",
        "resnet110",
        "resnet14",
        "resnet18",
        "resnet20",
        "resnet32",
        "resnet44",
        "resnet56",
        "vgg11",
        "vgg13",
        "vgg16",
        "vgg19",
        "vgg_small",
        "wide_resnet50",
    ],
    "optimizer": ["adam", "adamw", "sgd"],
    "pruner": [
        "dense",
        "diff_sign",
        "early_bird",
        "edge_popup",
        "edge_popup_global",
        "edge_popup_scaled",
        "finetune",
        "gradient_magnitude",
        "gradual",
        "grasp",
        "grasp_inverted",
        "grasp_iterative",
        "grasp_magnitude",
        "hybrid",
        "imp",
        "imp_late",
        "imp_oneshot",
        "imp_reinit",
        "large_final_diff_sign",
        "large_final_same_sign",
        "large_init",
        "large_init_large_final",
        "lr_rewind",
        "magnitude_increase",
        "magnitude_increase_diff_sign",
        "magnitude_increase_same_sign",
        "magnitude_init",
        "movement",
        "multi_prize",
        "multi_prize_binary_activations",
        "multi_prize_global",
        "multi_prize_gradual",
        "noise",
        "optimal_brain_damage",
        "quantised",
        "random",
        "random_ticket",
        "rigl",
        "same_sign",
        "set",
        "small_final",
        "small_init",
        "small_init_small_final",
        "snfs",
        "snip",
        "snip_inverted",
        "snip_iterative",
        "static_sparse",
        "synflow",
        "synflow_inverted",
        "synflow_oneshot",
        "trained_ternary",
        "zhou_constant",
        "zhou_freeze_init",
        "zhou_heuristic",
        "zhou_heuristic_init",
        "zhou_heuristic_magnitude",
        "zhou_reinit",
        "zhou_rescaled",
        "zhou_reshuffle",
        "zhou_signed_constant",
        "zhou_signed_reinit",
        "zhou_signed_reshuffle",
        "zhou_supermask",
        "zhou_supermask_constant",
        "zhou_supermask_rescaled",
        "zhou_supermask_rescaled_constant",
        "zhou_variant_1",
        "zhou_variant_1_random",
        "zhou_variant_1_reversed",
        "zhou_variant_2",
    ],
}
DEFAULTS = {
    "allocation": "per_layer",
    "dataset": "digits",
    "hardware": "cpu",
    "corruption": "none",
    "initialiser": "glorot_normal",
    "lr_schedule": "constant",
    "model": "lenet_300_100",
    "optimizer": "adam",
    "pruner": "imp",
    "debug": None,
    "experiment": None,
    "logger": "csv",
}
KEYS = {
    "batch", "claim", "clip", "control", "corruption", "dataset", "draws", "ends", "eval_every", "hardware",
    "initialiser", "length", "logger", "lr_schedule", "model", "optimizer", "plan", "pruner", "recipe", "report",
    "resume", "rewinding_note", "seed", "seeds", "tags", "ticket", "trials",
}  # fmt: skip
RELIED_ON = [
    "seed", "seeds.init", "seeds.order", "seeds.augmentation", "seeds.mask", "seeds.order_by_round", "trials", "draws",
    "length", "eval_every", "ticket", "resume", "pruner.rounds", "pruner.rate", "pruner.rewind_to", "hardware.threads",
]  # fmt: skip
# Minutes together: networks of millions of weights, and settings that differ from resnet20's in a learning rate.
SLOW = {
    "diffenderfer2021_multi_prize_conv",
    "frankle2019_conv2",
    "frankle2019_conv4",
    "frankle2019_conv6",
    "frankle2019_resnet20_low_lr",
    "frankle2019_resnet20_warmup",
    "frankle2019_vgg19",
    "frankle2019_vgg19_low_lr",
    "frankle2019_vgg19_warmup",
    "ramanujan2019_edge_popup_conv",
    "ramanujan2019_edge_popup_width",
    "renda2020_oneshot",
    "tanaka2020_synflow",
    "su2020_random_tickets",
    "zhou2019_heuristic_conv",
    "zhou2019_supermask_conv",
}


def every(*without: str) -> list[tuple[str, str]]:
    return [(group, option) for group, options in OPTIONS.items() if group not in without for option in options]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Small data sets in the official formats, where LTL_DATA_DIR says."""
    root = tmp_path_factory.mktemp("data")
    for name in ("mnist", "fashion_mnist"):
        data_files.write_idx(root, name, train=300, test=100)
    data_files.write_cifar10(root)
    data_files.write_cifar100(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTL_DATA_DIR", str(root))
        yield root


def on(dataset: str) -> list[str]:
    """The overrides that choose a data set, of small files if it comes from files."""
    return [f"dataset={dataset}", *([] if dataset == "digits" else ["dataset.verify=false", "dataset.download=false"])]


def test_groups_and_options_are_frozen() -> None:
    """What is typed today must mean the same tomorrow; a new option is added here on purpose."""
    with _hydra(CONF):
        loader = GlobalHydra.instance().config_loader()
        offered = {group: loader.get_group_options(group) for group in OPTIONS}
        ours = {path.name for path in CONF.iterdir() if any(path.glob("*.yaml"))}
    assert offered == OPTIONS
    assert ours == {group for group in OPTIONS if "/" not in group}


def test_keys_are_frozen() -> None:
    """The top level, and the keys that other programs set."""
    cfg = composed()
    assert set(cfg) == KEYS
    for key in RELIED_ON:
        assert OmegaConf.select(cfg, key, default="absent") != "absent", key
    assert all("root" in composed(f"dataset={name}").dataset for name in OPTIONS["dataset"] if name != "digits")


def test_defaults_are_frozen() -> None:
    with _hydra(CONF):
        from hydra import compose

        chosen = compose("config", return_hydra_config=True).hydra.runtime.choices
    assert {group: chosen[group] for group in DEFAULTS} == DEFAULTS
    assert list(composed().control) == ["reinit"]


@pytest.mark.parametrize(("group", "option"), every("hydra/launcher"))
def test_every_option_composes_and_passes_the_schema(group: str, option: str) -> None:
    """On its own, and with late rewinding, whose step is each model's own."""
    for pruner in ["imp", "imp_late"] if group == "model" else ["imp"]:
        cfg = composed(f"{group}={option}", *([] if group in ("pruner", "experiment") else [f"pruner={pruner}"]))
        assert isinstance(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True), dict)
        schema.check(cfg)


def test_the_tests_compose_as_hydra_does() -> None:
    """Values that are set in a composition that others share, in place of a composition for every value."""
    overrides = ["experiment=zhou2019_signs", "pruner.rewind_to=20it", "pruner=imp_late", "control=[random_mask]"]
    overrides += ["~model.activation", "+model.gain=[1,2]", "control.random_mask.rounds=[2]", "clip=0.5", "tags=[a]"]
    ours = composed(*overrides)
    with _hydra(CONF):
        from hydra import compose

        assert ours == compose("config", overrides=overrides)
    with pytest.raises(ConfigCompositionException, match=r"Could not override 'model\.nothing'"):
        composed("model.nothing=1")


@pytest.mark.parametrize("option", OPTIONS["hydra/launcher"])
def test_every_launcher_composes(option: str) -> None:
    with _hydra(CONF):
        from hydra import compose

        cfg = compose("config", overrides=[f"hydra/launcher={option}"], return_hydra_config=True)
    assert option.split("_")[0] in cfg.hydra.launcher._target_.lower()


@pytest.mark.parametrize("dataset", OPTIONS["dataset"])
@pytest.mark.parametrize("model", OPTIONS["model"])
def test_every_model_fits_every_dataset_or_says_why_not(model: str, dataset: str, files: Path) -> None:
    """Built in full, without allocating the weights; VGGs halve their images too often for 8x8 pixels."""
    cfg = composed(
        *on(dataset), f"model={model}", "pruner=dense", "dataset.limit=200", "dataset.validation=20", "batch=20"
    )
    if dataset == "digits" and (model.startswith("vgg1") or model == "conv8"):
        with pytest.raises(LtlError, match=r"^model: (VGG|Conv)-\d+ halves its images . times and needs") as error:
            build.experiment(cfg, files, hardware_number=0)
        assert "\n" not in str(error.value)
    else:
        counts = build.experiment(cfg, files, hardware_number=0).counts()
        assert counts["parameters"] > counts["prunable"] > 0


@pytest.mark.parametrize(
    ("group", "option"),
    every("model", "dataset", "hardware", "experiment", "debug", "hydra/launcher", "logger", "pruner"),
)
def test_every_option_runs(launch: Launch, group: str, option: str) -> None:
    """A handful of steps and two prunings; every pruner runs in test_stack.py, three times."""
    more = []
    if option == "matched":
        more = [f"pruner.allocation.like.ticket={launch('control=none', folder='found')}@2"]
    if option == "trained":
        more = ["pruner=edge_popup"]
    if option == "clean":
        more = ["corruption=random_labels"]
    if "reordered" in option:
        more = ["seeds.order_by_round=fresh"]
    folder = launch(f"{group}={option}", "recipe.rewind_to=3it", *more)
    rows = read_table(folder / "rounds.csv")
    assert [row["arm"] for row in rows].count("ticket") == 3
    controls = ["reinit"] if group != "control" else [] if option == "none" else [option]
    assert [row["arm"] for row in rows if row["arm"] != "ticket"] == controls * 2
    assert read_status(folder)["state"] == "done"


def shrunk(value: Any) -> Any:
    """A network of the same form with two channels or units wherever there were more."""
    return [shrunk(one) for one in value] if isinstance(value, list) else 2


@pytest.mark.parametrize("model", OPTIONS["model"])
def test_every_model_runs(launch: Launch, files: Path, model: str) -> None:
    """In its own form and by its own recipe, with few channels; with pruning, rewinding and a small dense control."""
    own = OmegaConf.to_container(composed(f"model={model}").model)
    assert isinstance(own, dict)
    narrow = [f"model.{key}={shrunk(own[key])}" for key in ("widths", "width") if key in own]
    if "width" not in own and "blocks" in own:
        narrow.append(f"model.blocks={shrunk(own['blocks'])}".replace(" ", ""))
    small = ["length=4it", "eval_every=2it", "batch=8", "trials=1", "pruner.rounds=1", "pruner.rate=0.1"]
    few = ["dataset.limit=24", "dataset.validation=16", "recipe.rewind_to=1it", "control=small_dense"]
    folder = launch(f"model={model}", "pruner=imp_late", *on("cifar10"), *narrow, *small, *few, tiny=False)
    rows = read_table(folder / "rounds.csv")
    assert [(row["arm"], row["round"]) for row in rows] == [("ticket", "0"), ("ticket", "1"), ("small_dense", "1")]
    assert float(rows[1]["density"]) < 1


@pytest.mark.parametrize("dataset", OPTIONS["dataset"])
@pytest.mark.parametrize("augment", [False, True])
def test_every_dataset_runs(launch: Launch, files: Path, dataset: str, augment: bool) -> None:
    folder = launch(*on(dataset), "dataset.validation=20", f"dataset.augment={str(augment).lower()}", "control=none")
    status = read_status(folder)["dataset"]
    assert status["name"] == dataset
    assert status["canonical"] is (dataset == "digits")
    assert 0 <= float(read_table(folder / "rounds.csv")[-1]["test_accuracy"]) <= 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("option", ["gpu", "gpu_bf16"])
def test_a_gpu_is_asked_for_in_one_line(launch: Launch, option: str) -> None:
    with pytest.raises(LtlError, match=r"^hardware\.accelerator=gpu needs a CUDA GPU.*choose hardware=cpu\.$"):
        launch(f"hardware={option}")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("option", ["gpu", "gpu_bf16"])
def test_every_gpu_option_runs(launch: Launch, option: str) -> None:
    assert read_status(launch(f"hardware={option}", "control=none"))["state"] == "done"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in OPTIONS["experiment"]]
)
def test_every_experiment_runs_in_its_fast_form(launch: Launch, files: Path, name: str) -> None:
    folder = launch(f"experiment={name}", "debug=fast", "dataset.verify=false", "dataset.download=false", tiny=False)
    cfg = composed(f"experiment={name}")
    schema.check(composed(f"experiment={name}", "debug=fast"))
    rows = read_table(folder / "rounds.csv")
    assert {row["arm"] for row in rows} == {"ticket", *cfg.control}
    rounds = ["0"] if cfg.pruner.name == "dense" else ["0", "1", "2"]
    assert [row["round"] for row in rows if row["arm"] == "ticket"] == rounds
    shutil.rmtree(folder)  # a gigabyte for the wide ones


@pytest.mark.parametrize("name", OPTIONS["experiment"])
def test_every_experiment_builds_in_full(files: Path, name: str) -> None:
    """With all its steps and rounds, on the small files."""
    cfg = composed(f"experiment={name}", "dataset.verify=false", "dataset.validation=20")
    built = build.experiment(cfg, files, hardware_number=0)
    asked = lengths.parse(cfg.length, "length")
    assert built.length == asked.steps(examples=len(built.dataset.train), batch=cfg.batch)
    at_once = cfg.pruner.name == "dense" or cfg.pruner.rate > 0.5 or cfg.pruner.get("scores") is not None
    assert built.rounds == cfg.pruner.rounds >= (0 if at_once else 6)
    assert OmegaConf.select(cfg, "claim.sentence")


def test_every_file_says_on_top_what_it_is() -> None:
    """A comment first, but `# @package` where there is one: Hydra ignores it below the first line."""
    for path in sorted(CONF.rglob("*.yaml")):
        first, second = path.read_text().splitlines()[:2]
        assert first.startswith("# "), path
        if "@package" in path.read_text():
            assert first.startswith("# @package "), path
            assert second.startswith("# "), path
        comment = second if "@package" in first else first
        assert len(comment) > 15, path


@pytest.mark.parametrize("pruner", ["snip_iterative", "grasp_magnitude", "synflow", "set", "snfs", "hybrid"])
def test_pruners_whose_papers_prune_every_layer_do_so_in_every_model(pruner: str) -> None:
    """Whatever the model excludes for its own paper; the command line still can, and imp keeps to the model."""
    chosen = ("model=resnet20", f"pruner={pruner}")
    assert composed(*chosen).pruner.allocation.exclude == []
    assert composed(*chosen, "pruner.allocation.exclude=[output.weight]").pruner.allocation.exclude == ["output.weight"]
    assert composed("model=resnet20").pruner.allocation.exclude == ["output.weight", "*.shortcut.*"]


def test_settings_shared_by_models_come_from_the_recipe() -> None:
    """A model's paper decides; a data set, schedule or allocation chosen later keeps to it, and can be overridden."""

    def chosen(*overrides: str) -> DictConfig:
        return composed(*overrides)

    conv = chosen("model=conv6", "dataset=cifar10")
    assert (conv.pruner.allocation.conv, conv.pruner.allocation.output, conv.dataset.augment) == (0.75, 0.5, False)
    vgg = chosen("model=vgg19", "dataset=cifar10")
    assert (vgg.dataset.augment, vgg.lr_schedule.milestones, vgg.length) == (True, ["80ep", "120ep"], "160ep")
    powers = [chosen(f"model={name}", "allocation=smart_ratio").pruner.allocation for name in ("vgg19", "resnet20")]
    assert [power.depth_power for power in powers] == [2, 0]
    assert chosen("model=vgg19", "dataset=cifar10", "dataset.augment=false").dataset.augment is False
    assert chosen("model=resnet20", "dataset=digits").length == "500it"
    assert chosen("model=resnet20", "dataset=digits", "length=7it").length == "7it"
    assert chosen("model=conv2", "allocation=global").pruner.allocation._target_.endswith("global_pool")
    assert os.environ.get("LTL_DATA_DIR", "data") == chosen("dataset=mnist").dataset.root
