"""One report: reads the runs, judges them, draws the figures, writes the page."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from ltl.console import print_table, terminal
from ltl.errors import LtlError
from ltl.report.across import Across, across
from ltl.report.claims import Claim, claim_of, compare
from ltl.report.comparison import Comparison
from ltl.report.differences import Differences, differences
from ltl.report.findings import findings, short, unfinished
from ltl.report.load import Run, find_runs, load
from ltl.report.quantities import NAMES
from ltl.report.reach import reach_table
from ltl.report.study import Study, studies
from ltl.report.tables import Table, claims_table, dense_accuracy, rounds_table, summary_csv
from ltl.report.widths import WIDTHS
from ltl.results import write_atomic

# Columns that a terminal has no room for.
_PAGE_ONLY = (
    "weights left",
    "test accuracy at the end (%)",
    "drawn masks: sd (pp)",
    "mask and signs (bits)",
    "training (s)",
)


@dataclass(frozen=True)
class Section:
    """What is said about one study."""

    study: Study
    findings: Sequence[str]
    rounds: Table
    claim: Claim | None
    comparisons: Sequence[Comparison]
    claims: Table | None


@dataclass(frozen=True)
class Report:
    """A written report: its page, its other files, and what they say."""

    page: Path
    files: Sequence[Path]
    sections: Sequence[Section]
    overview: Table | None  # a line for each setting, where there are several
    across: Sequence[Across]  # what claims say of several settings
    differences: Differences | None
    unfinished: Sequence[str]


def write(
    folders: Sequence[Path], *, out: Path | None = None, compare: bool = False, pdf: bool = False, width: str = "page"
) -> Report:
    """Write figures, tables and report.html; see `ltl.report.write`."""
    loaded = {folder.resolve(): load(folder) for folder in find_runs(folders)}
    runs = list(loaded.values())
    found = studies(runs)
    problems = unfinished(runs)
    if not found:
        raise LtlError(f"{_common(runs)} holds no finished round yet: {' '.join(problems) or 'rounds.csv is empty.'}")
    target = out or (folders[0] if len(folders) == 1 and folders[0].is_dir() else _common(runs))
    sections = [_section(study) for study in found]
    overview = _overview(sections) if len(sections) > 1 else None
    compared = across(found) if len(found) > 1 else []
    between = _between(folders, loaded) if compare else None

    # matplotlib takes half a second to import: not before there is something to draw.
    from ltl.report.canvas import Sheet
    from ltl.report.gallery import draw
    from ltl.report.page import page

    gallery = draw(found, compared, Sheet(target / "figures", WIDTHS[width], pdf))
    tables = {
        target / "figures" / "summary.csv": summary_csv(found),
        target / "figures" / "rounds.md": "\n".join(_markdown(section) for section in sections),
        target / "figures" / "rounds.tex": "\n".join(
            f"% {section.study.title} {section.study.label}\n{section.rounds.latex()}" for section in sections
        ),
    }
    if compared:
        tables[target / "figures" / "comparisons.md"] = "\n".join(map(_markdown_across, compared))
        tables[target / "figures" / "comparisons.tex"] = "\n".join(map(_latex_across, compared))
    if between is not None:
        for kind, text in (("md", between.table.markdown()), ("tex", between.table.latex())):
            tables[target / "figures" / f"differences.{kind}"] = text
    for path, text in tables.items():
        write_atomic(path, text.encode())
    path = target / "report.html"
    write_atomic(path, page(sections, gallery, runs, problems, overview, compared, between).encode())
    drawn = [file for drawings in gallery.values() for drawing in drawings for file in drawing.paths]
    return Report(path, [*drawn, *tables], sections, overview, compared, between, problems)


def show(report: Report, *, brief: bool = False) -> None:
    """Print the table of rounds, the verdict and the paths of what was written; see `ltl.report.show`."""
    console = terminal()
    narrow = console.is_terminal
    if brief and report.overview is not None:
        console.print()
        _print_table(console, report.overview)
    for section in [] if brief and report.overview is not None else report.sections:
        study = section.study
        title = study.title + (f" ({study.label})" if study.label else "")
        console.print(f"\n[bold]{title}[/bold], n = {study.trials}", highlight=False)
        _print_table(console, section.rounds.without(*_PAGE_ONLY) if narrow else section.rounds)
        for sentence in section.findings:
            console.print(f"• {sentence}", highlight=False, markup=False)
        if section.claims is not None:
            _print_table(console, section.claims.without("source", "measured at"))
    for each in report.across:
        console.print(f"\n[bold]What the claim compares[/bold]: {escape(each.claim.source)}", highlight=False)
        if each.table is not None:
            _print_table(console, each.table.without("quantity", "difference") if narrow else each.table)
        for reached in each.reached:
            console.print(f"• {reached.sentence()}", highlight=False, markup=False)
            table = reach_table(reached)
            _print_table(console, table.without("its dense network (%)") if narrow else table)
    if report.differences is not None:
        first, second = report.differences.names
        console.print(f"\n[bold]Differences[/bold]: {first} − {second}, paired by θ₀, 95% intervals", highlight=False)
        _print_table(console, report.differences.table)
    for problem in report.unfinished:
        console.print(f"• not finished: {problem}", highlight=False, markup=False)
    paths: dict[str, Path | None] = {"report": report.page, "figures": report.page.parent / "figures"}
    tickets = [run.folder / "tickets" for section in report.sections for run in section.study.runs]
    paths |= {"tickets": tickets[0] if len(tickets) == 1 and tickets[0].is_dir() else None}
    console.print()
    for name, path in paths.items():
        if path is not None:
            console.print(f"{name:8} {path}", highlight=False, markup=False, soft_wrap=True)


def line(report: Report) -> str:
    """Return the verdict of a report and its page in one line."""
    return f"{'; '.join(short(section.study) for section in report.sections)} · {report.page}"


def _section(study: Study) -> Section:
    claim = next((claim for run in study.runs if (claim := claim_of(run))), None)
    comparisons = compare(study.runs, study.rows, claim, margin=study.margin) if claim else []
    claims = claims_table(comparisons, NAMES, study.rows) if comparisons else None
    sentences = findings(study)
    if claim and claims is None:
        sentences.append("There is no published figure at this setting to compare with.")
    return Section(study, sentences, rounds_table(study), claim, comparisons, claims)


def _overview(sections: Sequence[Section]) -> Table:
    rows = [
        [section.study.label, short(section.study), str(section.study.trials), dense_accuracy(section.study.rows)]
        for section in sections
    ]
    return Table(["setting", "verdict", "trials", "dense accuracy at early stop (%)"], rows)


def _between(folders: Sequence[Path], loaded: Mapping[Path, Run]) -> Differences:
    """Set the runs below two paths against each other; LtlError unless each path holds one setting."""
    if len(folders) != 2:
        raise LtlError(f"--compare takes two paths, got {len(folders)}: give A and B to have A − B.")
    sides = []
    for folder in folders:
        found = studies([loaded[run.resolve()] for run in find_runs([folder])])
        if len(found) != 1:
            raise LtlError(
                f"--compare {folder} holds {len(found)} settings: give a path whose runs differ in the seed alone."
            )
        sides.append(found[0])
    first, second = sides
    return differences(first, second, (str(folders[0]), str(folders[1])))


def _common(runs: Sequence[Run]) -> Path:
    folders = [run.folder.resolve() for run in runs]
    return runs[0].folder if len(folders) == 1 else Path(os.path.commonpath(folders))


def _markdown(section: Section) -> str:
    study = section.study
    lines = [f"## {study.title}{f' ({study.label})' if study.label else ''}, n = {study.trials}", ""]
    lines += [f"- {caution}" for caution in study.cautions]
    lines += [f"- {sentence}" for sentence in section.findings]
    text = "\n".join(lines) + "\n\n" + section.rounds.markdown()
    return text + ("\n" + section.claims.markdown() if section.claims is not None else "")


def _markdown_across(across: Across) -> str:
    parts = [f"{across.claim.sentence} ({across.claim.source})\n"]
    parts += [across.table.markdown()] if across.table is not None else []
    parts += [f"{reached.sentence()}\n\n{reach_table(reached).markdown()}" for reached in across.reached]
    return "\n".join(parts)


def _latex_across(across: Across) -> str:
    parts = [f"% {across.claim.source}\n"]
    parts += [across.table.latex()] if across.table is not None else []
    parts += [f"% {reached.sentence()}\n{reach_table(reached).latex()}" for reached in across.reached]
    return "".join(parts)


def _print_table(console: Console, table: Table) -> None:
    print_table(
        console, table.header, table.rows, left=("setting", "verdict", "figure", "comparison", "quantity", "difference")
    )
