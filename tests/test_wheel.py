"""The wheel carries all that a run needs: built here, installed elsewhere, run from a third place."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import CONF

from ltl.results import read_status, read_table

ROOT = CONF.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what git knows, without network, by the hatchling at hand."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("ltl", "conf", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            (source / name).symlink_to(ROOT / name)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(wheel)], check=True, capture_output=True, timeout=120)
    return target


def call(installed: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder`, where ltl is found in `installed` alone."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LTL_", "PYTHONPATH"))}
    environment = {**kept, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_the_wheel_holds_the_code_and_every_configuration_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for path in CONF.rglob("*.yaml"):
        assert f"ltl/conf/{path.relative_to(CONF)}" in names
    for path in (ROOT / "ltl").rglob("*.py"):
        assert str(path.relative_to(ROOT)) in names
    others = {name for name in names if not name.startswith(("ltl/", "ltl-"))}
    assert others == set()
    assert not any(name.endswith((".pyc", ".ckpt", ".log")) or "outputs" in name for name in names)


def test_a_run_works_from_the_installed_wheel_alone(installed: Path, tmp_path: Path) -> None:
    """From a folder that is no checkout, without the checkout on the path."""
    where = call(installed, tmp_path, sys.executable, "-c", "import ltl.run; print(ltl.run.CONF)")
    assert where.stdout.strip() == str(installed / "ltl" / "conf"), where.stderr
    done = call(installed, tmp_path, sys.executable, "-m", "ltl.run", "debug=fast", "control=none", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert [row["round"] for row in read_table(tmp_path / "run" / "rounds.csv")] == ["0", "1", "2"]
    status = read_status(tmp_path / "run")
    assert (status["state"], status["revision"]) == ("done", "")
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize(
    "script", ["ltl", "ltl-report", "ltl-ticket", "ltl-dashboard", "ltl-instability", "ltl-subset-sum"]
)
def test_the_console_scripts_answer(installed: Path, tmp_path: Path, script: str) -> None:
    done = call(installed, tmp_path, sys.executable, str(installed / "bin" / script), "--help")
    assert done.returncode == 0, done.stderr
    assert script.replace("-", ".") in done.stdout.replace("-", ".")
    if script == "ltl":
        assert "model: conv2, conv4" in done.stdout
        refused = call(installed, tmp_path, sys.executable, str(installed / "bin" / script), "pruner.rate=3")
        assert refused.stderr.startswith("ltl: pruner.rate=3 is not possible")
        assert list(tmp_path.iterdir()) == []
