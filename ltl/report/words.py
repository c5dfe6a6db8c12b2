"""Names and numbers as people read them: models, data sets, methods, arms, densities."""

import re
from collections.abc import Iterable, Mapping

from ltl.report.load import Run

_DATASETS: Mapping[str, str] = {
    "digits": "digits (8×8)",
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
}
_FAMILIES: Mapping[str, str] = {"lenet": "LeNet", "conv": "Conv", "resnet": "ResNet", "vgg": "VGG"}
_METHODS: Mapping[str, str] = {
    "imp": "IMP",
    "imp_late": "IMP",
    "imp_oneshot": "one-shot magnitude pruning",
    "random": "random pruning",
    "random_ticket": "random pruning, smart ratio",
    "magnitude_init": "magnitude pruning before training",
    "snip": "SNIP",
    "snip_iterative": "iterative SNIP",
    "snip_inverted": "SNIP, scores inverted",
    "grasp": "GraSP",
    "grasp_magnitude": "GraSP by magnitude",
    "grasp_iterative": "iterative GraSP, by gradient",
    "grasp_inverted": "GraSP, scores inverted",
    "synflow": "SynFlow",
    "synflow_oneshot": "SynFlow in one shot",
    "synflow_inverted": "SynFlow, scores inverted",
    "gradient_magnitude": "pruning by weight times gradient",
    "optimal_brain_damage": "optimal brain damage",
    "static_sparse": "static sparse training",
    "rigl": "RigL",
    "set": "SET",
    "snfs": "SNFS",
    "gradual": "gradual magnitude pruning",
    "hybrid": "hybrid tickets",
    "early_bird": "early-bird pruning",
    "edge_popup": "edge-popup",
    "edge_popup_global": "edge-popup, one threshold for all layers",
    "edge_popup_scaled": "edge-popup, weights scaled by density",
    "multi_prize": "multi-prize, binary weights",
    "multi_prize_binary_activations": "multi-prize, binary weights and activations",
    "multi_prize_global": "multi-prize, binary weights, one threshold for all layers",
    "multi_prize_gradual": "multi-prize, binary weights, falling density",
    "trained_ternary": "trained weights of one magnitude a layer",
    "zhou_heuristic": "supermasks of unchanged signs, signed constants",
    "zhou_heuristic_init": "supermasks of unchanged signs",
    "zhou_heuristic_magnitude": "supermasks of large final weights",
    "zhou_supermask": "learned probabilities",
    "zhou_supermask_constant": "learned probabilities, signed constants",
    "zhou_supermask_rescaled": "learned probabilities, rescaled",
    "zhou_supermask_rescaled_constant": "learned probabilities, rescaled, signed constants",
    "dense": "dense",
    "finetune": "magnitude pruning",
    "lr_rewind": "magnitude pruning",
    "small_final": "pruning of the largest final magnitudes",
    "large_init": "pruning of the smallest initial magnitudes",
    "small_init": "pruning of the largest initial magnitudes",
    "large_init_large_final": "pruning by the smaller of initial and final magnitude",
    "small_init_small_final": "pruning by the larger of initial and final magnitude",
    "magnitude_increase": "pruning by increase of magnitude",
    "movement": "pruning by movement",
    "large_final_same_sign": "IMP that keeps unchanged signs",
    "large_final_diff_sign": "IMP that keeps changed signs",
    "same_sign": "pruning of changed signs",
    "diff_sign": "pruning of unchanged signs",
    "magnitude_increase_same_sign": "pruning by increase of magnitude that keeps unchanged signs",
    "magnitude_increase_diff_sign": "pruning by increase of magnitude that keeps changed signs",
    "zhou_reinit": "IMP, initial weights permuted in their layer",
    "zhou_reshuffle": "IMP, kept initial weights permuted",
    "zhou_constant": "IMP, constants of random sign",
    "zhou_signed_reinit": "IMP, initial magnitudes permuted in their layer, signs kept",
    "zhou_signed_reshuffle": "IMP, kept initial magnitudes permuted, signs kept",
    "zhou_signed_constant": "IMP, constants with the initial signs",
    "zhou_rescaled": "IMP, initial weights divided by their layer's density",
    "imp_reinit": "IMP, fresh initialisation in every round",
    "noise": "IMP, noisy initial weights",
    "quantised": "IMP, initial weights of a few bits",
    "zhou_freeze_init": "IMP, pruned weights frozen at θ₀",
    "zhou_variant_1": "IMP, pruned weights frozen at 0 where they shrank, else at θ₀",
    "zhou_variant_1_random": "IMP, pruned weights frozen at 0 or θ₀ at random",
    "zhou_variant_1_reversed": "IMP, pruned weights frozen at 0 where they grew, else at θ₀",
    "zhou_variant_2": "IMP, all weights from 0 where they shrank, else from θ₀, pruned ones frozen",
}
_ARMS: Mapping[str, str] = {
    "reinit": "same mask, fresh initialisation",
    "random_mask": "random mask, same layer densities",
    "shuffled_inputs": "mask shuffled, same counts at each input",
    "shuffled_units": "mask shuffled, same counts at each unit",
    "shuffled_weights": "same mask, weights shuffled among its places",
    "random_ticket": "random mask and fresh initialisation, same layer densities",
    "small_dense": "small dense network with as many weights",
    "clean": "the ticket trained on uncorrupted data",
    "reordered": "the ticket again, in other data orders",
    "untrained": "the ticket before any training",
    "trained": "the supermask's weights trained",
    "dense_reordered": "all weights from the rewind point, in other data orders",
}


