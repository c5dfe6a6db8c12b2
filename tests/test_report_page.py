"""The written report: figures in words, a page that needs nothing else, a command that answers in one line."""

import csv
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_rows import flat, make_run
from scipy.stats import t

import ltl.report
from ltl.errors import LtlError
from ltl.report.__main__ import main
from ltl.report.findings import findings
from ltl.report.load import load
from ltl.report.study import Study, common_title, studies
from ltl.report.tables import rounds_table
from ltl.report.words import percent

CLAIM = {
    "sentence": "Tickets exist <somewhere>.",
    "source": "arXiv:1803.03635v5",
    "against": "equal reinitialised masks",
    "setting": {"length": "50000it"},
    "published": [
        {"quantity": "accuracy_gain", "density": 0.135, "value": 0.3, "unit": "pp", "tolerance": 0.2, "source": "§2"},
        {"quantity": "matching_density", "value": 10.7, "unit": "percent", "source": "Fig. 4a"},
    ],
}


def study(*folders: Path) -> Study:
    found = studies([load(folder) for folder in folders])
    assert len(found) == 1
    return found[0]


class _Page(HTMLParser):
    """Collects what a page loads and which of its tags are left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        links = {name: value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data", "action")}
        self.loads += [value for value in links.values() if not value.startswith(("#", "data:"))]
        if tag not in ("meta", "br", "link", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(
        tmp_path_factory.mktemp("whole"),
        gains={"ticket": flat(0.003), "reinit": flat(-0.004), "random_mask": flat(-0.3)},
        speeds={"ticket": flat(1.6), "reinit": flat(0.6)},
        censored=lambda arm, trial, round: arm == "ticket" and round == 10,
        curves=True,
        config={"claim": CLAIM},
    )
    ltl.report.write([folder], pdf=True)
    return folder


@pytest.mark.usefixtures("undrawn")
def test_a_claim_without_figures_says_so(tmp_path: Path) -> None:
    """On the page, in the tables' file and in the terminal's sentences: the claim, and no empty table."""
    folder = make_run(tmp_path, rounds=2, config={"claim": CLAIM | {"published": []}})
    section = ltl.report.write([folder]).sections[0]
    assert section.claims is None
    page, markdown = (folder / "report.html").read_text(), (folder / "figures" / "rounds.md").read_text()
    for text in (page, markdown, *section.findings[-1:]):
        assert "no published figure at this setting" in text
    assert "Tickets exist &lt;somewhere&gt;." in page
    assert page.count("<table>") == 1  # that of the rounds
    assert "published" not in markdown.split("| density (%)")[1]


def test_the_page_is_whole_and_loads_nothing(whole: Path) -> None:
    text = (whole / "report.html").read_text()
    page = _Page(text)
    assert page.open == []
    assert page.loads == []
    assert "script" not in page.tags
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org/|purl\.org/|creativecommons\.org/)", text)


def test_the_page_says_verdict_claim_cost_and_what_masks_do_not_save(whole: Path) -> None:
    text = re.sub(r"<svg.*?</svg>", "", (whole / "report.html").read_text(), flags=re.DOTALL)
    for words in (
        "Tickets match the dense network down to a density of 13.4% (round 9)",
        "In accuracy alone they match down to 10.7% (round 10), with the speed not judged",
        "Finding and training that ticket cost 500\u202f000 steps, 10 times one dense training",
        "Tickets exist &lt;somewhere&gt;.",
        "What would speak against it: equal reinitialised masks",
        "reproduced",
        "saves neither time nor memory",
        "41.5 s at a density of 10.7%",
        "(the canonical files)",
        "0123abc",
        "search cost (steps)",
    ):
        assert words in text, words


def test_figures_are_written_as_svg_png_pdf_and_csv(whole: Path) -> None:
    names = {path.name for path in (whole / "figures").iterdir()}
    figures = (
        "accuracy_vs_density",
        "early_stop_vs_density",
        "validation_accuracy",
        "validation_loss",
        "density_by_layer",
        "effective_vs_density",
        "seconds_vs_density",
    )
    assert {f"{figure}.{kind}" for figure in figures for kind in ("svg", "png", "pdf", "csv")} < names
    assert (whole / "figures" / "accuracy_vs_density.png").read_bytes().startswith(b"\x89PNG")
    assert (whole / "figures" / "accuracy_vs_density.pdf").read_bytes().startswith(b"%PDF")
    text = (whole / "report.html").read_text()
    assert text.count("<svg ") == len(figures)
    assert text.count('role="img" aria-label="') == len(figures)


def test_the_same_rows_give_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    first = {path.name: path.read_bytes() for path in (whole / "figures").iterdir()}
    ltl.report.write([whole], out=tmp_path, pdf=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()} == first


def test_one_point_below_the_axis_is_one_point(tmp_path: Path) -> None:
    gains = {"ticket": flat(0.0), "random_mask": lambda turn: -0.3 if turn == 10 else 0.0}
    ltl.report.write([make_run(tmp_path, gains=gains)])
    assert "1 point lies below this axis, down to 68." in _drawn_words(tmp_path)


def _drawn_words(folder: Path) -> str:
    """The words of a figure, which matplotlib leaves as comments beside their outlines."""
    return " ".join(re.findall(r"<!-- (.*?) -->", (folder / "figures" / "accuracy_vs_density.svg").read_text()))


def test_a_figure_explains_itself(whole: Path) -> None:
    words = _drawn_words(whole)
    for part in (
        "LeNet-300-100 on MNIST, IMP · mean of n = 5 trials, 95% intervals",
        "density: prunable weights left (%)",
        "test accuracy at early stop (%)",
        "ticket (IMP, rewound to θ₀)",
        "same mask, fresh initialisation",
        "random mask, same layer densities",
        "dense network (all weights)",
        "10 points lie below this axis, down to 68.0%",
        "51.2",
    ):
        assert part in words, part
    assert "canonical" not in words


def test_cautions_stand_on_every_figure(tmp_path: Path) -> None:
    make_run(tmp_path, trials=2, rounds=2, canonical=False, test_images=360, curves=True)
    ltl.report.write([tmp_path])
    drawn = sorted((tmp_path / "figures").glob("*.svg"))
    assert len(drawn) == 7
    for path in drawn:
        words = " ".join(re.findall(r"<!-- (.*?) -->", path.read_text()))  # a comment for every line
        assert "not the canonical files" in words, path
        assert "no verdict: a test set of 360 images is too small" in words, path


@pytest.mark.usefixtures("undrawn")
def test_the_table_of_rounds_has_what_supermasks_have_besides(tmp_path: Path) -> None:
    """Accuracy of drawn masks over trials, its deviation over masks, and bits; no column where no row has the value."""
    plain = study(make_run(tmp_path, trials=3, rounds=1))
    names = ("drawn masks: accuracy (%)", "drawn masks: sd (pp)", "mask and signs (bits)")
    assert not set(names) & set(rounds_table(plain).header)

    def cells(**given: Callable[[int], float]) -> dict[str, list[str]]:
        rows = [
            replace(row, **{name: of(row.trial) for name, of in given.items()} if row.round else {})
            for row in plain.rows
        ]
        table = rounds_table(replace(plain, rows=rows))
        assert [name for name in table.header if name not in names] == list(rounds_table(plain).header)
        return {name: [row[table.header.index(name)] for row in table.rows] for name in names if name in table.header}

    half = t.ppf(0.975, 2) * 0.1 / 3**0.5  # of 95.0, 95.1, 95.2
    drawn = {"sampled_test_accuracy": lambda trial: 0.95 + trial / 1000}
    drawn["sampled_test_accuracy_sd"] = lambda trial: 0.001 + trial / 1000
    assert cells(**drawn) == {names[0]: ["", f"95.10 ± {half:.2f}"], names[1]: ["", "0.20"]}
    assert cells(bits=lambda trial: 123_000.4 + trial) == {names[2]: ["", "123\u202f001"]}


def test_a_small_test_set_gets_no_word_of_verdict(tmp_path: Path) -> None:
    rows = make_run(tmp_path, test_images=360, gains={"ticket": flat(0.01), "reinit": flat(-0.05)})
    assert findings(study(rows))[0].startswith("No verdict: a test set of 360 images is too small.")
    report = ltl.report.write([rows])
    assert {row[-1] for row in report.sections[0].rounds.rows} == {"dense", "no verdict"}
    assert "matching" not in " ".join(report.sections[0].findings)


def test_two_trials_are_not_judged(tmp_path: Path) -> None:
    found = findings(study(make_run(tmp_path, trials=2, gains={"ticket": flat(0.01), "reinit": flat(-0.05)})))
    assert found == ["Not judged (n = 2): a verdict needs at least 3 trials."]


def test_a_search_that_finds_nothing_refutes_nothing(tmp_path: Path) -> None:
    found = findings(study(make_run(tmp_path, gains={"ticket": flat(-0.05)})))
    assert found[0].startswith("No matching ticket was shown: the first one, at 80.0%, is not matching.")
    assert "does not refute" in found[0]


def test_a_small_network_that_is_larger_than_its_ticket_is_told_of(launch: Callable[..., Path]) -> None:
    """At one unit a layer it has 64 + 1 + 10 weights; where it has no more than the ticket nothing is said."""
    folder = launch("pruner=magnitude_init", "pruner.rate=0.9", "pruner.rounds=2", "control=[small_dense,reinit]")
    sizes = {(row.arm, row.round): row.weights_left for row in load(folder).rows}
    assert sizes["small_dense", 1] <= sizes["ticket", 1] and sizes["ticket", 2] < sizes["small_dense", 2] == 75
    [said] = [one for one in findings(study(folder)) if "has more weights" in one]
    density = percent(next(row.density for row in load(folder).rows if (row.arm, row.round) == ("ticket", 2)))
    assert said == (
        f"At {density}% the control “small dense network with as many weights” has more weights than the ticket "
        f"(75 against {sizes['ticket', 2]}): no layer can have less than one unit."
    )


@pytest.mark.parametrize(
    ("pruner", "shown"),
    [
        ({}, True),
        ({"rewind_to": "500it"}, False),
        ({"survivors": {"_target_": "ltl.pruning.survivors.trained"}}, False),
    ],
)
def test_the_note_on_rewinding_is_shown_where_it_applies(
    tmp_path: Path, pruner: dict[str, object], shown: bool
) -> None:
    folder = make_run(tmp_path, config={"rewinding_note": "Rewinding to θ₀ finds no ticket.", "pruner": pruner})
    assert ("Rewinding to θ₀ finds no ticket." in findings(study(folder))) is shown


def test_runs_that_differ_in_the_seed_are_one_study(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / str(seed), trials=1, config={"seed": seed, "trials": 1}) for seed in range(4)]
    joined = study(*folders)
    assert joined.trials == 4
    assert joined.label == ""
    assert findings(joined)[0].startswith("Tickets match")


@pytest.mark.usefixtures("undrawn")
def test_the_page_names_where_each_run_of_a_study_comes_from(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / str(seed), rounds=1, trials=1, config={"seed": seed}) for seed in range(3)]
    status = folders[2] / "status.json"
    status.write_text(status.read_text().replace("0123abc", "9876fed").replace("2.13.0", "2.14.0"))
    text = ltl.report.write([tmp_path]).page.read_text()
    assert "<dt>revision</dt><dd>0123abc · 9876fed</dd>" in text
    assert "<dt>versions</dt><dd>ltl 0.1.0, torch 2.13.0 · ltl 0.1.0, torch 2.14.0</dd>" in text
    assert "<dt>hardware</dt><dd>device cpu, threads 1, precision 32-true</dd>" in text


def test_several_studies_name_their_networks_and_data_once(tmp_path: Path) -> None:
    changes: list[dict[str, object]] = [{}, {"pruner": {"name": "random"}}, {"model": {"name": "resnet20"}}]
    runs = [load(make_run(tmp_path / str(job), rounds=0, config=change)) for job, change in enumerate(changes)]
    assert common_title(studies(runs[:2])) == "LeNet-300-100 on MNIST"
    assert common_title(studies(runs)) == "LeNet-300-100, ResNet-20 on MNIST"


def test_a_repeated_seed_is_not_another_trial(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / str(job), trials=1) for job in range(4)]
    assert study(*folders).trials == 1


def test_studies_are_named_by_what_differs(tmp_path: Path) -> None:
    changes: list[dict[str, object]] = [{}, {"pruner": {"name": "random"}}, {"optimizer": {"lr": 0.01}}]
    runs = [
        load(make_run(tmp_path / str(job), trials=1, rounds=1, config=change)) for job, change in enumerate(changes)
    ]
    assert [found.label for found in studies(runs[:2])] == ["pruner=imp", "pruner=random"]
    assert [found.label for found in studies([runs[0], runs[2]])] == ["optimizer.lr=0.0012", "optimizer.lr=0.01"]
    assert [found.label for found in studies(runs)] == [
        "pruner=imp, optimizer.lr=0.0012",
        "pruner=random, optimizer.lr=0.0012",
        "pruner=imp, optimizer.lr=0.01",
    ]


@pytest.mark.usefixtures("undrawn")
def test_a_multirun_is_reported_once_and_names_what_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for job, name in enumerate(("imp", "random")):
        make_run(tmp_path / str(job), rounds=3, config={"pruner": {"name": name}})
    failed = make_run(tmp_path / "2", rounds=0, trials=0, state="failed", reason="the loss is nan")
    make_run(tmp_path / "3", rounds=0, state="interrupted", config={"pruner": {"name": "imp"}})
    assert main([str(tmp_path)]) == 0
    text = (tmp_path / "report.html").read_text()
    assert "<title>LeNet-300-100 on MNIST: 2 settings side by side</title>" in text
    assert "2: failed (the loss is nan), 0 rounds recorded." in text
    assert "3: interrupted, 1 round recorded." in text
    assert text.count('<p class="caution">Not finished: ') == 2
    assert (tmp_path / "figures" / "studies_vs_density.svg").exists()
    assert (tmp_path / "figures" / "pruner=random" / "accuracy_vs_density.svg").exists()
    assert not (failed / "report.html").exists()
    printed = capsys.readouterr().out
    assert "not finished: 2: failed (the loss is nan)" in printed
    assert "search cost (steps)" in printed


def test_a_run_that_has_only_begun_is_no_report(tmp_path: Path) -> None:
    make_run(tmp_path, trials=0, state="failed", reason="the disk is full")
    with pytest.raises(LtlError, match=r"holds no finished round yet: .*failed \(the disk is full\)"):
        ltl.report.write([tmp_path])


@pytest.mark.usefixtures("undrawn")
def test_a_dense_run_alone_is_reported(tmp_path: Path) -> None:
    make_run(tmp_path, rounds=0, config={"pruner": {"name": "dense", "rounds": 0}}, curves=True)
    assert ltl.report.write([tmp_path]).sections[0].findings[0].startswith("Only the dense network was trained")


def make_ticket_run(folder: Path, **settings: Any) -> Path:
    """Write the folder of a run of `ticket=…@4`, which trains no dense network."""
    make_run(folder, rounds=4, curves=True, **settings)
    for name in ("rounds.csv", "layers.csv", "metrics.csv"):
        lines = (folder / name).read_text().splitlines(keepends=True)
        kept = [line for line in lines[1:] if line.split(",")[3] == "4"]
        (folder / name).write_text("".join([lines[0], *kept]))
    return folder


@pytest.mark.usefixtures("undrawn")
def test_a_ticket_trained_without_a_dense_network_is_reported(tmp_path: Path) -> None:
    section = ltl.report.write([make_ticket_run(tmp_path)]).sections[0]
    assert section.findings[0] == "Not judged: there is no dense training (round 0) to compare with."
    assert [row[-1] for row in section.rounds.rows] == ["not judged (n = 0)"]


@pytest.mark.usefixtures("undrawn")
def test_settings_without_a_dense_network_have_no_accuracy_of_it(tmp_path: Path) -> None:
    """The first row of their table is the ticket's."""
    for job, rate in enumerate((0.001, 0.01)):
        make_ticket_run(tmp_path / str(job), config={"optimizer": {"lr": rate}})
    make_run(tmp_path / "2", rounds=1, noise=0, config={"optimizer": {"lr": 0.1}})
    overview = ltl.report.write([tmp_path]).overview
    assert overview is not None and overview.header[1::2] == ["verdict", "dense accuracy at early stop (%)"]
    assert [row[1::2] for row in overview.rows[:2]] == [["not judged (no dense training)", ""]] * 2
    assert overview.rows[2][3].startswith("98.0")


