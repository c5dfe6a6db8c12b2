"""The published experiments compose, and each is comparable with its own claim."""

from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest
import torch
from conftest import CONF, composed
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from ltl import schema
from ltl.masks import prunable
from ltl.report.claims import Claim, claim_of, has, not_comparable
from ltl.report.load import Run
from ltl.report.quantities import AT_ROUND, ONSET, SMALLEST

NAMES = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
CANONICAL = {"dataset": {"canonical": True, "test": 10_000}}


def experiment(name: str, *overrides: str) -> tuple[Run, Claim]:
    # As in a run folder: written by Hydra, read back from the file.
    config = OmegaConf.create(OmegaConf.to_yaml(composed(f"experiment={name}", *overrides)))
    assert isinstance(config, DictConfig)
    run = Run(Path(name), config, CANONICAL, [], [], [])
    claim = claim_of(run)
    assert claim is not None
    return run, claim


def test_all_experiments_are_there() -> None:
    variants = ["lenet", "lenet_oneshot", "lenet_sgd", "conv2", "conv4", "conv6"]
    variants += [f"{model}{how}" for model in ("resnet20", "vgg19") for how in ("", "_warmup", "_low_lr")]
    assert [f"frankle2019_{variant}" for variant in sorted(variants)] == [n for n in NAMES if "frankle2019" in n]


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_is_a_test_of_its_own_claim(name: str) -> None:
    run, claim = experiment(name)
    assert not_comparable(run, claim) is None
    assert len(claim.setting) > (15 if "frankle2019" in name else 8)
    schema.check(run.config)


@pytest.mark.parametrize("name", NAMES)
def test_a_smoke_run_is_not(name: str) -> None:
    run, claim = experiment(name, "debug=fast")
    reason = not_comparable(run, claim)
    assert reason is not None
    assert "length: 6it, published with" in reason


@pytest.mark.parametrize(
    ("name", "override"),
    [
        ("zhou2019_supermask", "pruner.scores.lr_schedule._target_=ltl.training.lr_schedules.cosine"),
        ("zhou2019_supermask", "pruner.scores.samples=1"),
        ("zhou2019_supermask", "optimizer.lr=0.1"),
        ("zhou2019_supermask_conv", "pruner.scores.lr_schedule._target_=ltl.training.lr_schedules.constant"),
        ("zhou2019_supermask_conv", "dataset.validation=40000"),
        ("zhou2019_heuristic", "lr_schedule=cosine"),
        ("zhou2019_heuristic", "allocation=global"),
        ("zhou2019_heuristic", "pruner.allocation.output=1.0"),
        ("zhou2019_heuristic_conv", "lr_schedule=cosine"),
        ("zhou2019_heuristic_conv", "allocation=global"),
        ("ramanujan2019_edge_popup", "allocation=global"),
        ("ramanujan2019_edge_popup", "dataset.validation=50000"),
        ("ramanujan2019_edge_popup", "model.activation=sign"),
        ("ramanujan2019_edge_popup_conv", "allocation=global"),
        ("ramanujan2019_edge_popup_conv", "model.batch_norm=true"),
        ("ramanujan2019_edge_popup_width", "allocation=erdos_renyi"),
        ("ramanujan2019_edge_popup_width", "optimizer.lr=0.1"),
        ("strong_lth_width", "allocation=global"),
        ("strong_lth_width", "optimizer.weight_decay=0.1"),
        ("strong_lth_width", "eval_every=10ep"),
        ("diffenderfer2021_multi_prize", "allocation=global"),
        ("diffenderfer2021_multi_prize", "dataset.validation=50000"),
        ("diffenderfer2021_multi_prize_conv", "allocation=global"),
    ],
)
def test_a_run_that_differs_in_a_key_of_all_jobs_is_no_test_of_the_claim(name: str, override: str) -> None:
    reason = not_comparable(*experiment(name, override))
    assert reason is not None
    assert "published with" in reason


