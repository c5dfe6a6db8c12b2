"""The logger of Weights & Biases: one W&B run for a whole ltl run, found again by a resume."""

import os
import secrets
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightning_fabric.loggers.logger import rank_zero_experiment
from lightning_utilities.core.rank_zero import rank_zero_only
from omegaconf import OmegaConf
from pytorch_lightning.loggers import Logger
from safetensors import safe_open

from ltl.errors import LtlError
from ltl.results import Outcome, rank, read_table, write_atomic

if TYPE_CHECKING:
    from wandb import Artifact, Run, Table

Mode = Literal["auto", "offline", "online"]

_TEXT = ("arm", "layer", "init_sha256", "mask_sha256")  # columns that hold no numbers
_OF_ONE = ("trial", "round", "density", "test_accuracy", "mask_sha256")  # what metadata say of one ticket alone


class WandbRun(Logger):
    """One W&B run in `<folder>/wandb`, opened when it is told the configuration and closed with its outcome.

    Beside what it is told it logs, when it is closed, rounds.csv and layers.csv as tables and, if `tickets`, all of
    them as one artifact. `group` None is the sweep that the run is a job of, else its experiment. LtlError if `mode` is
    online and there is no key or no answer.

    Lightning's own logger would also give every metric the global step as its axis; where two axes fit a name, W&B
    takes either.
    """

    def __init__(
        self,
        *,
        folder: Path,
        project: str,
        entity: str | None,
        mode: Mode,
        group: str | None,
        job_type: str,
        name: str,
        tags: Sequence[str],
        tickets: bool,
    ) -> None:
        super().__init__()
        self.folder, self.tickets = folder, tickets
        self.mode, self.why_offline = _mode(mode) if rank() == 0 else (None, "")
        self.about: dict[str, Any] = {"project": project, "entity": entity, "job_type": job_type, "name": name}
        self.about |= {"group": group or _group(folder), "tags": list(tags)}
        self._run: Run | None = None

    @property
    def name(self) -> str:
        """The project's name, as Lightning has it."""
        return str(self.about["project"])

    @property
    def version(self) -> str:
        """The run's id, the same after a resume."""
        return _id(self.folder)

    @property
    @rank_zero_experiment
    def experiment(self) -> "Run":
        """W&B's own run, opened when first asked for; LtlError if that fails."""
        if self._run is None:
            self._run = self._open()
        return self._run

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Take the configuration."""
        self.experiment.config.update(params, allow_val_change=True)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Take one point of each metric; their axes are among them."""
        self.experiment.log(dict(metrics))

    def close(self, outcome: Outcome) -> None:
        """Log tables and tickets, and finish the run, if it was opened: the jobs of a sweep share a process."""
        run = self._run
        if run is None:
            return
        self._run = None
        try:
            for name in ("rounds", "layers"):
                if rows := read_table(self.folder / f"{name}.csv"):
                    run.log({name: _table(rows)})
            if self.tickets and (artifact := _artifact(self.folder)):
                run.log_artifact(artifact)
            if outcome == "interrupted":
                run.mark_preempting()  # with an exit code that is not 0, W&B shows it as preempted
        finally:
            run.finish(exit_code=int(outcome != "done"))

    def _open(self) -> "Run":
        import wandb

        try:
            run = wandb.init(
                dir=self.folder,
                id=self.version,
                resume="allow",
                mode=self.mode,
                reinit="create_new",  # jobs of a sweep train side by side
                **self.about,
            )
        except wandb.Error as error:
            raise LtlError(
                f"logger.wandb cannot open a run: {_first_line(error)}; mend that, or choose "
                "logger.wandb.mode=offline or logger=csv."
            ) from None
        for axis, names in (("round/density", "round/*"), ("curve/step", "curve/*")):
            run.define_metric(axis)
            run.define_metric(names, step_metric=axis)
        if self.why_offline:
            print(
                f"ltl: W&B is offline: {self.why_offline}; `wandb sync {Path(run.dir).parent}` uploads the run later."
            )
        return run


def _mode(wanted: Mode) -> tuple[Literal["offline", "online"] | None, str]:
    """Return the mode for W&B, None for what WANDB_MODE says, and why it is offline unasked."""
    if wanted == "offline":
        return "offline", ""
    if wanted == "auto" and "WANDB_MODE" in os.environ:
        return None, ""
    import wandb

    try:
        logged_in = wandb.login(prompt=False, verify=True)
        why = "" if logged_in else "no key is known (WANDB_API_KEY, or `wandb login`)"
    except wandb.Error as error:
        why = _first_line(error)
    if why and wanted == "online":
        raise LtlError(f"logger.wandb.mode=online is not possible: {why}; choose auto or offline.")
    return ("offline" if why else "online"), why


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")


def _id(folder: Path) -> str:
    """Return the id of the W&B run of a run folder, which is made up once and kept there."""
    path = folder / "wandb" / "run-id"
    if not path.exists():
        write_atomic(path, secrets.token_hex(4).encode())
    return path.read_text()


def _group(folder: Path) -> str | None:
    """Return the name of the sweep that a run folder belongs to, else of its experiment, by the files of Hydra."""
    if (folder.parent / "multirun.yaml").is_file():
        return folder.parent.name
    settings = folder / ".hydra" / "hydra.yaml"
    choices = OmegaConf.select(OmegaConf.load(settings), "hydra.runtime.choices") if settings.is_file() else {}
    experiment = choices.get("experiment")
    return None if experiment is None else str(experiment)


def _table(rows: Sequence[Mapping[str, str]]) -> "Table":
    from wandb import Table

    columns = list(rows[0])
    return Table(columns=[*columns], data=[[_cell(name, row[name]) for name in columns] for row in rows])


def _cell(name: str, text: str) -> str | int | float | None:
    if name in _TEXT or text == "":
        return text or None
    return int(text) if text.isdigit() else float(text)


def _artifact(folder: Path) -> "Artifact | None":
    """Return all tickets of a run folder as one artifact, None if there are none; nothing is copied."""
    from wandb import Artifact

    paths = sorted(folder.resolve().glob("tickets/*/*.safetensors"))
    if not paths:
        return None
    each = [_metadata(path) for path in paths]
    shared = {key: value for key, value in each[0].items() if all(one.get(key) == value for one in each)}
    own = [{key: one[key] for key in _OF_ONE if key in one} for one in each]
    artifact = Artifact(f"tickets-{_id(folder)}", type="ticket", metadata={**shared, "tickets": own})
    for path in paths:
        name = str(path.relative_to(folder.resolve() / "tickets"))
        artifact.add_file(str(path), name=name, policy="immutable", skip_cache=True)
    return artifact


def _metadata(path: Path) -> dict[str, str]:
    """Return what a ticket says of itself, without reading its tensors."""
    with safe_open(path, framework="pt") as file:
        metadata: dict[str, str] = file.metadata()
    return metadata
