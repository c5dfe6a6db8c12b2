"""Overlaps against scikit-learn and scipy, chance against simulation and exact enumeration."""

import math

import pytest
import torch
from scipy.stats import hypergeom
from sklearn.metrics import accuracy_score, jaccard_score  # type: ignore[import-untyped]

from ltl.comparison import Overlap, agreement, compare, in_all
from ltl.errors import LtlError
from ltl.masks import Masks, Tensors, shuffled

SHAPES = {"conv.weight": (4, 2, 3, 3), "fc.weight": (20, 30), "output.weight": (5, 20)}


def masks(seed: int, *densities: float) -> Masks:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(shape, generator=generator) < density
        for (name, shape), density in zip(SHAPES.items(), densities, strict=True)
    }


def weights(seed: int) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def flat(tensors: Tensors) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors.values()])


@pytest.fixture
def pair() -> tuple[Masks, Masks]:
    return masks(1, 0.6, 0.2, 0.5), masks(2, 0.3, 0.1, 0.5)


def test_jaccard_is_that_of_scikit_learn(pair: tuple[Masks, Masks]) -> None:
    a, b = pair
    layers = compare(a, b, weights(1), weights(2))
    assert [layer.layer for layer in layers] == list(SHAPES)
    for layer in layers:
        want = jaccard_score(a[layer.layer].flatten(), b[layer.layer].flatten())
        assert layer.jaccard == pytest.approx(want, abs=1e-12)
    assert in_all(layers).jaccard == pytest.approx(jaccard_score(flat(a), flat(b)), abs=1e-12)


def test_overlap_is_that_of_sets(pair: tuple[Masks, Masks]) -> None:
    a, b = pair
    layers = compare(a, b, weights(1), weights(2))
    sets = [{(name, index) for name in m for index in m[name].flatten().nonzero().flatten().tolist()} for m in (a, b)]
    total = in_all(layers)
    assert total.overlap == len(sets[0] & sets[1]) / min(map(len, sets))
    assert (total.kept_a, total.kept_b) == (len(sets[0]), len(sets[1]))
    for layer in layers:
        mine = [{index for name, index in one if name == layer.layer} for one in sets]
        assert layer.overlap == len(mine[0] & mine[1]) / min(map(len, mine))


def test_chance_is_hypergeometric(pair: tuple[Masks, Masks]) -> None:
    for layer in compare(*pair, weights(1), weights(2)):
        law = hypergeom(layer.weights, layer.kept_a, layer.kept_b)
        assert layer.chance == pytest.approx(law.mean())
        assert layer.variance == pytest.approx(law.var())
        assert layer.z == pytest.approx((layer.common - law.mean()) / law.std())
        assert layer.overlap_by_chance == pytest.approx(law.mean() / min(layer.kept_a, layer.kept_b))
        both = layer.kept_a + layer.kept_b
        assert layer.jaccard_by_chance == pytest.approx(law.mean() / (both - law.mean()))


def test_chance_in_all_is_what_shuffling_within_layers_gives(pair: tuple[Masks, Masks]) -> None:
    a, b = pair
    total = in_all(compare(a, b, weights(1), weights(2)))
    generator = torch.Generator().manual_seed(3)
    drawn = [in_all(compare(a, shuffled(b, generator), weights(1), weights(2))) for _ in range(1500)]
    common = torch.tensor([one.common for one in drawn], dtype=torch.float64)
    assert common.mean().item() == pytest.approx(total.chance, abs=4 * math.sqrt(total.variance / len(drawn)))
    assert common.var().item() == pytest.approx(total.variance, rel=0.15)
    jaccard = torch.tensor([one.jaccard for one in drawn], dtype=torch.float64)
    assert jaccard.mean().item() == pytest.approx(total.jaccard_by_chance, rel=0.01)
    z = torch.tensor([one.z for one in drawn], dtype=torch.float64)
    assert z.std().item() == pytest.approx(1.0, rel=0.08)
    # Layer densities alone make masks overlap more than their density in all would: that is no similarity.
    assert total.chance > 1.1 * total.kept_a * total.kept_b / total.weights


