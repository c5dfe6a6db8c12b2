"""All figures of a report: per study, and one that sets the studies side by side."""

import re
from collections.abc import Sequence
from dataclasses import replace

from ltl.report.canvas import Drawing, Sheet
from ltl.report.curves import learning_curves
from ltl.report.figures import (
    accuracy_against_density,
    early_stop_against_density,
    effective_against_density,
    seconds_against_density,
    studies_against_density,
)
from ltl.report.layers import density_by_layer
from ltl.report.study import Study


def draw(studies: Sequence[Study], sheet: Sheet) -> dict[str, list[Drawing]]:
    """Draw every figure that the rows allow; the key is the study's label, also its folder, "all" for the joint one."""
    gallery = {
        study.label: _of_study(study, replace(sheet, folder=sheet.folder / _slug(study.label))) for study in studies
    }
    if len(studies) > 1:
        joint = studies_against_density(studies, sheet)
        gallery["all"] = [] if joint is None else [joint]
    return gallery


def _of_study(study: Study, sheet: Sheet) -> list[Drawing]:
    drawings = [
        accuracy_against_density(study, sheet),
        early_stop_against_density(study, sheet),
        learning_curves(study, sheet, "val_accuracy"),
        learning_curves(study, sheet, "val_loss"),
        density_by_layer(study, sheet),
        effective_against_density(study, sheet),
        seconds_against_density(study, sheet),
    ]
    return [drawing for drawing in drawings if drawing is not None]


def _slug(label: str) -> str:
    return re.sub(r"[^\w.=-]+", "_", label).strip("_")[:100]
