"""All figures of a report: per study, and those that set the studies side by side."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace

from ltl.report.across import Across
from ltl.report.along import accuracy_along
from ltl.report.canvas import Drawing, Sheet
from ltl.report.curves import learning_curves, mask_flips
from ltl.report.figures import (
    accuracy_against_density,
    early_stop_against_density,
    effective_against_density,
    seconds_against_density,
    studies_against_density,
)
from ltl.report.forest import comparisons
from ltl.report.layers import density_by_layer
from ltl.report.study import Study


def draw(studies: Sequence[Study], compared: Sequence[Across], sheet: Sheet) -> dict[str, list[Drawing]]:
    """Draw every figure that the rows allow; the key is the study's label, also its folder, "all" for the joint ones.

    `compared` is what claims say of several studies.
    """
    gallery = {
        study.label: _of_study(study, replace(sheet, folder=sheet.folder / _slug(study.label))) for study in studies
    }
    if len(studies) > 1:
        names = (f"comparisons_{place}" if place > 1 else "comparisons" for place in itertools.count(1))
        joint = [comparisons(studies, one, sheet, name) for one, name in zip(compared, names, strict=False)]
        joint.append(studies_against_density(studies, sheet))
        joint += [accuracy_along(studies, one.claim, reach, sheet) for one in compared for reach in one.claim.reach]
        gallery["all"] = [drawing for drawing in joint if drawing is not None]
    return gallery


def _of_study(study: Study, sheet: Sheet) -> list[Drawing]:
    drawings = [
        accuracy_against_density(study, sheet),
        early_stop_against_density(study, sheet),
        learning_curves(study, sheet, "val_accuracy"),
        learning_curves(study, sheet, "val_loss"),
        mask_flips(study, sheet),
        density_by_layer(study, sheet),
        effective_against_density(study, sheet),
        seconds_against_density(study, sheet),
    ]
    return [drawing for drawing in drawings if drawing is not None]


def _slug(label: str) -> str:
    return re.sub(r"[^\w.=-]+", "_", label).strip("_")[:100]
