"""Every command and every snippet in the documents runs, and the documents name every option, key, column and room.

A fenced block says by the words after its language what is done with it:

- `sh run`: each command is run, with `debug=fast` added where a run begins, whose trials and rounds stay. Other `sh`
  blocks may hold placeholders (…); their commands are composed and checked, or at least parsed.
- `python` and `yaml` with a file name: written to that file. Other `python` blocks of a page run in turn; other `yaml`
  blocks are read.
"""

import ast
import logging
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import methods_page
import pytest
import yaml
from conftest import CONF, composed
from omegaconf import OmegaConf
from test_structure import ORDER

from ltl import report, run, schema, ticket
from ltl.dashboard import __main__ as dashboard_command
from ltl.instability import __main__ as instability_command
from ltl.overrides import check, key_of
from ltl.report import __main__ as report_command
from ltl.results import LAYER_COLUMNS, METRIC_COLUMNS, ROUND_COLUMNS, read_table
from ltl.subset_sum import __main__ as subset_sum_command

ROOT = CONF.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("**/*.md"))]
RUNNABLE = ["README.md", "docs/configuration.md", "docs/adding_a_method.md"]
PROGRAMS = {
    "python -m ltl.run": "run",
    "ltl": "run",
    "python -m ltl.report": "report",
    "ltl-report": "report",
    "python -m ltl.ticket": "ticket",
    "ltl-ticket": "ticket",
    "python -m ltl.dashboard": "dashboard",
    "ltl-dashboard": "dashboard",
    "ltl-instability": "instability",
    "ltl-subset-sum": "subset_sum",
}
SHOWS = {"--cfg", "-c", "--help", "-h"}
FAST = ("debug=fast", *(f"{key}={OmegaConf.select(composed(), key)}" for key in ("trials", "pruner.rounds")))


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, what its first line says besides, and its text."""

    language: str
    words: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    for match in re.finditer(r"^```(\w*)[ \t]*(.*?)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        yield Block(match[1], match[2], match[3])


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """The program and arguments of each line that is no comment."""
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if words:
            length = 3 if words[0] == "python" else 1
            yield " ".join(words[:length]), words[length:]


def execute(program: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one command in this process, shortened but for what says which tickets there will be."""
    if PROGRAMS[program] == "report":
        assert report_command.main(arguments) == 0
    elif PROGRAMS[program] == "ticket":
        assert ticket.main(arguments) == 0
    else:
        begins = not SHOWS & set(arguments) and not any(one.startswith("resume=") for one in arguments)
        given = set(map(key_of, arguments))
        shortened = [*arguments, *(one for one in FAST if key_of(one) not in given)] if begins else arguments
        monkeypatch.setattr(sys, "argv", ["ltl", *shortened])
        run.cli(shortened)


