"""One self-contained HTML page: opens offline, needs no script, loads nothing."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from ltl.report.across import Across
from ltl.report.canvas import Drawing
from ltl.report.claims import Claim
from ltl.report.differences import Differences
from ltl.report.findings import costs
from ltl.report.load import Run
from ltl.report.reach import reach_table
from ltl.report.study import common_title
from ltl.report.style import STYLE
from ltl.report.tables import Table
from ltl.report.words import count, dataset_words

if TYPE_CHECKING:
    from ltl.report.report import Section

_TEXT_COLUMNS = ("verdict", "figure", "source", "setting", "comparison", "quantity", "difference")
_ACROSS_WORDS = (
    "Differences are averaged over the densities in each trial, and paired by θ₀ where both settings have the same, "
    "else tested by Welch's t test; ± is half the width of the two-sided 95% confidence interval. Verdicts go by p "
    "values corrected by Holm over the table, see docs/verdicts.md."
)
_REACH_WORDS = (
    "Each setting at the density where its validation accuracy after the last step is highest, so that no test image "
    "chooses it. Differences are of means over trials, paired by θ₀ where both networks have the same, else tested by "
    "Welch's t test; ± is half the width of their 90% confidence interval, whose ends are the one-sided 95% bounds "
    "that decide, and half that of the 95% interval of an accuracy. Speed is not judged. See docs/verdicts.md."
)
_HARDWARE = ("device", "threads", "precision", "memory_format", "stack", "strategy", "devices")


def page(
    sections: Sequence["Section"],
    gallery: Mapping[str, Sequence[Drawing]],
    runs: Sequence[Run],
    unfinished: Sequence[str],
    overview: Table | None,
    across: Sequence[Across],
    between: Differences | None,
) -> str:
    """Return the report as HTML with its figures inside."""
    single = len(sections) == 1
    studies = [section.study for section in sections]
    title = studies[0].title if single else f"{common_title(studies)}: {len(sections)} settings side by side"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">Lottery ticket report · {len(runs)} run{"s"[: len(runs) - 1]}</p>',
    ]
    body += [_caution(f"Not finished: {sentence}") for sentence in unfinished]
    if overview is not None:
        body += [_table(overview), _figures(gallery["all"])]
    for each in across:
        body += ["<h2>What the claim compares</h2>", *_claim(each.claim)]
        if each.table is not None:
            body += [_table(each.table), f'<p class="soft">{_ACROSS_WORDS}</p>']
        for reached in each.reached:
            body += [f"<p>{escape(reached.sentence())}</p>", _table(reach_table(reached))]
        if each.reached:
            body.append(f'<p class="soft">{_REACH_WORDS}</p>')
    if between is not None:
        words = f"{between.names[0]} − {between.names[1]}: tickets, paired by θ₀, with 95% intervals."
        body += ["<h2>Differences</h2>", f"<p>{escape(words)}</p>", _table(between.table)]
    for number, section in enumerate(sections):
        body += _section(section, gallery[section.study.label], number, single)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _section(section: "Section", drawings: Sequence[Drawing], number: int, single: bool) -> list[str]:
    study = section.study
    parts = [] if single else [f'<h2 id="setting-{number}">{escape(study.label)}</h2>', f"<p>{escape(study.title)}</p>"]
    sentences = "".join(f"<p>{escape(sentence)}</p>" for sentence in section.findings)
    parts.append(f'<div class="verdict">{sentences}</div>')
    if section.claim is not None:
        parts += [
            _heading("Published and measured", single),
            *_claim(section.claim),
        ]
    if section.claims is not None:
        parts.append(_table(section.claims))
    parts += [_heading("Figures", single), _figures(drawings)]
    parts += [_heading("Rounds", single), _table(section.rounds), f'<p class="soft">{_table_words(section)}</p>']
    parts += [_heading("What masks do not save", single), f"<p>{escape(costs(study))}</p>"]
    parts += [_heading("Where this comes from", single), _provenance(study.runs), _config(study.first)]
    return parts


def _claim(claim: Claim) -> list[str]:
    return [
        f'<p>{escape(claim.sentence)} <span class="soft">({escape(claim.source)})</span></p>',
        f'<p class="soft">What would speak against it: {escape(claim.against)}</p>',
    ]


def _heading(text: str, single: bool) -> str:
    level = 2 if single else 3
    return f"<h{level}>{text}</h{level}>"


def _caution(text: str) -> str:
    return f'<p class="caution">{escape(text)}</p>'


def _figures(drawings: Sequence[Drawing]) -> str:
    figures = []
    for drawing in drawings:
        svg = drawing.svg[drawing.svg.index("<svg") :].replace(
            "<svg", f'<svg role="img" aria-label="{escape(drawing.caption)}"', 1
        )
        figures.append(f"<figure>{svg}<figcaption>{escape(drawing.caption)}</figcaption></figure>")
    return f'<div class="figures">{"".join(figures)}</div>'


def _table(table: Table) -> str:
    kinds = [' class="text"' if name in _TEXT_COLUMNS else "" for name in table.header]
    head = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(table.header, kinds, strict=True))
    body = []
    for row in table.rows:
        first, *rest = (escape(cell) for cell in row)
        cells = "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(rest, kinds[1:], strict=True))
        body.append(f'<tr><th scope="row"{kinds[0]}>{first}</th>{cells}</tr>')
    # tabindex: a region that scrolls must be reachable without a mouse.
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="table"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _table_words(section: "Section") -> str:
    words = (
        "Means over trials; ± is half the width of the two-sided 95% confidence interval (3 trials or more). Search "
        "cost: steps of this training and of those that led to its mask. Training: seconds of one training, without "
        "evaluation."
    )
    return words if section.study.no_verdict else f"{words} Verdicts go by one-sided bounds, see docs/verdicts.md."


def _provenance(runs: Sequence[Run]) -> str:
    status = runs[0].status
    entries = [
        ("data", _each(map(_data, runs))),
        (
            "parameters",
            f"{count(status.get('parameters') or 0)}, {count(status.get('prunable') or 0)} of them prunable",
        ),
        ("seeds", ", ".join(sorted({str(row.trial) for each in runs for row in each.rows}, key=int))),
        ("revision", _each(str(run.status.get("revision") or "unknown") for run in runs)),
        ("hardware", _each("; then ".join(map(_hardware, run.status.get("hardware") or [])) for run in runs)),
        ("versions", _each(map(_versions, runs))),
        ("runs", ", ".join(each.folder.name for each in runs)),
    ]
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in entries) + "</dl>"


def _each(texts: Iterable[str]) -> str:
    """Join what runs say of themselves, once where they agree."""
    return " · ".join(dict.fromkeys(texts))


def _data(run: Run) -> str:
    sizes = run.status.get("dataset", {})
    split = ", ".join(f"{count(sizes[name])} {name}" for name in ("train", "validation", "test") if name in sizes)
    files = "the canonical files" if sizes.get("canonical") is True else "not the canonical files"
    return f"{dataset_words(run.setting('dataset.name'))}: {split} ({files})"


def _versions(run: Run) -> str:
    return ", ".join(f"{name} {version}" for name, version in dict(run.status.get("versions") or {}).items())


def _hardware(used: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {used[name]}" for name in _HARDWARE if name in used)


def _config(run: Run) -> str:
    config = OmegaConf.to_yaml(run.config)
    return f"<details><summary>The whole configuration</summary><pre>{escape(config)}</pre></details>"
