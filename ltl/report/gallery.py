"""All figures of a report: per study, and one that sets the studies side by side."""

import re
from collections.abc import Sequence
from pathlib import Path

from ltl.report.axes import Drawing
from ltl.report.curves import density_by_layer, learning_curves
from ltl.report.figures import (
    accuracy_against_density,
    early_stop_against_density,
    seconds_against_density,
    studies_against_density,
)
from ltl.report.study import Study


def draw(studies: Sequence[Study], folder: Path) -> dict[str, list[Drawing]]:
    """Draw every figure that the rows allow, below `folder`; the key is the study's label, "all" for the joint one."""
    gallery = {study.label: _of_study(study, folder / _slug(study.label)) for study in studies}
    if len(studies) > 1:
        joint = studies_against_density(studies, folder)
        gallery["all"] = [] if joint is None else [joint]
    return gallery


def _of_study(study: Study, folder: Path) -> list[Drawing]:
    drawings = [
        accuracy_against_density(study, folder),
        early_stop_against_density(study, folder),
        learning_curves(study, folder, "val_accuracy"),
        learning_curves(study, folder, "val_loss"),
        density_by_layer(study, folder),
        seconds_against_density(study, folder),
    ]
    return [drawing for drawing in drawings if drawing is not None]


def _slug(label: str) -> str:
    return re.sub(r"[^\w.=-]+", "_", label).strip("_")[:100]
