"""`python -m ltl.dashboard ENTITY/PROJECT`: the dashboard of a W&B project, published or shown."""

import argparse
import json
import sys
from collections.abc import Sequence

from ltl.errors import LtlError


def main(arguments: Sequence[str] | None = None) -> int:
    """Publish the dashboard as a new view of the project, or print it; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="ltl-dashboard",
        description="Publishes a W&B workspace: accuracy against density by pruner with intervals, density by layer, "
        "curves by round. Each call makes a new view and prints where it is (docs/dashboards.md).",
    )
    parser.add_argument("project", metavar="ENTITY/PROJECT", help="user or team at wandb.ai, and a project there")
    parser.add_argument("--group", metavar="NAME", help="only runs of this group, such as one sweep (default: all)")
    parser.add_argument("--show", action="store_true", help="print the view as JSON and send nothing; needs no key")
    options = parser.parse_args(arguments)
    try:
        _run(options.project, options.group, show=options.show)
    except LtlError as error:
        print(f"ltl-dashboard: {error}", file=sys.stderr)
        return 1
    return 0


def _run(project: str, group: str | None, *, show: bool) -> None:
    entity, _, name = project.partition("/")
    if not entity or not name or "/" in name:
        raise LtlError(f"{project} is no project: write ENTITY/PROJECT, such as my-team/ltl.")
    try:
        from ltl.dashboard.workspace import workspace
    except ModuleNotFoundError:
        raise LtlError("the dashboard needs wandb-workspaces: pip install 'ltl[dashboards]'.") from None
    view = workspace(entity, name, group)
    if show:
        print(json.dumps(view._spec, indent=2))  # wandb-workspaces has no public way to it
        return
    try:
        view.save()  # type: ignore[no-untyped-call]
    except Exception as error:  # what W&B raises has no class in common
        reason = str(error).splitlines()[0].rstrip(".")
        raise LtlError(f"{project} cannot be written to: {reason}; --show prints the view without a key.") from None
    print(f"published {view.url}")


if __name__ == "__main__":
    sys.exit(main())
