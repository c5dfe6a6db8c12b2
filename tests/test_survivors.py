"""What kept weights start from, by each file of conf/pruner: laws that its paper's words imply, and hand-made cases."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import composed
from hydra.utils import instantiate
from test_criteria import small, some
from test_pruning import SHAPES, draws, evidence
from torch import Tensor

from ltl import build
from ltl.errors import LtlError
from ltl.masks import Masks, Tensors
from ltl.pruning import schedules, survivors
from ltl.pruning.evidence import Evidence
from ltl.training.layers import quartiles
from ltl.training.search import Search

Survivors = Callable[[Evidence, Masks], Tensors]
PERMUTED = ["zhou_reinit", "zhou_reshuffle", "zhou_signed_reinit", "zhou_signed_reshuffle"]
DRAWING = [*PERMUTED, "zhou_constant", "noise"]
ALL = [
    *DRAWING,
    "zhou_signed_constant",
    "zhou_rescaled",
    "edge_popup_scaled",
    "quantised",
    "zhou_variant_1",
    "zhou_variant_2",
]


@cache
def survivors_of(name: str, **more: Any) -> Survivors:
    """The survivors function that a file of conf/pruner names."""
    values = [f"pruner.survivors.{key}={value}" for key, value in more.items()]
    made: Survivors = instantiate(composed(f"pruner={name}", *values).pruner.survivors, _convert_="all")
    return made


def ordered(values: Tensor) -> list[float]:
    numbers: list[float] = values.flatten().sort().values.tolist()
    return numbers


@pytest.mark.parametrize("name", PERMUTED)
def test_initial_weights_change_places(name: str) -> None:
    """In the layer or among the kept positions: the same values, or the same magnitudes and the signs as they were."""
    for seed in range(5):
        known, masks = evidence(seed=seed), some(seed)
        start = survivors_of(name)(known, masks)
        for layer, mask in masks.items():
            theta, new = known.theta_k[layer], start[layer]
            where = mask if "reshuffle" in name else torch.ones_like(mask)
            assert torch.equal(new[~where], theta[~where])
            assert not torch.equal(new[where], theta[where])
            if "signed" in name:
                assert torch.equal(torch.sign(new), torch.sign(theta))
                assert ordered(new[where].abs()) == ordered(theta[where].abs())
            else:
                assert ordered(new[where]) == ordered(theta[where])
                assert int((torch.sign(new) != torch.sign(theta)).sum()) > 3


@pytest.mark.parametrize("name", PERMUTED)
def test_every_order_is_equally_likely(name: str) -> None:
    """Of the three weights that may change places, in 300 draws with fixed seeds; six orders.

    For a uniform choice the statistic exceeds 20.5 with probability 0.001.
    """
    change = survivors_of(name)
    orders: Counter[tuple[float, ...]] = Counter()
    for seed in range(300):
        known = small([1.0, 2.0, 3.0], [0.0] * 3, seed)
        if "reshuffle" in name:
            known = small([1.0, 9.0, 2.0, 3.0, 9.0], [0.0] * 5, seed)
        theta = known.theta_k["fc.weight"]
        new = change(known, {"fc.weight": theta < 9})["fc.weight"]
        orders[tuple(new[theta < 9].tolist())] += 1
    assert len(orders) == 6
    assert sum((count - 50) ** 2 / 50 for count in orders.values()) < 20.5


@pytest.mark.parametrize("name", ["zhou_constant", "zhou_signed_constant"])
def test_constants_are_the_deviation_of_the_initial_layer(name: str) -> None:
    """Under the signs of the rewind point, at their positions or permuted over the layer."""
    known, masks = evidence(), some(0)
    start = survivors_of(name)(known, masks)
    for layer in masks:
        alpha = float(np.std(known.theta_0[layer].numpy()))
        assert start[layer].abs().flatten().tolist() == pytest.approx([alpha] * start[layer].numel(), rel=1e-6)
        positive, before = start[layer] > 0, known.theta_k[layer] > 0
        assert int(positive.sum()) == int(before.sum())
        assert torch.equal(positive, before) is (name == "zhou_signed_constant")


@pytest.mark.parametrize("name", ALL)
def test_only_prunable_weights_change(name: str) -> None:
    """All parameters and buffers are there; nothing is changed in place; the global generator is left alone."""
    known, masks = evidence(seed=2), some(2)
    before = {layer: value.clone() for layer, value in known.theta_k.items()}
    torch.manual_seed(0)
    start = survivors_of(name)(known, masks)
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(1))
    assert list(start) == list(known.theta_k)
    assert start["norm.running_mean"] is known.theta_k["norm.running_mean"]
    for layer, value in before.items():
        assert torch.equal(known.theta_k[layer], value)
        assert start[layer].shape == value.shape and start[layer].dtype == value.dtype
        assert torch.equal(start[layer], value) is (layer == "norm.running_mean")


@pytest.mark.parametrize("name", [*DRAWING, "zhou_signed_constant", "zhou_rescaled", "edge_popup_scaled", "quantised"])
def test_nothing_adds_up_over_rounds(name: str) -> None:
    """Each round starts from the rewind point alone: what the round before began with or learned does not matter."""
    change, masks = survivors_of(name), some(1)
    one = change(evidence(seed=1), masks)
    other = change(replace(evidence(seed=1), weights=one, masks=masks), masks)
    assert all(torch.equal(one[layer], other[layer]) for layer in one)


def test_a_reshuffled_ticket_has_its_own_initial_weights_in_every_round() -> None:
    """Added up, as in the official code, a round permutes what the masks before left: then it has other values."""
    change, masks = survivors_of("zhou_reshuffle"), some(0)
    theta = adding_up = evidence().theta_k
    for turn in range(3):
        masks = {layer: mask & kept for (layer, mask), kept in zip(masks.items(), some(turn + 5).values(), strict=True)}
        known = evidence(seed=turn)
        ours = change(known, masks)
        adding_up = change(replace(evidence(seed=turn), theta_k=adding_up), masks)
        for layer, mask in masks.items():
            assert ordered(ours[layer][mask]) == ordered(theta[layer][mask])
    mask = masks["fc.weight"]
    assert ordered(adding_up["fc.weight"][mask]) != ordered(theta["fc.weight"][mask])


def test_noise_is_gaussian_of_the_layer_s_own_scale() -> None:
    """By mean, deviation and fourth moment of 40,000 draws; in two layers of different scale, at two strengths."""
    source = torch.Generator().manual_seed(0)
    theta = {
        "a.weight": torch.randn(200, 200, generator=source),
        "b.weight": 0.01 * torch.randn(50, 800, generator=source),
    }
    masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in theta.items()}
    known = replace(evidence(), theta_0=theta, theta_k={name: weight + 1 for name, weight in theta.items()})
    for deviations in (0.5, 3.0):
        start = survivors_of("noise", deviations=deviations)(known, masks)
        for name, weight in theta.items():
            noise = ((start[name] - known.theta_k[name]) / (deviations * float(np.std(weight.numpy())))).flatten()
            assert abs(float(noise.mean())) < 4 / 200
            assert float(noise.std()) == pytest.approx(1, abs=4 / 200 / 2**0.5)
            assert float((noise**4).mean()) == pytest.approx(3, abs=4 * 96**0.5 / 200)
    assert torch.equal(survivors.noised(known, masks, deviations=0)["a.weight"], known.theta_k["a.weight"])


def test_quantised_weights_by_hand() -> None:
    """Of a range of ±4: one bit is ±2; two bits are ±1 and ±3; 0 has no sign and stays, in a layer of zeros too."""
    known = small([0.1, -1.9, 2.1, -4.0, 4.0, 0.0], [0.0] * 6)
    for bits, expected in ((1, [2, -2, 2, -2, 2, 0]), (2, [1, -1, 3, -3, 3, 0]), (3, [0.5, -1.5, 2.5, -3.5, 3.5, 0])):
        start = survivors_of("quantised", bits=bits)(known, known.masks)
        assert start["fc.weight"].flatten().tolist() == expected
        zeros = small([0.0] * 3, [0.0] * 3)
        for flushed in (True, False):  # as on a processor in a run, and as PyTorch has it
            torch.set_flush_denormal(flushed)
            assert not survivors_of("quantised", bits=bits)(zeros, zeros.masks)["fc.weight"].any()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_quantised_weights_are_near_their_own(bits: int) -> None:
    """Within half a step, in at most 2^bits values, each layer by its own range; the sign stays."""
    known, masks = evidence(), some(0)
    start = survivors_of("quantised", bits=bits)(known, masks)
    for layer in SHAPES:
        theta = known.theta_k[layer].double()
        half_step = float(theta.abs().max()) / 2**bits
        assert float((start[layer] - theta).abs().max()) <= half_step * (1 + 1e-5)
        assert len(start[layer].unique()) <= 2**bits
        assert torch.equal(torch.sign(start[layer]).double(), torch.sign(theta))


@pytest.mark.parametrize(("name", "power"), [("zhou_rescaled", 1.0), ("edge_popup_scaled", 0.5)])
def test_rescaled_weights_are_divided_by_the_density_of_their_layer(name: str, power: float) -> None:
    """Or by its root: σ = √(2/(k·fan_in)) of a Kaiming initialisation, k the density.

    A layer without weights, which allow_empty permits, has none to divide.
    """
    known, masks = evidence(), some(0)
    masks["output.weight"][:] = False
    start = survivors_of(name)(known, masks)
    for layer in ("conv.weight", "fc.weight"):
        density = sum(masks[layer].flatten().tolist()) / masks[layer].numel()
        assert torch.allclose(start[layer], known.theta_k[layer] / density**power, rtol=1e-6)
    assert bool(torch.isfinite(start["output.weight"]).all())
    again = survivors.rescaled(evidence(seed=1), masks, survivors=survivors_of("zhou_signed_constant"))
    assert float(again["fc.weight"].abs().mean()) > float(known.theta_0["fc.weight"].std())


@pytest.mark.parametrize("name", ALL)
def test_the_memory_format_changes_nothing(name: str) -> None:
    """Channels-last weights have the same starts as contiguous ones."""
    plain, last = evidence(seed=4), evidence(seed=4)
    for states in (last.weights, last.theta_0, last.theta_k):
        states["conv.weight"] = states["conv.weight"].to(memory_format=torch.channels_last)
    masks = some(4)
    one = survivors_of(name)(plain, masks)
    masks["conv.weight"] = masks["conv.weight"].to(memory_format=torch.channels_last)
    other = survivors_of(name)(last, masks)
    assert all(torch.equal(one[layer], other[layer]) for layer in one)


def test_draws_are_those_of_float32() -> None:
    """hardware.precision=64-true has the same orders and the same noise."""
    for name in DRAWING:
        single, double = evidence(seed=5), evidence(seed=5)
        double = replace(
            double,
            **{
                state: {key: value.double() for key, value in getattr(double, state).items()}
                for state in ("weights", "theta_0", "theta_k")
            },
        )
        one, two = (survivors_of(name)(known, some(5)) for known in (single, double))
        assert all(torch.allclose(one[layer].double(), two[layer], atol=1e-6) for layer in SHAPES)
        assert draws(0)["fc.weight"].dtype == torch.float32 and two["fc.weight"].dtype == torch.float64


def test_one_shot_rounds_start_from_the_dense_network_s_trained_weights() -> None:
    """Not from those of the round before (Renda et al. 2020), with the next mask; after a checkpoint too."""
    pruner = build._pruner(composed("pruner=lr_rewind").pruner)
    events = schedules.after_dense(rounds=3, rate=0.3, length=10, rewind_step=0)
    ends = [draws(number) for number in range(1, 4)]  # what each round's training ends with
    search = Search(pruner=pruner, events=events, seed=0)
    search.take_theta_0(draws(9))
    search.begin(list(SHAPES))
    for weights in ends:
        search.next_round(weights, length=10, first=0)
        assert search.current.theta is search.theta_dense
        assert all(torch.equal(search.theta_dense[name], ends[0][name]) for name in SHAPES)
        resumed = Search(pruner=pruner, events=events, seed=0)
        resumed.take_theta_0(draws(9))
        state = search.state()
        assert state["start"]["theta"] == "theta_dense"  # kept once
        resumed.load(state)
        search = resumed
        search.move(ends[0])
    for name, mask in search.current.masks.items():
        assert 0.3 < float(mask.float().mean()) < 0.7
        assert ends[0][name][mask].abs().min() > ends[0][name][~mask].abs().max()


@pytest.mark.parametrize("name", ["random", "static_sparse"])
def test_survivors_of_a_round_that_is_pruned_at_its_start_are_of_that_mask(name: str) -> None:
    """Divided by the densities that are trained, not by those of the round before."""
    pruner = replace(build._pruner(composed(f"pruner={name}").pruner), survivors=survivors_of("edge_popup_scaled"))
    schedule = instantiate(composed(f"pruner={name}").pruner.schedule)
    search = Search(pruner=pruner, events=schedule(rounds=2, rate=0.5, length=10, rewind_step=0), seed=0)
    search.take_theta_0(draws(9))
    search.begin(list(SHAPES))
    for turn in (1, 2):
        search.next_round(draws(turn), length=10, first=0)
        for layer, mask in search.current.masks.items():
            scaled = search.theta_0[layer] * (mask.numel() / int(mask.sum())) ** 0.5
            assert torch.allclose(search.current.theta[layer], scaled)


def test_a_round_that_prunes_anew_reports_all_weights_that_went() -> None:
    """Of the dense network, not only those that the round before had left."""
    pruner = build._pruner(composed("pruner=static_sparse").pruner)
    search = Search(
        pruner=pruner, events=schedules.at_init(rounds=2, rate=0.5, length=10, rewind_step=0, prunings=1), seed=0
    )
    search.take_theta_0(draws(9))
    search.begin(list(SHAPES))
    for turn in (1, 2):
        search.next_round(draws(turn), length=10, first=0)
        for layer, mask in search.current.masks.items():
            assert search.current.gone[layer] == quartiles(search.theta_0[layer], ~mask)


def test_a_fresh_initialisation_comes_to_where_the_masks_are() -> None:
    """It is drawn on the processor, whose tensors a GPU's masks cannot index; `meta` is there without a GPU."""
    drawn: list[Tensors] = []

    def fresh(known: Evidence, masks: Masks) -> Tensors:
        drawn.append(known.initialise(known.generator))
        return known.weights

    pruner = replace(build._pruner(composed("pruner=imp_reinit").pruner), survivors=fresh)
    search = Search(pruner=pruner, events=[], seed=0, initialise=lambda source: draws(1))
    search.take_theta_0(draws(9))
    search.begin(list(SHAPES))
    search.theta_0 = {name: weight.to("meta") for name, weight in search.theta_0.items()}
    search.next_round(draws(2), length=10, first=0)
    assert [weight.device.type for weight in drawn[0].values()] == ["meta"] * len(SHAPES)


def test_one_shot_pruning_cannot_keep_the_optimiser_s_state(tmp_path: Path) -> None:
    """It would be that of the round before, whose weights are not taken on."""
    chosen = ("pruner=finetune", "pruner.schedule._target_=ltl.pruning.schedules.after_dense")
    with pytest.raises(LtlError, match=r"pruner\.momentum=kept is not possible"):
        build.experiment(composed(*chosen), tmp_path, hardware_number=0)
    build.experiment(composed(*chosen, "pruner.momentum=zero"), tmp_path, hardware_number=0)
