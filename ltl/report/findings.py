"""The verdict in plain words: sentences for the terminal and the page."""

import math
from collections.abc import Sequence

from ltl.report.load import Run
from ltl.report.statistics import FEWEST_TRIALS, by_trial, density_at, rounds_of, two_sided
from ltl.report.study import Study
from ltl.report.tables import dense_accuracy, search_cost
from ltl.report.verdict import SMALLEST_TEST_SET, Contrast, Matching, against_controls, all_matching, smallest
from ltl.report.words import arm_words, capital, count, percent, rewinds_to_init


def findings(study: Study) -> list[str]:
    """Return the verdict on a study in sentences, the main one first."""
    sentences = [_main_finding(study)]
    if not study.no_verdict and study.trials >= FEWEST_TRIALS:
        sentences += _against_controls(study)
    sentences += _larger(study)
    note = study.first.setting("rewinding_note")
    if note and rewinds_to_init(study.first):
        sentences.append(" ".join(str(note).split()))
    if not study.canonical:
        sentences.append("The data are not the canonical files: nothing here compares with a published figure.")
    return sentences


def short(study: Study) -> str:
    """Return the verdict on a study in a few words."""
    if study.no_verdict:
        return study.no_verdict
    if 0 not in rounds_of(study.rows):
        return "not judged (no dense training)"
    judged = all_matching(study.rows, margin=study.margin)
    if not judged or study.trials < FEWEST_TRIALS:
        return f"not judged (n = {study.trials})" if judged else "only one density"
    ends = smallest(judged)
    parts = [
        f"{word} down to {percent(end.density)}%"
        for word, end in (("matching", ends.matching), ("matching in accuracy", ends.in_accuracy))
        if end is not None
    ]
    return ", ".join(parts[:1] if ends.matching == ends.in_accuracy else parts) or "no matching ticket shown"


def unfinished(runs: Sequence[Run]) -> list[str]:
    """Return a sentence for every run that did not finish: which, and why."""
    sentences = []
    for run in runs:
        state = run.status.get("state")
        if state != "done":
            reason = run.status.get("reason")
            rounds = len(rounds_of(run.rows))
            recorded = f"{rounds} round{'s' * (rounds != 1)} recorded"
            sentences.append(f"{run.folder.name}: {state}{f' ({reason})' if reason else ''}, {recorded}.")
    return sentences


def costs(study: Study) -> str:
    """Return what the masks of this study do not save, with the measured seconds."""
    last = max(rounds_of(study.rows), default=0)
    dense = by_trial(study.rows, "ticket", 0, lambda row: row.seconds)
    sparse = by_trial(study.rows, "ticket", last, lambda row: row.seconds)
    sentence = (
        "Masks set weights to zero; dense kernels multiply by these zeros as by any other number, so a mask by itself "
        "saves neither time nor memory, in training or afterwards. Where a perceptron is sparse enough, it trains by "
        "sparse products instead (hardware.sparse_below), which saves training time alone."
    )
    if last == 0 or not dense or not sparse:
        return sentence
    return (
        f"{sentence} Measured: one training took {two_sided(list(dense.values())).mean:.1f} s dense and "
        f"{two_sided(list(sparse.values())).mean:.1f} s at a density of {percent(density_at(study.rows, last))}%."
    )


def _main_finding(study: Study) -> str:
    if study.no_verdict:
        return (
            f"{capital(study.no_verdict)}. The curves show what happened, but a verdict needs "
            f"{count(SMALLEST_TEST_SET)} test images or more."
        )
    if 0 not in rounds_of(study.rows):
        return "Not judged: there is no dense training (round 0) to compare with."
    judged = all_matching(study.rows, margin=study.margin)
    if not judged:
        return f"Only the dense network was trained: test accuracy at early stop {dense_accuracy(study.rows)}%."
    if study.trials < FEWEST_TRIALS:
        return f"Not judged (n = {study.trials}): a verdict needs at least {FEWEST_TRIALS} trials."
    return _matching_sentence(study, judged)


