"""Controls: what a ticket is compared with, each a choice of mask, weights and network (docs/concepts.md)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from ltl.masks import Tensors, dense, shuffled, shuffled_keeping, shuffled_weights
from ltl.rng import generator
from ltl.tickets import Ticket, start_of
from ltl.training.start import Start


@dataclass(frozen=True)
class Control:
    """One control arm.

    mask: the ticket's own, permuted within each layer (freely, or so that each input or each unit keeps its count), or
    all ones. weights: the ticket's rewind point, the same permuted among the kept places of each layer, or a fresh
    initialisation, trained from step 0. network: the ticket's, or a small one of as many weights. data: what the search
    saw, or that without its corruption. rounds: those of the search to be compared (None = all that prune). draws:
    random repetitions. train: whether it is trained, or evaluated as it is.
    """

    mask: Literal["same", "shuffled", "shuffled_inputs", "shuffled_units", "dense"]
    weights: Literal["rewound", "shuffled", "fresh"]
    network: Literal["same", "small"]
    data: Literal["same", "clean"]
    rounds: tuple[int, ...] | None
    draws: int
    train: bool


def control_start(
    ticket: Ticket,
    control: Control,
    *,
    arm: str,
    draw: int,
    turn: int,
    seeds: tuple[int, int],
    initialise: Callable[[torch.Generator], Tensors],
) -> Start:
    """Return the start of one draw of `control` for the ticket of round `turn`; `seeds` are those of init and mask."""
    init_seed, mask_seed = seeds
    fresh = control.weights == "fresh"
    theta = initialise(generator("init", init_seed, arm, draw, turn)) if fresh else start_of(ticket)
    masks = ticket.masks
    source = generator("mask", mask_seed, arm, draw, turn)
    if control.mask == "shuffled":
        masks = shuffled(masks, source)
    elif control.mask == "shuffled_inputs":
        masks = shuffled_keeping(masks, source, "inputs")
    elif control.mask == "shuffled_units":
        masks = shuffled_keeping(masks, source, "units")
    elif control.mask == "dense":
        masks = dense({name: theta[name] for name in masks})
    if control.weights == "shuffled":
        theta = shuffled_weights(theta, masks, source)
    step = 0 if fresh else int(ticket.metadata["rewind_step"])
    fills = {} if fresh else ticket.fills
    return Start(arm, draw, turn, masks, theta, fills, step, int(ticket.metadata["search_steps"]))