@pytest.mark.parametrize(
    ("name", "override"),
    [
        ("zhou2019_supermask", "pruner.scores.estimator.rescale=true"),
        ("zhou2019_supermask_conv", "pruner.scores.estimator.rescale=true"),
        ("zhou2019_supermask", "pruner=zhou_supermask_constant pruner.survivors.signs=moved"),
        ("zhou2019_heuristic", "pruner.survivors.signs=moved"),
        ("zhou2019_heuristic_conv", "pruner=zhou_heuristic_init pruner.criterion.sign=different"),
        ("diffenderfer2021_multi_prize", "pruner.scores.optimizer.lr=1000"),
        ("diffenderfer2021_multi_prize", "pruner.scores.optimizer.weight_decay=1"),
        ("diffenderfer2021_multi_prize", "pruner=edge_popup pruner.scores.optimizer.momentum=0"),
        ("diffenderfer2021_multi_prize", "model.activation=sign"),
        ("diffenderfer2021_multi_prize_conv", "pruner=multi_prize_binary_activations pruner.scores.optimizer.lr=1000"),
        ("diffenderfer2021_multi_prize_conv", "pruner=trained_ternary pruner.scores.optimizer.lr=1000"),
    ],
)
def test_a_run_that_differs_in_a_key_of_its_job_is_none_that_the_claim_names(name: str, override: str) -> None:
    """A figure of the dense network, which has no scores, stays."""
    run, claim = experiment(name, *override.split())
    assert not any(has(run, side) for each in claim.comparisons for side in (each.first, each.second))
    assert all(figure.density == 1 for figure in claim.published)


@cache
def densities(name: str, *overrides: str) -> list[float]:
    """The densities of all rounds, by the network's own sizes and the paper's rates."""
    run, _ = experiment(name, *overrides)
    settings = {
        key: value
        for key, value in run.setting("model").items()
        if key not in ("_target_", "_partial_", "name", "width_factor")
    }
    mnist = run.setting("dataset.name") == "mnist"
    with torch.device("meta"):
        network = get_class(run.setting("model._target_"))(
            **settings, input_shape=(1, 28, 28) if mnist else (3, 32, 32), outputs=10
        )
    weights = {name: parameter for name, parameter in network.named_parameters() if name in prunable(network)}
    allocation, rate, last = run.setting("pruner.allocation"), run.setting("pruner.rate"), list(weights)[-1]

    def multiple(name: str, dimensions: int) -> float:
        if any(fnmatch(name, pattern) for pattern in allocation["exclude"]):
            return 0.0
        kind = "output" if name == last else "conv" if dimensions == 4 else "linear"
        return float(allocation.get(kind, 1.0))

    sizes = [(weight.numel(), 1 - rate * multiple(name, weight.ndim)) for name, weight in weights.items()]
    total = sum(size for size, _ in sizes)
    rounds = range(run.setting("pruner.rounds") + 1)
    return [sum(size * keep**round for size, keep in sizes) / total for round in rounds]


@pytest.mark.parametrize("name", NAMES)
def test_the_rounds_reach_every_published_density(name: str) -> None:
    _, claim = experiment(name)
    measured = densities(name)
    for published in claim.published:
        if published.quantity in AT_ROUND and published.density is not None:
            assert min(abs(density / published.density - 1) for density in measured) <= 0.1, published
        if published.quantity in SMALLEST or published.quantity in ONSET:
            assert measured[-1] <= published.value / 100, published
    assert claim.sentence and claim.against
    older = {"lecun1990_obd": "Advances in Neural Information Processing Systems 2"}
    assert ("1803.03635" if "frankle2019" in name else older.get(name, "arXiv:")) in claim.source


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name.startswith(("frankle2019_resnet20", "frankle2019_vgg19"))]
)
def test_the_note_on_rewinding_stands_where_the_paper_found_no_ticket(name: str) -> None:
    run, _ = experiment(name)
    assert (run.setting("rewinding_note") is None) is name.endswith(("_warmup", "_low_lr"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("strong_lth_width", [1, 2, 2, 4, 4, 8]), ("ramanujan2019_edge_popup_width", [0.5, 1, 1, 2])],
)
def test_what_the_widths_are_asked_are_jobs_of_the_sweep_with_its_setting(name: str, expected: list[float]) -> None:
    params = OmegaConf.load(CONF / "experiment" / f"{name}.yaml").hydra.sweeper.params
    assert list(params) == ["model.width_factor"]
    widths = [float(value) for value in params["model.width_factor"].split(",")]
    claims = [experiment(name, f"model.width_factor={width:g}") for width in widths]
    assert all(not_comparable(run, claim) is None for run, claim in claims)
    claim = claims[0][1]
    sides = [side["model.width_factor"] for each in claim.comparisons for side in (each.second, each.first)]
    assert sides == expected
    assert [(each.quantity, each.arm, each.along) for each in claim.reach] == [
        ("accuracy", "ticket", "model.width_factor"),
        ("end_accuracy", "ticket", "model.width_factor"),
    ]
    assert all(each.baseline == {"model.width_factor": 1} for each in claim.reach)


