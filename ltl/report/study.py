"""Runs that differ in the seed alone are one study: their trials are joined, everything else is set side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from omegaconf import OmegaConf

from ltl.errors import LtlError
from ltl.report.load import LayerRow, MetricRow, RoundRow, Run
from ltl.report.verdict import data_cautions, too_small
from ltl.report.words import dataset_words, method_name, model_words

Bars = Literal["interval", "range"]

# What may differ between runs of one study; a key covers everything below it.
_INCIDENTAL = (
    "seed",
    "seeds.init",
    "seeds.order",
    "seeds.augmentation",
    "seeds.mask",
    "trials",
    "draws",
    "control",
    "hardware",
    "logger",
    "hydra",
    "resume",
    "plan",
    "ends",
    "tags",
    "report.bars",
    "claim",
    "dataset.root",
    "dataset.verify",
    "dataset.download",
    "dataset.mirrors",
)


@dataclass(frozen=True)
class Study:
    """Runs of one setting, with their rows joined; `label` says what sets it apart from other studies ("" if alone)."""

    runs: Sequence[Run]
    label: str
    rows: Sequence[RoundRow]
    layers: Sequence[LayerRow]
    metrics: Sequence[MetricRow]

    @property
    def first(self) -> Run:
        """The run whose config speaks for all."""
        return self.runs[0]

    @property
    def title(self) -> str:
        """Model, data set and method."""
        model, data = (self.first.setting(key) for key in ("model.name", "dataset.name"))
        return f"{model_words(model)} on {dataset_words(data)}, {method_name(self.first)}"

    @property
    def heading(self) -> str:
        """The title, and what sets this study apart from others beside it."""
        return f"{self.title} · {self.label}" if self.label else self.title

    @property
    def trials(self) -> int:
        """Number of units of replication: different θ₀."""
        return len({row.unit for row in self.rows})

    @property
    def margin(self) -> float:
        """`report.margin`, a fraction of accuracy."""
        margin = self.first.setting("report.margin")
        if not isinstance(margin, int | float):
            raise LtlError(f"report.margin is {margin} in {self.first.folder}/.hydra/config.yaml: give a fraction.")
        return float(margin)

    @property
    def bars(self) -> Bars:
        """`report.bars`, what the figures' bars are; a run older than the key has intervals."""
        bars = self.first.setting("report.bars") or "interval"
        if bars not in ("interval", "range"):
            where = f"{self.first.folder}/.hydra/config.yaml"
            raise LtlError(f"report.bars is {bars} in {where}: give interval or range.")
        return "range" if bars == "range" else "interval"

    @property
    def canonical(self) -> bool:
        """Whether every run read the published files of its data set."""
        return all(run.status.get("dataset", {}).get("canonical") is True for run in self.runs)

    @property
    def same_hardware(self) -> bool:
        """Whether every run kept its hardware settings to the end."""
        return all(len(run.status.get("hardware") or []) <= 1 for run in self.runs)

    @property
    def no_verdict(self) -> str | None:
        """Why the test set carries no verdict, or None."""
        sizes = [run.status.get("dataset", {}).get("test") for run in self.runs]
        return next((reason for size in sizes if (reason := too_small(size))), None)

    @property
    def cautions(self) -> list[str]:
        """What every figure and page of this study must say."""
        return [
            *data_cautions(canonical=self.canonical, no_verdict=self.no_verdict),
            *([] if self.same_hardware else ["the hardware changed on a resume (column hardware of rounds.csv)"]),
        ]


def common_title(studies: Sequence[Study]) -> str:
    """Return the models and data sets of several studies, each once; what else sets them apart is in their labels."""
    models, datasets = (
        ", ".join(dict.fromkeys(words(study.first.setting(key)) for study in studies))
        for words, key in ((model_words, "model.name"), (dataset_words, "dataset.name"))
    )
    return f"{models} on {datasets}"


def studies(runs: Sequence[Run]) -> list[Study]:
    """Join runs of the same setting, in the order given; runs without any row are left out."""
    settings: list[dict[str, Any]] = []
    groups: list[list[Run]] = []
    for run in runs:
        if not run.rows:
            continue
        setting = _setting(run)
        if setting not in settings:
            settings.append(setting)
            groups.append([])
        groups[settings.index(setting)].append(run)
    labels = _labels(settings)
    return [
        Study(
            group,
            label,
            [row for run in group for row in run.rows],
            [row for run in group for row in run.layers],
            [row for run in group for row in run.metrics],
        )
        for group, label in zip(groups, labels, strict=True)
    ]


def _setting(run: Run) -> dict[str, Any]:
    whole = _flat(OmegaConf.to_container(run.config, resolve=False))
    return {
        key: value
        for key, value in whole.items()
        if not any(key == incidental or key.startswith(incidental + ".") for incidental in _INCIDENTAL)
    }


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix.removesuffix("."): value}
    return {key: leaf for name, below in value.items() for key, leaf in _flat(below, f"{prefix}{name}.").items()}


def _labels(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name each setting by what differs: by the names of its options if they suffice, else by further keys as well."""
    if len(settings) < 2:
        return [""] * len(settings)
    keys = list(dict.fromkeys(key for setting in settings for key in setting))
    differing = [key for key in keys if len({repr(setting.get(key)) for setting in settings}) > 1]
    names = [key for key in differing if key.endswith(".name")]
    named = tuple(key.removesuffix("name") for key in names)
    beside = names + [key for key in differing if not (named and key.startswith(named))]
    labels: list[str] = []
    for chosen in (names, beside, differing):
        labels = [
            ", ".join(f"{key.removesuffix('.name')}={setting.get(key)}" for key in chosen) for setting in settings
        ]
        if len(set(labels)) == len(settings):
            break
    return labels
