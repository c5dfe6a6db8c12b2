"""All figures of a report: per study, and one that sets the studies side by side."""

import re
from collections.abc import Sequence
from dataclasses import replace

from ltl.report.along import accuracy_along
from ltl.report.canvas import Drawing, Sheet
from ltl.report.claims import Claim
from ltl.report.curves import learning_curves, mask_flips
from ltl.report.figures import (
    accuracy_against_density,
    early_stop_against_density,
    effective_against_density,
    seconds_against_density,
    studies_against_density,
)
from ltl.report.layers import density_by_layer
from ltl.report.study import Study


def draw(studies: Sequence[Study], claims: Sequence[Claim], sheet: Sheet) -> dict[str, list[Drawing]]:
    """Draw every figure that the rows allow; the key is the study's label, also its folder, "all" for the joint ones.

    `claims` are those that say something of several studies.
    """
    gallery = {
        study.label: _of_study(study, replace(sheet, folder=sheet.folder / _slug(study.label))) for study in studies
    }
    if len(studies) > 1:
        joint = [studies_against_density(studies, sheet)]
        joint += [accuracy_along(studies, claim, reach, sheet) for claim in claims for reach in claim.reach]
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
