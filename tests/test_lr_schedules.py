"""Learning-rate schedules against torch.optim.lr_scheduler where it can express the same, and their laws elsewhere."""

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from ltl.errors import LtlError
from ltl.lengths import parse
from ltl.training.lr_schedules import LrSchedule, constant, cosine, milestones

LENGTH = 40


def steps(text: str) -> int:
    """10 steps an epoch."""
    return parse(text, "lr_schedule").steps(examples=100, batch=10)


def rates(make: "type[lr_scheduler.LRScheduler]", **settings: object) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer, **settings)  # type: ignore[arg-type]
    out = []
    for _ in range(LENGTH):
        out.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return out


def multiples(schedule: LrSchedule, start: int = 0) -> list[float]:
    return [schedule(step) for step in range(start, LENGTH)]


def test_constant() -> None:
    assert multiples(constant(warmup="0it", length=LENGTH, steps=steps)) == [1.0] * LENGTH


def test_milestones_agree_with_torch() -> None:
    ours = milestones(milestones=["12it", "3ep"], factor=0.1, warmup="0it", length=LENGTH, steps=steps)
    assert multiples(ours) == pytest.approx(rates(lr_scheduler.MultiStepLR, milestones=[12, 30], gamma=0.1))


def test_cosine_agrees_with_torch() -> None:
    ours = cosine(warmup="0it", length=LENGTH, steps=steps)
    assert multiples(ours) == pytest.approx(rates(lr_scheduler.CosineAnnealingLR, T_max=LENGTH))
    assert ours(LENGTH) == pytest.approx(0)


def test_warmup_agrees_with_torch() -> None:
    ours = constant(warmup="8it", length=LENGTH, steps=steps)
    assert multiples(ours) == pytest.approx(rates(lr_scheduler.LinearLR, start_factor=1 / 8, total_iters=7))
    assert ours(0) == 1 / 8
    assert ours(7) == 1


def test_warmup_multiplies_the_milestones() -> None:
    settings = {"milestones": ["4it", "20it"], "factor": 0.1, "length": LENGTH, "steps": steps}
    warm = milestones(warmup="1ep", **settings)  # type: ignore[arg-type]
    cold = milestones(warmup="0it", **settings)  # type: ignore[arg-type]
    assert multiples(warm, 10) == multiples(cold, 10)
    assert [warm(step) for step in range(10)] == pytest.approx([cold(step) * (step + 1) / 10 for step in range(10)])


def test_cosine_starts_when_the_warmup_ends() -> None:
    warm = cosine(warmup="1ep", length=LENGTH, steps=steps)
    short = cosine(warmup="0it", length=LENGTH - 10, steps=steps)
    assert [warm(step) for step in range(10)] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert multiples(warm, 10) == [short(step) for step in range(LENGTH - 10)]


def test_schedules_are_functions_of_the_step_alone() -> None:
    """A round that rewinds to step k asks for the multiples from k again."""
    for schedule in (
        milestones(milestones=["10it"], factor=0.5, warmup="3it", length=LENGTH, steps=steps),
        cosine(warmup="3it", length=LENGTH, steps=steps),
    ):
        forward = multiples(schedule)
        assert [schedule(step) for step in reversed(range(LENGTH))] == forward[::-1]


def test_mistakes_name_the_key() -> None:
    with pytest.raises(LtlError, match=r"lr_schedule\.factor .* got 0"):
        milestones(milestones=["10it"], factor=0.0, warmup="0it", length=LENGTH, steps=steps)
    with pytest.raises(LtlError, match=r"lr_schedule\.warmup=4ep is 40 steps"):
        cosine(warmup="4ep", length=LENGTH, steps=steps)
