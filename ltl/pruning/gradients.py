"""Criteria that look at data: evidence -> scores from derivatives of the loss, or of a network of absolute values."""

import torch
from torch import Tensor
from torch.func import vjp, vmap

from ltl.masks import Tensors
from ltl.pruning.evidence import Evidence


def snip(evidence: Evidence, *, examples: int) -> Tensors:
    """|θ ∂L/∂θ|, the connection sensitivity (SNIP: Lee et al. 2019, eqs. 3-5); `examples` of each class are drawn.

    Their normalisation by the sum changes no order. At trained weights it is by how much the loss
    changes, to first order, when a weight goes (Molchanov et al. 2019).
    """
    inputs, targets = evidence.task.examples(examples, evidence.generator)
    weights, gradients = _weights_and_gradients(evidence, inputs, targets)
    return {name: (weights[name] * gradients[name]).abs() for name in evidence.masks}


def grasp(evidence: Evidence, *, examples: int, temperature: float) -> Tensors:
    """θ ⊙ Hg, whose lowest go: what least preserves gradient flow (GraSP: Wang et al. 2020, eqs. 7-9).

    The paper scores −θ ⊙ Hg and removes the highest. `examples` of each class are drawn; logits are divided by
    `temperature`, 200 in the paper's code.
    """
    inputs, targets = evidence.task.examples(examples, evidence.generator)
    weights = _leaves(evidence)
    outputs = evidence.task.outputs(weights, inputs, True) / temperature
    names = list(evidence.masks)
    gradient = torch.autograd.grad(
        evidence.task.loss(outputs, targets), [weights[name] for name in names], create_graph=True
    )
    flow = sum((one * one.detach()).sum() for one in gradient)
    assert isinstance(flow, Tensor)
    products = torch.autograd.grad(flow, [weights[name] for name in names])
    return {name: weights[name].detach() * product for name, product in zip(names, products, strict=True)}


def grasp_magnitude(evidence: Evidence, *, examples: int, temperature: float) -> Tensors:
    """|θ ⊙ Hg| (Frankle et al. 2021, "Missing the mark", App. on GraSP by magnitude)."""
    return {name: score.abs() for name, score in grasp(evidence, examples=examples, temperature=temperature).items()}


def synflow(evidence: Evidence) -> Tensors:
    """|θ ∂R/∂θ| with R = 1ᵀ ∏ |θ^l| 1: no data but an input of ones (SynFlow: Tanaka et al. 2020, eq. 2, Alg. 1).

    All parameters and buffers are taken absolute, BatchNorm uses its running statistics, and products are of float64:
    those of deep networks leave the range of float32.
    """
    absolute = {
        name: tensor.double().abs() if tensor.is_floating_point() else tensor
        for name, tensor in evidence.masked.items()
    }
    leaves = {name: absolute[name].requires_grad_() for name in evidence.masks}
    device = next(iter(leaves.values())).device
    ones = torch.ones(1, *evidence.task.input_shape, dtype=torch.float64, device=device)
    total = evidence.task.outputs(absolute | leaves, ones, False).sum()
    gradients = torch.autograd.grad(total, list(leaves.values()))
    return {
        name: (leaf.detach() * gradient).abs() for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True)
    }


def sensitivity(evidence: Evidence, *, examples: int) -> Tensors:
    """|∂L/∂θ|, at kept and pruned weights alike; `examples` of each class are drawn.

    Its square, which ranks alike, is GRASP-It in the code of de Jorge et al. (2021).
    """
    inputs, targets = evidence.task.examples(examples, evidence.generator)
    _, gradients = _weights_and_gradients(evidence, inputs, targets)
    return {name: gradient.abs() for name, gradient in gradients.items()}


def batch_gradient(evidence: Evidence) -> Tensors:
    """|∂L/∂θ| of the batch that is due, dense: pruned entries have one too (RigL: Evci et al. 2020, §3)."""
    _, gradients = _weights_and_gradients(evidence, *next(evidence.task.batches(1)))
    return {name: gradient.abs() for name, gradient in gradients.items()}


def smoothed_gradient(evidence: Evidence, *, momentum: float, batches: int) -> Tensors:
    """|Σ_j momentum^j g_j|, the exponentially smoothed dense gradient (Dettmers & Zettlemoyer 2019, §3).

    g_j is that of the batch j steps before the one which is due, j < `batches`, at the weights as they are now. The
    paper's is at the weights of its own step, without end: the optimiser's momentum, whose gradients are not masked in
    the official code. Here they are, and nothing needs to be kept from step to step.
    """
    smoothed = {name: torch.zeros_like(evidence.weights[name]) for name in evidence.masks}
    for steps, (inputs, targets) in enumerate(evidence.task.batches(batches)):
        _, gradients = _weights_and_gradients(evidence, inputs, targets)
        for name, gradient in gradients.items():
            smoothed[name] += momentum**steps * gradient
    return {name: total.abs() for name, total in smoothed.items()}


def optimal_brain_damage(evidence: Evidence, *, examples: int, at_once: int) -> Tensors:
    """½ h_jj θ_j², the rise of the loss when θ_j goes (LeCun et al. 1990, eq. 5); `examples` of each class are drawn.

    h_jj is the diagonal of the Gauss-Newton matrix, Σ_c (∂f·s_c/∂θ_j)² over the columns s_c of a square root of the
    loss's Hessian in the logits (cross entropy: √p_c (e_c − p)). For networks that are piecewise linear in each single
    weight (ReLU, max-pooling, BatchNorm with its running statistics) it is the Hessian's own diagonal. `at_once`
    examples are differentiated together.
    """
    task, state = evidence.task, evidence.masked
    weights = {name: state[name] for name in evidence.masks}
    inputs, _ = task.examples(examples, evidence.generator)
    curvature = {name: torch.zeros_like(weight) for name, weight in weights.items()}

    def squares(one: Tensor) -> Tensors:
        logits, pull, *_ = vjp(lambda moved: task.outputs(state | moved, one.unsqueeze(0), False)[0], weights)
        p = logits.softmax(-1)
        roots = p.sqrt().unsqueeze(1) * (torch.eye(len(p), dtype=p.dtype, device=p.device) - p)
        each = vmap(pull)(roots)[0]
        return {name: gradient.square().sum(0) for name, gradient in each.items()}

    for part in torch.split(inputs, at_once):
        for name, summed in vmap(squares)(part).items():
            curvature[name] += summed.sum(0)
    return {name: curvature[name] * weight.square() / (2 * len(inputs)) for name, weight in weights.items()}


def _leaves(evidence: Evidence) -> Tensors:
    state = evidence.masked
    return state | {name: state[name].requires_grad_() for name in evidence.masks}


def _weights_and_gradients(evidence: Evidence, inputs: Tensor, targets: Tensor) -> tuple[Tensors, Tensors]:
    """Return m ⊙ θ and the gradients of the mean loss in training mode, both at every prunable weight."""
    weights = _leaves(evidence)
    loss = evidence.task.loss(evidence.task.outputs(weights, inputs, True), targets)
    gradients = torch.autograd.grad(loss, [weights[name] for name in evidence.masks])
    return {name: weights[name].detach() for name in evidence.masks}, dict(zip(evidence.masks, gradients, strict=True))
