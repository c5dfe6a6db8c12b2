"""What the replacement of a trained network keeps, misses and costs."""

import time
from typing import NamedTuple

import torch
from torch import nn

from ltl import rebuild
from ltl.datasets.dataset import Dataset
from ltl.masks import kept, total
from ltl.nearest_subset import nearest_items, nearest_subsets
from ltl.rng import generator
from ltl.subset_sum.construction import Choose, outputs_of, replaced, ticket_of, weights_of
from ltl.tickets import Ticket
from ltl.training.evaluation import evaluate

RULES: dict[str, Choose] = {"subset": nearest_subsets, "single": nearest_items}
_BATCH = 500  # test examples in one forward pass: hidden layers are n times as wide as the trained network's


class Measured(NamedTuple):
    """One replacement: a row of subset_sum.csv. Errors are |weight − sum|, over all weights (and signs of inputs)."""

    rule: str  # subset: the best subset of the products; single: the best one of them
    n: int  # products for each weight (and sign of its input)
    seed: int
    target_weights: int  # of the trained network
    products: int  # to choose from
    products_kept: int
    weights: int  # of the random network
    weights_kept: int
    error_median: float
    error_p99: float
    error_max: float
    epsilon: float
    missed: float  # fraction of the errors above epsilon
    test_accuracy_before: float
    test_accuracy: float  # of the masked random network
    difference: float  # greatest, of its outputs from those of the replaced weights, on the test set
    seconds: float  # of the replacement alone


def accuracy_of(network: nn.Module, dataset: Dataset) -> float:
    """Return the accuracy on the test set of a network in evaluation mode."""
    ((_, accuracy),) = evaluate(lambda inputs: network(inputs).unsqueeze(0), dataset, dataset.test, _BATCH, form="rows")
    return accuracy


def measure(
    trained: Ticket, dataset: Dataset, before: float, *, rule: str, n: int, epsilon: float, seed: int
) -> tuple[Measured, Ticket]:
    """Return what replacing `trained`, of test accuracy `before`, by sums of `n` products does, and the ticket.

    Inputs count as signed if any training or test input is below 0. LtlError for networks other than perceptrons
    without biases, and for more products than a subset sum may have.
    """
    signed = bool(min(split.inputs.min() for split in (dataset.train, dataset.test)) < 0)
    weights, draws = weights_of(trained), generator("init", seed, "subset_sum", n)
    began = time.perf_counter()
    pairs = [
        replaced(weight, n=n, signed=signed and not number, choose=RULES[rule], generator=draws)
        for number, weight in enumerate(weights)
    ]
    seconds = time.perf_counter() - began
    errors = torch.cat(
        [(sums - weight).abs().flatten() for weight, pair in zip(weights, pairs, strict=True) for sums in pair.sums]
    )
    ticket = ticket_of(pairs, trained, {"seed": seed})
    network = rebuild.network(ticket, dataset)
    with torch.inference_mode():
        apart = [
            float((network(inputs) - outputs_of(pairs, inputs)).abs().max())
            for inputs in torch.split(dataset.test.inputs, _BATCH)
        ]
    ordered = errors.sort().values
    measured = Measured(
        rule=rule,
        n=n,
        seed=seed,
        target_weights=sum(weight.numel() for weight in weights),
        products=n * len(errors),
        products_kept=sum(int(pair.second_mask.sum()) for pair in pairs),
        weights=total(ticket.masks),
        weights_kept=kept(ticket.masks),
        error_median=float(ordered[len(ordered) // 2]),
        error_p99=float(ordered[int(0.99 * (len(ordered) - 1))]),
        error_max=float(ordered[-1]),
        epsilon=epsilon,
        missed=float((errors > epsilon).double().mean()),
        test_accuracy_before=before,
        test_accuracy=accuracy_of(network, dataset),
        difference=max(apart),
        seconds=seconds,
    )
    ticket.metadata["test_accuracy"] = str(measured.test_accuracy)
    return measured, ticket