def _matching_sentence(study: Study, judged: Sequence[Matching]) -> str:
    ends = smallest(judged)
    sentences = []
    if ends.matching is not None:
        sentences.append(
            f"Tickets match the dense network down to a density of {percent(ends.matching.density)}% "
            f"(round {ends.matching.round}): at each density on the way their test accuracy at early stop is, with 95% "
            f"confidence, less than {100 * study.margin:.2g} percentage points below it, and they are not shown to be "
            f"slower. {_cost(study, ends.matching)}"
        )
    if ends.in_accuracy is not None and ends.in_accuracy != ends.matching:
        they = "they" if sentences else "tickets"
        sentences.append(
            f"In accuracy alone {they} match down to {percent(ends.in_accuracy.density)}% "
            f"(round {ends.in_accuracy.round}), with the speed not judged. {_cost(study, ends.in_accuracy)}"
        )
    end = ends.in_accuracy or ends.matching
    breaks = [match for match in judged if end is None or match.round > end.round]
    if end is None:
        sentences.append(
            f"No matching ticket was shown: the first one, at {percent(breaks[0].density)}%, is {breaks[0].words()}. "
            "A search that finds none does not refute that one exists."
        )
    elif breaks:
        sentences.append(f"At {percent(breaks[0].density)}% the verdict is: {breaks[0].words()}.")
    else:
        sentences.append("No smaller density was tried.")
    return " ".join(sentences)


def _cost(study: Study, match: Matching) -> str:
    cost, dense = search_cost(study.rows, match.density), search_cost(study.rows, density_at(study.rows, 0))
    if cost is None or not dense:
        return ""
    return f"Finding and training that ticket cost {count(cost)} steps, {cost / dense:.3g} times one dense training."


def _against_controls(study: Study) -> list[str]:
    contrasts = against_controls(study.rows)
    return [
        f"Against the control “{arm_words(arm, study.first)}”: {_tally([c for c in contrasts if c.arm == arm])}"
        for arm in dict.fromkeys(contrast.arm for contrast in contrasts)
    ]


def _larger(study: Study) -> list[str]:
    """Return a sentence on each small network that has more weights than the ticket beside it: it is never smaller."""
    controls = {arm: control for run in study.runs for arm, control in (run.setting("control") or {}).items()}
    sentences = []
    for arm in (arm for arm, control in controls.items() if control.get("network") == "small"):
        sizes = {
            round: [by_trial(study.rows, one, round, lambda row: row.weights_left) for one in (arm, "ticket")]
            for round in rounds_of(study.rows, arm)
        }
        larger = {
            round: (own[unit], theirs[unit])
            for round, (own, theirs) in sizes.items()
            for unit in own
            if own[unit] > theirs.get(unit, math.inf)
        }
        if larger:
            densities = ", ".join(f"{percent(density_at(study.rows, round))}%" for round in larger)
            own, ticket = larger[max(larger)]
            sentences.append(
                f"At {densities} the control “{arm_words(arm, study.first)}” has more weights than the ticket "
                f"({count(own)} against {count(ticket)}): no layer can have less than one unit."
            )
    return sentences


def _tally(contrasts: Sequence[Contrast]) -> str:
    parts = []
    accuracy_words = (("above", "more accurate"), ("below", "less accurate"), ("no difference shown", ""))
    for word, phrase in accuracy_words:
        there = [contrast for contrast in contrasts if contrast.accuracy_word == word]
        if there:
            parts.append(f"{f'the ticket is {phrase}' if phrase else 'no difference is shown'} {_where(there)}")
    speed_words = (("faster", "it is faster"), ("slower", "it is slower"))
    for speed, phrase in speed_words:
        there = [contrast for contrast in contrasts if contrast.speed_word == speed]
        if there:
            parts.append(f"{phrase} {_where(there)}")
    unjudged = sum(contrast.speed_word == "not judged" for contrast in contrasts)
    if unjudged:
        parts.append(f"speed is not judged at {unjudged} of {len(contrasts)} (censored or too few trials)")
    return "; ".join(parts or ["not judged, too few trials"]) + " (two-sided 95%, corrected by Holm)."


def _where(contrasts: Sequence[Contrast]) -> str:
    densities = [percent(contrast.density) for contrast in contrasts]
    if len(densities) <= 3:
        return f"at {', '.join(densities)}%"
    return f"at {len(densities)} densities between {densities[0]} and {densities[-1]}%"
