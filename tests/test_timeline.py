"""Chunks cover every step once and end where something happens; batches cover every example once an epoch."""

import pytest
import torch

from ltl.errors import LtlError
from ltl.lengths import parse
from ltl.training.order import DataOrder
from ltl.training.timeline import Timeline


@pytest.mark.parametrize("chunk", [1, 3, 50])
@pytest.mark.parametrize("eval_every", [1, 4, 10, 99])
@pytest.mark.parametrize("first", [(0,), (0, 5, 5), (0, 10, 0)])
def test_chunks_cover_every_step_once(first: tuple[int, ...], eval_every: int, chunk: int) -> None:
    """Whatever the lengths, and one epoch of chunks ends at each evaluation."""
    marks = frozenset({(0, 5), (1, 7)})
    timeline = Timeline(length=12, eval_every=eval_every, first=first, chunk=chunk, marks=marks)
    seen, position, epochs = [], (0, 0), 0
    while position != (len(first) - 1, 12):
        for turn, start, stop in timeline.chunks(position):
            assert 0 < stop - start <= chunk
            seen += [(turn, step) for step in range(start, stop)]
            position = (turn, stop)
            assert not any(turn == at and start < step < stop for at, step in marks)
        assert position[1] % eval_every == 0 or position[1] == 12
        epochs += 1
    assert seen == [(turn, step) for turn, begin in enumerate(first) for step in range(begin, 12)]
    assert (epochs, len(seen)) == (timeline.epochs(), timeline.steps())


@pytest.mark.parametrize(("examples", "batch"), [(10, 3), (10, 10), (7, 5), (100, 1)])
def test_every_example_is_seen_once_an_epoch(examples: int, batch: int) -> None:
    """Batches are full and may straddle epochs; any step's batch can be had without those before it."""
    make = [
        DataOrder(examples=examples, batch=batch, seed=1, by_round="same", device=torch.device("cpu")) for _ in range(2)
    ]
    stream = torch.cat([make[0].indices((0, 0), step) for step in range(4 * examples)])[: 4 * examples]
    for epoch in stream.split(examples):
        assert sorted(epoch.tolist()) == list(range(examples))
    for step in (37 % examples, 0, 5):
        assert torch.equal(make[1].indices((0, 0), step), make[0].indices((0, 0), step))
    assert examples < 4 or not torch.equal(stream[:examples], stream[examples : 2 * examples])


def test_rounds_repeat_the_order_or_do_not() -> None:
    """`same` gives every round and draw round 0's batches; `fresh` gives each its own."""
    same, fresh = (
        DataOrder(examples=50, batch=7, seed=1, by_round=by, device=torch.device("cpu")) for by in ("same", "fresh")
    )
    assert torch.equal(same.indices((0, 0), 3), same.indices((4, 0), 3))
    assert not torch.equal(fresh.indices((0, 0), 3), fresh.indices((4, 0), 3))
    assert torch.equal(fresh.indices((0, 0), 3), same.indices((0, 0), 3))
    assert torch.equal(same.indices((4, 1), 3), same.indices((4, 0), 3))
    assert not torch.equal(fresh.indices((4, 1), 3), fresh.indices((4, 0), 3))


def test_lengths() -> None:
    """Epochs are passes over the training examples, rounded to whole steps."""
    assert parse("500it", "length").steps(examples=10, batch=3) == 500
    assert parse("2ep", "length").steps(examples=45_000, batch=128) == 703
    assert parse("160ep", "length").steps(examples=45_000, batch=64) == 112_500
    assert parse("0.5ep", "length").steps(examples=100, batch=10) == 5
    for bad in ("500", "it", "-3it", "1.5it", "2 ep", "ep2", "", "1e3it"):
        with pytest.raises(LtlError, match=r"length=.*500it or .* 2ep"):
            parse(bad, "length")
