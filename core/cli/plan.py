"""`autocoder features plan`: a specification becomes a backlog, once its reader agrees."""

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autocoder.core.cli.options import (
    BackendOption,
    JsonOption,
    ModelOption,
    ProjectOption,
    opened,
)
from autocoder.core.cli.output import guarded, print_json
from autocoder.core.logs import sanitise
from autocoder.core.shapes import feature_json

if TYPE_CHECKING:
    from autocoder.core.planning import Proposal

SPECIFICATION = Path("app_spec.txt")


def plan(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="What is to be built; app_spec.txt in the project."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=500, help="About so many features.")] = 20,
    backend: BackendOption = "",
    model: ModelOption = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Add them without asking.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be added, and add nothing.")
    ] = False,
    project_dir: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Let a backend turn a specification into features; shows them and what that cost, then asks.

    The backend works in a worktree of its own and changes nothing. Where nobody can be
    asked the proposal is kept as a file for `autocoder features import`.

    \b
    Examples:
      autocoder features plan
      autocoder features plan spec.md --backend claude --count 12
      autocoder features plan --dry-run --json | jq '.proposed[].name'
    """
    with guarded(as_json=as_json):
        from autocoder.core.backends.choice import check_backend, settings_for
        from autocoder.core.backlog import import_backlog
        from autocoder.core.planning import propose_backlog
        from autocoder.core.settings import database_path
        from autocoder.core.store import ProjectStore

        folder, settings = opened(project_dir)
        chosen = settings_for(settings, backend or settings.backend, model)
        check_backend(chosen)
        specification = file if file is not None else folder / SPECIFICATION
        proposal = propose_backlog(
            folder, chosen, specification, feature_count=count, say=_say_progress
        )
        if not as_json:
            _show(proposal)
        added = []
        if proposal.report.drafts and not dry_run and (yes or _agreed(as_json)):
            with contextlib.closing(ProjectStore(database_path(settings, folder))) as store:
                added = [feature_json(each) for each in import_backlog(store, proposal.file).added]
        if as_json:
            drafts = [
                {"name": each.name, "priority": each.priority, "category": each.category}
                for each in proposal.report.drafts
            ]
            cost = {"tokens": proposal.progress.tokens, "cost_usd": proposal.progress.cost_usd}
            print_json({"proposed": drafts, "added": added, "file": str(proposal.file)} | cost)
        elif added:
            typer.echo(f"added {len(added)}")
        else:
            typer.echo(f"nothing is added; later: autocoder features import {proposal.file}")


def _say_progress(line: str) -> None:
    typer.echo(sanitise(line), err=True)


def _show(proposal: "Proposal") -> None:
    for draft in proposal.report.drafts:
        needs = f"  needs {', '.join(map(str, draft.depends_on))}" if draft.depends_on else ""
        typer.echo(f"{draft.priority:>5}  {sanitise(draft.name)}{sanitise(needs)}")
    skipped = len(proposal.report.duplicates) + len(proposal.report.passing)
    if skipped:
        typer.echo(f"skipped {skipped} that are there already")
    progress = proposal.progress
    cost = f", ${progress.cost_usd:.2f}" if progress.cost_usd else ""
    typer.echo(f"{len(proposal.report.drafts)} features; it took {progress.tokens} tokens{cost}")


def _agreed(as_json: bool) -> bool:
    if as_json or not sys.stdin.isatty():
        return False
    return typer.confirm("Add them to the backlog?")