def understand(program: str, arguments: list[str]) -> None:
    """Compose and check one command, which may hold … for what a reader has there."""
    assert program in PROGRAMS, program
    if PROGRAMS[program] == "run":
        check([argument.replace("…", "X") for argument in arguments if argument != "…"], CONF)
    elif PROGRAMS[program] == "dashboard":
        assert dashboard_command.main([*arguments, "--show"]) == 0
    else:
        {
            "ticket": ticket,
            "report": report_command,
            "instability": instability_command,
            "subset_sum": subset_sum_command,
        }[PROGRAMS[program]]._parser().parse_args(arguments)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in, whose modules can be imported, as with `python -m`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before, handlers, level = set(sys.modules), logging.root.handlers[:], logging.root.level
    yield tmp_path
    logging.root.handlers[:], logging.root.level = handlers, level  # Hydra's write to a file in this folder
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.mark.filterwarnings("ignore:The '.*' does not have many workers")
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", RUNNABLE)
def test_snippets_and_commands_run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the page, in one folder."""
    names: dict[str, object] = {"__name__": "page"}
    ran = 0
    for block in blocks(ROOT / name):
        if block.language in ("python", "yaml") and block.words:
            path = folder / block.words
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        elif block.language == "python":
            exec(compile(block.text, name, "exec"), names)
            ran += 1
        elif block.language == "sh" and block.words == "run":
            for program, arguments in commands(block.text):
                execute(program, arguments, monkeypatch)
                ran += 1
    assert ran


def test_only_these_pages_have_anything_to_run() -> None:
    """A page with snippets joins the list above."""
    for page in PAGES:
        runs = [block for block in blocks(page) if block.language == "python" or block.words == "run"]
        assert bool(runs) == (str(page.relative_to(ROOT)) in RUNNABLE), page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_other_blocks_are_understood(page: Path, folder: Path) -> None:
    """Commands with placeholders compose, YAML is YAML, Python parses, make has the target."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for block in blocks(page):
        assert block.language in {"", "sh", "python", "yaml", "toml", "json", "csv", "text"}, block
        if block.language == "sh":
            assert block.words in {"", "run", "compose"}
            for program, arguments in commands(block.text):
                if program == "make":
                    assert arguments[0] in targets
                elif program not in {"cd", "export", "git", "pip", "source", "wandb"}:
                    understand(program, arguments)
        elif block.language == "yaml":
            assert yaml.safe_load(block.text)
        elif block.language == "python":
            ast.parse(block.text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_running_text_are_understood(page: Path) -> None:
    """`python -m ltl.run …`, report or ticket, between backticks."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"`(python -m ltl\.(?:run|report|ticket) [^`]*)`", text):
        for program, arguments in commands(span):
            understand(program, arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """To files and folders of the repository, and to headings that are there."""
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
        path, _, heading = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.exists(), target
        if heading:
            heads = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            assert heading in {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}, target


def test_tests_that_are_named_exist() -> None:
    named = {match.groups() for page in PAGES for match in re.finditer(r"(test_\w+\.py)::(\w+)", page.read_text())}
    assert len(named) > 20
    for file, name in sorted(named):
        assert f"\ndef {name}(" in (ROOT / "tests" / file).read_text(), f"{file}::{name}"


def test_every_example_has_at_most_twenty_lines() -> None:
    """Of code: imports, blank lines and docstrings apart."""
    for block in blocks(ROOT / "docs/adding_a_method.md"):
        if block.language == "python" and block.words:
            body = [node for node in ast.parse(block.text).body if not isinstance(node, (ast.Import, ast.ImportFrom))]
            lines = {number for node in body for number in range(node.lineno, (node.end_lineno or 0) + 1)}
            text = block.text.splitlines()
            code = [text[n - 1] for n in sorted(lines) if text[n - 1].strip() and '"""' not in text[n - 1]]
            assert len(code) <= 20, block.words


def test_the_list_of_methods_is_that_of_the_files() -> None:
    """Written anew by `python tests/methods_page.py`; no two are one point, but for large_init and magnitude_init."""
    page = methods_page.PAGE.read_text()
    assert page == methods_page.page(composed)
    points = [line.split(" | ")[2:9] for line in page.splitlines() if line.startswith("| `")]
    assert len({tuple(point) for point in points}) == len(points) - 1


def words(page: str) -> set[str]:
    """Everything between single backticks on a page."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    return set(re.findall(r"`([^`\n]+)`", text))


def test_every_option_and_key_is_documented() -> None:
    """And nothing else: what the page calls a key is one, of some option."""
    page = words("docs/configuration.md")
    options = set(CONF.glob("*/*.yaml"))
    missing = {f"{path.parent.name}={path.stem}" for path in options if path.stem not in page and path.stem != "fast"}
    assert not missing
    groups = {path.parent.name for path in options}
    text = (ROOT / "docs/configuration.md").read_text()
    headings = {name for line in re.findall(r"^### (.*)$", text, re.MULTILINE) for name in line.split(", ")}
    assert groups <= headings

    plain = OmegaConf.to_container(composed(), resolve=True)
    documented = {name.split(".")[0] for name in page}
    assert {str(key) for key in plain} <= documented  # type: ignore[union-attr]
    keys = {name for name in page if re.fullmatch(r"[a-z_]+(\.[a-z_0-9]+)+", name) and name.split(".")[0] in plain}  # type: ignore[operator]
    known = set()
    combinations = [
        (),
        ("corruption=subset",),
        ("corruption=random_pixels",),
        ("optimizer=sgd",),
        ("lr_schedule=milestones",),
        ("initialiser=orthogonal",),
        ("model=conv2",),
        ("model=wide_resnet50",),
        ("debug=fast",),
    ]
    combinations += [(f"pruner={name}",) for name in ("grasp", "optimal_brain_damage", "gradual", "early_bird", "snfs")]
    pruners = ("large_final_same_sign", "zhou_reinit", "noise", "quantised", "zhou_variant_1", "zhou_supermask")
    combinations += [(f"pruner={pruner}",) for pruner in pruners]
    combinations += [
        (f"allocation={allocation}",) for allocation in ("uniform", "erdos_renyi", "smart_ratio", "matched")
    ]
    for more in [*combinations, ("model=resnet20", "dataset=cifar10"), ("logger=wandb",), ("dataset=mnist",)]:
        paths = [path for path, _ in schema.leaves(OmegaConf.to_container(composed(*more), resolve=True))]
        known |= {".".join(path.split(".")[:end]) for path in paths for end in range(1, path.count(".") + 2)}
    assert keys <= known, keys - known
    settable = {path for path in known if path.startswith(("pruner.", "hardware.", "seeds."))}
    leaves = {path for path in settable if not any(other.startswith(path + ".") for other in settable)}
    assert {path for path in leaves if "_target_" not in path and "_partial_" not in path} - {"pruner.name"} <= keys


DEFAULTS = (
    "seed trials draws length batch eval_every pruner.rounds pruner.rate pruner.rewind_to pruner.momentum pruner.lr "
    "report.margin hardware.chunk hardware.threads hardware.eval_batch hardware.checkpoint_every dataset.validation "
    "dataset.test logger.wandb.mode"
).split()


@pytest.mark.parametrize("key", DEFAULTS)
def test_documented_defaults_are_the_real_ones(key: str) -> None:
    """The second column of the tables of keys."""
    row = re.search(rf"^\| `{re.escape(key)}` \| `([^`]*)`", (ROOT / "docs/configuration.md").read_text(), re.MULTILINE)
    assert row is not None
    assert str(OmegaConf.select(composed("logger=wandb"), key)) == row[1]


def test_every_column_and_file_of_a_run_folder_is_documented() -> None:
    """In the table of its file."""
    text = (ROOT / "docs/files.md").read_text()
    parts = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    common = set(re.findall(r"`(\w+)`", parts["Common columns"]))
    for name, columns in (("rounds", ROUND_COLUMNS), ("layers", LAYER_COLUMNS), ("metrics", METRIC_COLUMNS)):
        cells = re.findall(r"^\| (`.*?) \|", parts[f"{name}.csv"], re.MULTILINE)
        documented = {word for cell in cells for word in re.findall(r"`(\w+)`", cell)}
        assert documented | {"trial", "arm", "draw", "round"} == set(columns)
        assert {"trial", "arm", "draw", "round"} <= common


def test_a_run_folder_holds_what_the_page_says(launch: object) -> None:
    """The tree, the keys of status.json, the columns of each figure's numbers, and nothing that is not named."""
    where: Path = launch("control=none", "pruner.rounds=1")  # type: ignore[operator]
    report.write([where])
    text = (ROOT / "docs/files.md").read_text()
    tree = re.findall(r"^[├└]── (\S+)", text, re.MULTILINE)
    named = {entry.split("/")[0] for entry in tree}
    assert {path.name for path in where.iterdir()} <= named
    assert named - {path.name for path in where.iterdir()} == {"ltl.log", "wandb", "ends"}
    section = text.split("## status.json")[1].split("\n## ")[0]
    keys = {
        word for cell in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for word in re.findall(r"`(\w+)`", cell)
    }
    assert keys == set(yaml.safe_load((where / "status.json").read_text()))
    gallery = (ROOT / "docs/gallery.md").read_text()
    assert {path.stem for path in (where / "figures").glob("*.svg")} <= set(re.findall(r"`(\w+)`", gallery))
    drawn = {name for path in (where / "figures").glob("*_*.csv") for name in read_table(path)[0]}
    assert drawn <= set(re.findall(r"`(\w+)`", text.split("## figures/")[1].split("\n## ")[0]))


def test_committed_figures_are_small_and_shown() -> None:
    """Under 150 kB each, with no more than the repository needs."""
    text = "".join(page.read_text() for page in PAGES)
    for path in (ROOT / "docs").rglob("*.svg"):
        assert path.stat().st_size < 150_000, path
        assert f"{path.parent.name}/{path.name}" in text, path


def test_every_room_has_its_place_on_the_plan() -> None:
    """docs/rooms.md names the rooms of the table that the imports are tested by."""
    assert {word.rstrip("/") for word in words("docs/rooms.md")} >= set(ORDER)


def test_versions_and_licence_agree() -> None:
    """pyproject.toml, CITATION.cff, CHANGELOG.md and LICENSE."""
    project = (ROOT / "pyproject.toml").read_text()
    version = re.search(r'^version = "(.*)"$', project, re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert version is not None
    assert citation["version"] == version[1]
    assert re.search(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == version[1]  # type: ignore[index]
    assert citation["license"] == "MIT" and 'license = "MIT"' in project
    assert "Copyright (c) 2026 The ltl developers" in (ROOT / "LICENSE").read_text()
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