@pytest.mark.usefixtures("undrawn")
def test_a_run_without_early_stops_is_reported(tmp_path: Path) -> None:
    for job, name in enumerate(("imp", "random")):
        table = make_run(tmp_path / str(job), rounds=2, config={"pruner": {"name": name}}) / "rounds.csv"
        header, *lines = csv.reader(table.read_text().splitlines())
        empty = [index for index, column in enumerate(header) if column.startswith("early_stop")]
        rows = [",".join("" if i in empty else cell for i, cell in enumerate(line)) for line in lines]
        table.write_text("\n".join([",".join(header), *rows]))
    report = ltl.report.write([tmp_path])
    assert {row[-1] for row in report.sections[0].rounds.rows[1:]} == {"not judged (n = 0)"}
    assert not list((tmp_path / "figures").rglob("accuracy_vs_density.svg"))


@pytest.mark.usefixtures("undrawn")
def test_out_chooses_the_folder(tmp_path: Path) -> None:
    make_run(tmp_path / "run", rounds=1)
    assert main([str(tmp_path / "run"), "--out", str(tmp_path / "there")]) == 0
    assert (tmp_path / "there" / "report.html").exists()
    assert not (tmp_path / "run" / "report.html").exists()


def test_a_mistake_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "absent")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("ltl-report: ")
    assert error.count("\n") == 1


def test_help_waits_for_nothing_heavy() -> None:
    heavy = "'torch', 'lightning', 'pytorch_lightning', 'matplotlib', 'scipy', 'omegaconf'"
    code = (
        "import contextlib, sys\nimport ltl.report\nfrom ltl.report.__main__ import main\n"
        "with contextlib.suppress(SystemExit):\n    main(['--help'])\n"
        f"sys.exit(','.join(name for name in ({heavy}) if name in sys.modules) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "PATH" in done.stdout


def test_the_report_never_imports_torch(whole: Path) -> None:
    code = (
        f"import sys\nfrom pathlib import Path\nimport ltl.report\nltl.report.write([Path({str(whole)!r})])\n"
        "sys.exit('torch' in sys.modules or 'pytorch_lightning' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
