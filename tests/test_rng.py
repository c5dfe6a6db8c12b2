"""Random streams: each its own, the same draws for the same keys, and never the global generator."""

import itertools

import torch

from ltl.rng import Stream, generator, stream_seed

STREAMS: tuple[Stream, ...] = ("init", "order", "augmentation", "mask")


def test_the_same_arguments_give_the_same_draws() -> None:
    """Each call is a fresh generator."""
    one, two = generator("init", 3, "reinit", 0, 4), generator("init", 3, "reinit", 0, 4)
    assert torch.equal(torch.rand(50, generator=one), torch.rand(50, generator=two))
    assert not torch.equal(
        torch.rand(50, generator=one), torch.rand(50, generator=generator("init", 3, "reinit", 0, 4))
    )


def test_streams_seeds_and_keys_are_told_apart() -> None:
    """No two of 4 streams × 50 seeds × 31 keys share a seed; keys do not run together."""
    keys: list[tuple[int | str, ...]] = [(), *itertools.product(range(5), range(5)), *((n,) for n in range(5))]
    seeds = [stream_seed(stream, seed, *key) for stream in STREAMS for seed in range(50) for key in keys]
    assert len(set(seeds)) == len(seeds) == 4 * 50 * 31
    assert stream_seed("mask", 1, 23) != stream_seed("mask", 12, 3)
    assert stream_seed("mask", 1, 2, 3) != stream_seed("mask", 1, 23)


def test_seeds_are_frozen() -> None:
    """They are part of what makes a command repeatable: a change here changes every result."""
    assert stream_seed("init", 0) == 6_696_366_509_346_122_710
    assert stream_seed("mask", 7, "random_mask", 1, 2) == 7_272_930_409_902_543_085
    for stream, seed in itertools.product(STREAMS, range(100)):
        assert 0 <= stream_seed(stream, seed) < 2**63


def test_streams_are_uncorrelated() -> None:
    """Correlation of 10,000 draws between streams, and between neighbouring seeds, is that of chance (5 σ)."""
    draws = [torch.randn(10_000, generator=generator(stream, seed)) for stream in STREAMS for seed in range(3)]
    correlations = torch.corrcoef(torch.stack(draws)) - torch.eye(len(draws))
    assert float(correlations.abs().max()) < 5 / 100


def test_the_global_generator_is_left_alone() -> None:
    """Neither read nor moved."""
    torch.manual_seed(0)
    first = generator("order", 1).initial_seed()
    state = torch.get_rng_state()
    torch.manual_seed(1)
    assert generator("order", 1).initial_seed() == first
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)
