"""The shape of the code: imports point down the floors, modules stay small, and no global generator or pickle."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ltl"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "conf" not in path.relative_to(PACKAGE).parts
}
# Ground floor first (docs/rooms.md). A room may import what is on a lower floor, or left of it on its own.
FLOORS = (
    ("errors", "lengths", "rng", "allowed", "schema"),
    ("masks", "sparse_inputs", "streams", "pruning", "supermasks", "comparison", "nearest_subset"),
    ("models", "datasets"),
    ("console", "results", "tickets", "torch_prune"),
    ("training", "callbacks"),
    ("report", "dashboard"),
    ("hardware", "experiment", "fit", "build", "rebuild", "instability", "subset_sum"),
    ("overrides", "shorthand", "resume", "usage", "launch", "plan", "sweeps"),
    ("run", "ticket"),
)
ORDER = [room for floor in FLOORS for room in floor]


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text())


def imports(module: str) -> Iterator[str]:
    """Every module that `module` imports anywhere in it, ltl's own by their full names."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module


def test_every_module_has_its_room_and_every_room_its_modules() -> None:
    """A new room is given its floor here and in docs/rooms.md."""
    assert {room(module) for module in MODULES} - {""} == set(ORDER)


@pytest.mark.parametrize("module", [module for module in MODULES if room(module)])
def test_imports_point_down(module: str) -> None:
    """Never up, and on the same floor only to the left."""
    for imported in imports(module):
        if imported.split(".")[0] == "ltl" and room(imported) != room(module):
            assert ORDER.index(room(imported)) < ORDER.index(room(module)), f"{module} imports {imported}"


FORBIDDEN = {
    "schema": ("torch", "pytorch_lightning", "hydra"),
    "allowed": ("torch", "pytorch_lightning", "hydra"),
    "masks": ("pytorch_lightning", "hydra", "omegaconf"),
    "pruning": ("pytorch_lightning", "hydra", "omegaconf"),
    "supermasks": ("pytorch_lightning", "hydra", "omegaconf"),
    "nearest_subset": ("pytorch_lightning", "hydra", "omegaconf"),
    "models": ("pytorch_lightning", "hydra", "omegaconf"),
    "datasets": ("pytorch_lightning", "hydra", "omegaconf"),
    "training": ("hydra", "omegaconf"),
    "callbacks": ("hydra", "omegaconf"),
    "experiment": ("hydra", "omegaconf"),
    "fit": ("hydra", "omegaconf"),
    "report": ("torch", "pytorch_lightning", "ltl.training", "ltl.callbacks", "ltl.experiment"),
}


@pytest.mark.parametrize("where", list(FORBIDDEN))
def test_rooms_know_nothing_of(where: str) -> None:
    """Pruning is pure, nobody below build.py reads the configuration, and the report knows nothing of training."""
    for module in MODULES:
        if room(module) == where:
            for imported in imports(module):
                assert not any(imported == name or imported.startswith(name + ".") for name in FORBIDDEN[where]), (
                    f"{module} imports {imported}"
                )


@pytest.mark.parametrize(
    "module",
    ["ltl.schema", "ltl.run", "ltl.ticket", "ltl.report.__main__", "ltl.dashboard.__main__", "ltl.subset_sum.__main__"],
)
def test_the_command_line_starts_without_torch(module: str) -> None:
    """What is imported at once, by way of others too: --help, --cfg and mistakes answer quickly."""
    program = f"import sys, {module}; print(*{{'torch', 'pytorch_lightning', 'matplotlib'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_modules_are_small_and_named_for_what_they_hold() -> None:
    """At most 400 lines, and no drawer for everything."""
    assert MODULES
    for module, path in MODULES.items():
        assert len(path.read_text().splitlines()) <= 400, module
        assert path.stem not in {"utils", "util", "helpers", "common", "misc", "base", "core", "registry", "manager"}
        assert ast.get_docstring(tree(module)), f"{module} does not say what it holds"


DRAWS = {
    *("rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "rand_like", "randn_like"),
    *("uniform_", "normal_", "random_", "bernoulli_", "exponential_"),
    *("xavier_normal_", "xavier_uniform_", "kaiming_normal_", "kaiming_uniform_", "orthogonal_", "trunc_normal_"),
}


@pytest.mark.parametrize("module", list(MODULES))
def test_nothing_draws_from_a_global_generator(module: str) -> None:
    """Every draw names its generator, and nothing reseeds the global ones."""
    for imported in imports(module):
        assert imported.split(".")[0] != "random", module
    for node in ast.walk(tree(module)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        called = ast.unparse(node.func)
        assert called not in {"torch.manual_seed", "torch.seed", "np.random.seed", "pl.seed_everything"}, module
        assert not called.startswith(("np.random", "numpy.random", "torch.random")), module
        assert called not in {"nn.Dropout", "nn.Dropout2d", "F.dropout"}, f"{module}: use ltl.models.dropout"
        if node.func.attr in DRAWS:
            assert any(keyword.arg == "generator" for keyword in node.keywords), f"{module}: {ast.unparse(node)}"


@pytest.mark.parametrize("module", list(MODULES))
def test_nothing_unpickles(module: str) -> None:
    """A file may be foreign: torch.load takes weights only, and pickle is known for its errors alone."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"pickle.load", "pickle.loads", "np.load", "eval", "exec"}, module
            if called == "torch.load":
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert given.get("weights_only") == "True", module
