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
    "magnitude_init": "magnitude pruning before training",
    "dense": "dense",
    "finetune": "magnitude pruning",
    "lr_rewind": "magnitude pruning",
}
_ARMS: Mapping[str, str] = {
    "reinit": "same mask, fresh initialisation",
    "random_mask": "random mask, same layer densities",
    "random_ticket": "random mask and fresh initialisation, same layer densities",
    "small_dense": "small dense network with as many weights",
}


def dataset_name(run: Run) -> str:
    """Return the data set's name as papers print it."""
    name = str(run.setting("dataset.name") or "unnamed data")
    return _DATASETS.get(name, name)


def model_name(run: Run) -> str:
    """Return the network's name as papers print it: lenet_300_100 is LeNet-300-100, resnet20 is ResNet-20."""
    name = str(run.setting("model.name") or "unnamed model")
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
    if rewinds_to_init(run):
        return f"ticket ({method_name(run)}, rewound to θ₀)"
    if _rewinds(run):
        return f"ticket ({method_name(run)}, rewound to step {str(run.setting('pruner.rewind_to')).removesuffix('it')})"
    rewound = ", learning rate rewound" if run.setting("pruner.lr") == "rewound" else ", fine-tuned"
    return f"pruned network ({method_name(run)}, weights kept{rewound})"


def rewinds_to_init(run: Run) -> bool:
    """Return whether surviving weights are set back to θ₀."""
    return _rewinds(run) and bool(re.fullmatch(r"0+(it|ep)", str(run.setting("pruner.rewind_to"))))


def _rewinds(run: Run) -> bool:
    return str(run.setting("pruner.survivors._target_")).endswith(".rewound")


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
