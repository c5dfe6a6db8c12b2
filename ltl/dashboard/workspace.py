"""The dashboard as code: a W&B workspace of the metrics that runs log (docs/dashboards.md)."""

from typing import Any

import wandb_workspaces.workspaces as ws
from wandb_workspaces.reports.v2.interface import LinePlot, WeavePanelSummaryTable

_RUNS = 100  # that a panel shows at most; W&B's own default is 10


def workspace(entity: str, project: str, group: str | None) -> ws.Workspace:
    """Return the workspace for a project, of the runs of `group` alone if given; nothing is sent.

    Runs of one job type, the pruner's name, are averaged; bands are one standard error of that mean.
    """
    ticket = "round/ticket/test_accuracy"
    tables = [WeavePanelSummaryTable(table_name=name) for name in ("layers", "rounds")]
    return ws.Workspace(
        name="ltl" if group is None else f"ltl: {group}",
        entity=entity,
        project=project,
        sections=[
            _section(
                "Accuracy against density",
                _by_density("Tickets by pruner: test accuracy after the last step", [ticket]),
                _by_density(
                    "Tickets by pruner: test accuracy at early stop", ["round/ticket/early_stop_test_accuracy"]
                ),
                _by_density("Tickets and controls: test accuracy after the last step", "^round/[^/]+/test_accuracy$"),
                _plot(
                    "Each run: mean over its trials with a 95% interval, tickets after the last step",
                    "round/density",
                    [ticket, f"{ticket}_low", f"{ticket}_high"],
                    log_x=True,
                ),
            ),
            _section(
                "Speed and cost against density",
                _by_density("Early-stop step of tickets and controls", "^round/[^/]+/early_stop_step$"),
                _by_density("Fraction of trials whose early stop is censored", "^round/[^/]+/early_stop_censored$"),
                _by_density("Search cost: optimiser steps up to a ticket", ["round/ticket/total_steps"]),
            ),
            _section("Density by layer", _by_density("Tickets: density by layer", "^round/layer/", log_y=True)),
            _section(
                "Curves by round",
                _curves("Tickets: validation accuracy, first trial", "ticket", "val_accuracy"),
                _curves("Tickets: validation loss, first trial", "ticket", "val_loss"),
                _curves("Tickets and controls: validation loss, first trial", "[^/]+", "val_loss"),
            ),
            ws.Section(name="Tables", panels=[*tables]),
        ],
        settings=ws.WorkspaceSettings(max_runs=_RUNS),
        runset_settings=ws.RunsetSettings(filters="" if group is None else f"Group = {group!r}"),
    )


def _section(name: str, *panels: LinePlot) -> ws.Section:
    return ws.Section(name=name, panels=[*panels], is_open=True)


def _by_density(title: str, y: list[str] | str, **more: Any) -> LinePlot:
    return _by_job_type(title, "round/density", y, log_x=True, **more)


def _curves(title: str, arm: str, metric: str) -> LinePlot:
    return _by_job_type(title, "curve/step", f"^curve/{arm}/round-[0-9]+/{metric}$")


def _by_job_type(title: str, x: str, y: list[str] | str, **more: Any) -> LinePlot:
    return _plot(title, x, y, groupby="JobType", groupby_aggfunc="mean", groupby_rangefunc="stderr", **more)


def _plot(title: str, x: str, y: list[str] | str, **more: Any) -> LinePlot:
    """Return a line plot of the metrics `y`, given by name or as one regular expression."""
    metrics: dict[str, Any] = {"metric_regex": y} if isinstance(y, str) else {"y": y}
    return LinePlot(title=title, x=x, max_runs_to_show=_RUNS, **metrics, **more)