def dataset_words(name: object) -> str:
    """Return the data set's name as papers print it."""
    name = str(name or "unnamed data")
    return _DATASETS.get(name, name)


def model_words(name: object) -> str:
    """Return the network's name as papers print it: lenet_300_100 is LeNet-300-100, resnet20 is ResNet-20."""
    name = str(name or "unnamed model")
    family, numbers = re.fullmatch(r"([a-z]*)(.*)", name, re.DOTALL).groups()  # type: ignore[union-attr]
    if family not in _FAMILIES or not re.fullmatch(r"[\d_]+", numbers):
        return name
    return f"{_FAMILIES[family]}-{numbers.strip('_').replace('_', '-')}"


def method_name(run: Run) -> str:
    """Return the pruning method in words."""
    name = str(run.setting("pruner.name") or "unnamed method")
    return _METHODS.get(name, name)


def ticket_words(run: Run) -> str:
    """Return what the arm under study is: the method and what the surviving weights are set to."""
    if run.setting("pruner.name") == "dense":
        return "dense network, trained once"
    if _scored(run):
        return f"supermask ({method_name(run)}, weights not trained)"
    if rewinds_to_init(run):
        return f"ticket ({method_name(run)}, rewound to θ₀)"
    if _rewinds(run):
        return f"ticket ({method_name(run)}, rewound to step {str(run.setting('pruner.rewind_to')).removesuffix('it')})"
    if not _target(run).endswith(".trained"):
        return f"ticket ({method_name(run)})"
    rewound = ", learning rate rewound" if run.setting("pruner.lr") == "rewound" else ", fine-tuned"
    return f"pruned network ({method_name(run)}, weights kept{rewound})"


def rewinds_to_init(run: Run) -> bool:
    """Return whether surviving weights are set back to θ₀."""
    return _rewinds(run) and bool(re.fullmatch(r"0+(it|ep)", str(run.setting("pruner.rewind_to"))))


def _rewinds(run: Run) -> bool:
    return _target(run).endswith(".rewound") and not _scored(run)


def _scored(run: Run) -> bool:
    return run.setting("pruner.scores.length") is not None


def _target(run: Run) -> str:
    return str(run.setting("pruner.survivors._target_"))


def in_order(arms: Iterable[str]) -> list[str]:
    """Return arms in the order in which every table and legend names them: the ticket first."""
    known = ["ticket", *_ARMS]
    return sorted(set(arms), key=lambda arm: (known.index(arm) if arm in known else len(known), arm))


def arm_words(arm: str, run: Run) -> str:
    """Return an arm in words, as legends print it."""
    return ticket_words(run) if arm == "ticket" else _ARMS.get(arm, arm)


def mean_of(trials: int) -> str:
    """Return what is averaged, as subtitles print it."""
    return "n = 1 trial" if trials == 1 else f"mean of n = {trials} trials"


def percent(fraction: float) -> str:
    """Return a density in percent with as many digits as tell rounds apart: 100, 80.0, 51.2, 3.58, 0.74."""
    number = 100 * fraction
    return f"{number:.{0 if number >= 99.95 else 1 if number >= 9.995 else 2}f}"


def count(number: float) -> str:
    """Return a whole number with thin spaces between thousands."""
    return f"{number:,.0f}".replace(",", "\u202f")


def p_words(p: float | None) -> str:
    """Return a p value with three digits after the point; None is no test."""
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def capital(sentence: str) -> str:
    """Return a sentence that begins with a capital letter."""
    return f"{sentence[:1].upper()}{sentence[1:]}"


def with_reason(word: str, reason: str) -> str:
    """Return a verdict with the reason that belongs to it, if any."""
    return f"{word} ({reason})" if reason else word