def test_what_networks_are_asked_are_jobs_of_the_sweep_at_densities_that_they_reach() -> None:
    name = "ramanujan2019_edge_popup_conv"
    jobs = OmegaConf.load(CONF / "experiment" / f"{name}.yaml").hydra.sweeper.params.model.split(",")
    sides = set()
    for model in jobs:
        run, claim = experiment(name, f"model={model}")
        assert not_comparable(run, claim) is None
        schema.check(run.config)
        (published,) = claim.published
        measured = densities(name, f"model={model}")
        assert min(abs(density / (published.density or 1) - 1) for density in measured) <= 0.1
        sides |= {(each.first["model.name"], each.second["model.name"]) for each in claim.comparisons}
        given = {density for each in claim.comparisons for pair in each.densities or () for density in pair}
        assert all(min(abs(density / each - 1) for density in measured) <= 0.1 for each in given)
    assert sides == {(model, model) for model in jobs}


@cache
def sweeps() -> list[tuple[str, str]]:
    """Each experiment that sweeps over pruners, with each of them."""
    found = []
    for name in NAMES:
        params = OmegaConf.select(OmegaConf.load(CONF / "experiment" / f"{name}.yaml"), "hydra.sweeper.params") or {}
        found += [(name, pruner) for pruner in str(params.get("pruner", "")).split(",") if pruner]
    return found


@pytest.mark.parametrize(("name", "pruner"), sweeps())
def test_every_job_of_a_sweep_over_pruners_is_a_test_of_the_claim(name: str, pruner: str) -> None:
    run, claim = experiment(name, f"pruner={pruner}")
    assert run.setting("pruner.name") == pruner
    assert not_comparable(run, claim) is None
    assert run.setting("pruner.rounds") == experiment(name)[0].setting("pruner.rounds")
    schema.check(run.config)


@pytest.mark.parametrize("name", sorted({name for name, _ in sweeps()}))
def test_every_published_figure_of_a_sweep_over_pruners_belongs_to_a_job(name: str) -> None:
    swept = {"pruner.name": "pruner", "model.name": "model", "pruner.rate": "pruner.rate"}
    for figure in experiment(name)[0].setting("claim.published"):
        where = figure.get("where", {})
        job = [f"{option}={where[key]}" for key, option in swept.items() if key in where]
        assert has(experiment(name, *job)[0], where), where


def test_a_figure_of_drawn_masks_belongs_to_each_job_of_learned_probabilities() -> None:
    """In the order of the sweep; the dense network's figure belongs to all."""
    jobs = [job for job in sweeps() if job[0] == "zhou2019_supermask"]
    figures = [[each.value for each in experiment(name, f"pruner={pruner}")[1].published] for name, pruner in jobs]
    assert figures == [[95.3, 97.7], [96.4, 97.7], [97.8, 97.7], [98.0, 97.7]]


@pytest.mark.parametrize("name", sorted({name for name, _ in sweeps()}))
def test_what_a_sweep_over_pruners_compares_are_jobs_of_it_at_densities_that_both_reach(name: str) -> None:
    jobs = {pruner for sweep, pruner in sweeps() if sweep == name}
    _, claim = experiment(name)
    sides = [
        (side, each.densities if each.densities in (None, "last") else tuple(pair[place] for pair in each.densities))
        for each in claim.comparisons
        for place, side in enumerate((each.first, each.second))
    ]
    assert sides
    corruptions = {path.stem for path in (CONF / "corruption").glob("*.yaml")}
    for side, _ in sides:
        of_the_job = {key: value for key, value in side.items() if key not in ("corruption.name", "pruner.rate")}
        assert side["pruner.name"] in jobs
        assert has(experiment(name, f"pruner={side['pruner.name']}")[0], of_the_job)
        assert side.get("corruption.name", "none") in corruptions
    for pruner, listed in {(side["pruner.name"], given) for side, given in sides}:
        scores = experiment(name, f"pruner={pruner}")[0].setting("pruner.scores.estimator._target_")
        assert (listed == "last") == (scores == "ltl.supermasks.Bernoulli")  # whose densities are outcomes
        if listed in (None, "last"):
            continue
        measured = densities(name, f"pruner={pruner}")
        assert all(min(abs(density / each - 1) for density in measured) <= 0.1 for each in listed), pruner