def test_equal_and_opposite_masks() -> None:
    a = masks(1, 0.5, 0.2, 0.3)
    same = in_all(compare(a, a, weights(1), weights(1)))
    assert (same.jaccard, same.overlap, same.sign_agreement) == (1.0, 1.0, 1.0)
    assert same.z > 20
    opposite = in_all(compare(a, {name: ~mask for name, mask in a.items()}, weights(1), weights(1)))
    assert (opposite.jaccard, opposite.overlap) == (0.0, 0.0)
    assert opposite.z < -20
    assert math.isnan(opposite.sign_agreement)


def test_signs_count_on_common_survivors_only(pair: tuple[Masks, Masks]) -> None:
    a, b = pair
    theta_a, theta_b = weights(1), weights(2)
    theta_a["fc.weight"][:8], theta_b["fc.weight"][:12] = 0.0, 0.0
    layer = compare(a, b, theta_a, theta_b)[1]
    common = (a["fc.weight"] & b["fc.weight"]).flatten()
    signs = [theta["fc.weight"].flatten()[common].sign() for theta in (theta_a, theta_b)]
    assert common[: 8 * 30].any()
    assert common[8 * 30 : 12 * 30].any()
    assert common[12 * 30 :].any()
    assert layer.sign_agreement == pytest.approx(accuracy_score(*signs))
    elsewhere = {name: torch.where(a[name] & b[name], theta, -theta) for name, theta in theta_a.items()}
    assert compare(a, b, elsewhere, theta_b)[1].same_sign == layer.same_sign


def test_what_does_not_exist_is_nan() -> None:
    none = {"x": torch.zeros(6, dtype=torch.bool)}
    every = {"x": torch.ones(6, dtype=torch.bool)}
    theta = {"x": torch.ones(6)}
    empty = compare(none, none, theta, theta)[0]
    values = (empty.jaccard, empty.overlap, empty.jaccard_by_chance, empty.overlap_by_chance, empty.z)
    assert all(math.isnan(value) for value in (*values, empty.sign_agreement))
    dense = compare(every, every, theta, theta)[0]
    assert (dense.jaccard, dense.jaccard_by_chance, dense.overlap_by_chance) == (1.0, 1.0, 1.0)
    assert math.isnan(dense.z)
    one = {"x": torch.ones(1, dtype=torch.bool)}
    assert math.isnan(compare(one, one, {"x": torch.ones(1)}, {"x": torch.ones(1)})[0].z)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"fc.weight": torch.ones(20, 30)}, "only the first has 'conv.weight'"),
        ({**masks(1, 1, 1, 1), "new": torch.ones(3)}, "only the second has 'new'"),
        ({**masks(1, 1, 1, 1), "fc.weight": torch.ones(30, 20)}, r"'fc.weight' is \(20, 30\) .* \(30, 20\)"),
    ],
)
def test_different_layers_are_refused(other: Masks, words: str) -> None:
    with pytest.raises(LtlError, match=words):
        compare(masks(1, 1, 1, 1), other, weights(1), weights(1))


def test_agreement_of_predictions() -> None:
    generator = torch.Generator().manual_seed(4)
    a, b = torch.randn(200, 4, generator=generator), torch.randn(200, 4, generator=generator)
    targets = torch.randint(4, (200,), generator=generator)
    found = agreement(a, b, targets)
    predicted = [max(range(4), key=row.__getitem__) for row in a.tolist()]
    others = [max(range(4), key=row.__getitem__) for row in b.tolist()]
    assert found.examples == 200
    assert found.same == accuracy_score(predicted, others)
    assert found.accuracy_a == accuracy_score(targets, predicted)
    assert found.accuracy_b == accuracy_score(targets, others)
    assert agreement(a, 2 * a + 1, targets).same == 1.0
    with pytest.raises(LtlError, match="not finite"):
        agreement(a, b.index_fill(0, torch.tensor([7]), math.nan), targets)


def test_overlap_in_all_of_one_layer_is_the_layer(pair: tuple[Masks, Masks]) -> None:
    layer = compare(*pair, weights(1), weights(2))[1]
    want = {name: getattr(layer, name) for name in Overlap.__dataclass_fields__} | {"layer": "all"}
    assert {name: getattr(in_all([layer]), name) for name in want} == want
