"""`autocoder features`: the backlog without a panel.

A running orchestrator sees every change at its next tick: both write the same
database, and nothing here needs its lock.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autocoder.core.cli.options import (
    BackendOption,
    BaseOption,
    JsonOption,
    ModelOption,
    ProjectOption,
    opened,
)
from autocoder.core.cli.output import guarded, print_json, print_table, warn
from autocoder.core.cli.plan import plan
from autocoder.core.errors import RefusedError, UsageError
from autocoder.core.logs import sanitise
from autocoder.core.shapes import feature_json

if TYPE_CHECKING:
    from autocoder.core.models import Feature
    from autocoder.core.store import FeatureDraft, ProjectStore

COLUMNS = ("ID", "STATUS", "PRIORITY", "ATTEMPTS", "NEEDS", "NAME", "NOTE")
SHORTENED = 60
LARGEST = 1_000_000_000

features_app = typer.Typer(
    name="features",
    help="The project's backlog: what agents work through.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
features_app.command()(plan)
FeatureArgument = Annotated[
    int, typer.Argument(metavar="ID", min=1, max=LARGEST, help="A number of `features list`.")
]


@features_app.command("list")
def list_(project_dir: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """All features in the order they are claimed: highest priority first, then lowest id.

    \b
    Examples:
      autocoder features list
      autocoder features list --json | jq '.[] | select(.status == "BLOCKED") | .last_error'
    """
    with guarded(as_json=as_json), _read(project_dir) as store:
        features = store.features() if store else ()
        stuck = {found.feature.id: found.why for found in store.stuck_features()} if store else {}
        if as_json:
            print_json([feature_json(feature) for feature in features])
        elif features:
            rows = [_row(feature, stuck.get(feature.id, "")) for feature in features]
            print_table(COLUMNS, rows, right=("ID", "PRIORITY", "ATTEMPTS"))
        else:
            typer.echo("the backlog is empty; `autocoder features add NAME` begins one")


@features_app.command()
def show(
    feature_id: FeatureArgument, project_dir: ProjectOption = Path(), as_json: JsonOption = False
) -> None:
    """Everything known of one feature.

    \b
    Examples:
      autocoder features show 12
      autocoder features show 12 --json | jq .last_error
    """
    with guarded(as_json=as_json), _read(project_dir) as found:
        store = _not_empty(found)
        feature = store.feature(feature_id)
        stuck = {other.feature.id: other.why for other in store.stuck_features()}
        if as_json:
            print_json(feature_json(feature) | {"stuck": stuck.get(feature_id, "")})
            return
        facts = {
            "feature": feature.id,
            "name": feature.name,
            "status": f"{feature.status} {_note(feature, stuck.get(feature_id, ''))}".strip(),
            "priority": feature.priority,
            "category": feature.category,
            "needs": _numbers(feature.depends_on),
            "attempts": feature.attempts,
            "agent": feature.agent_id,
            "branch": feature.branch_name,
            "backend": feature.backend,
            "model": feature.model,
            "base": feature.base,
            "variant of": feature.variant_of,
            "last error": feature.last_error,
        }
        for name, value in facts.items():
            if value not in ("", None):
                typer.echo(f"{name + ':':<12}{sanitise(str(value))}")
        for line in feature.description.splitlines():
            typer.echo(f"  {sanitise(line)}")
        for number, step in enumerate(feature.steps, 1):
            typer.echo(f"  {number}. {sanitise(step)}")


@features_app.command()
def add(
    name: Annotated[str, typer.Argument(help="What is to be done, in one line.")],
    project_dir: ProjectOption = Path(),
    description: Annotated[str, typer.Option("--description", "-d", help="The whole text.")] = "",
    step: Annotated[
        list[str] | None, typer.Option(help="How it is checked; may be repeated.")
    ] = None,
    category: Annotated[str, typer.Option(help="A word of your own.")] = "",
    priority: Annotated[
        int, typer.Option(min=-LARGEST, max=LARGEST, help="Higher is claimed first.")
    ] = 0,
    depends_on: Annotated[
        list[str] | None,
        typer.Option(metavar="ID|NAME", help="Must be done first; may be repeated."),
    ] = None,
    backend: BackendOption = "",
    model: ModelOption = "",
    base: BaseOption = "",
    force: Annotated[
        bool, typer.Option("--force", help="Although a feature has that name already.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Add a feature to the backlog.

    \b
    Examples:
      autocoder features add "Log in with a passkey"
      autocoder features add "Log out" --depends-on "Log in with a passkey" --priority 10
    """
    with guarded(as_json=as_json), _write(project_dir) as store:
        from autocoder.core.store import FeatureDraft

        _check_choice(project_dir, backend, model, base)
        for feature in store.features():
            if feature.name == name.strip() and not force:
                raise RefusedError(
                    f"feature {feature.id} has that name already", "Add it again with --force."
                )
        draft = FeatureDraft(
            name,
            description=description,
            steps=tuple(step or ()),
            category=category,
            priority=priority,
            backend=backend,
            model=model,
            base=base,
            depends_on=tuple(int(one) if one.isdecimal() else one for one in depends_on or ()),
        )
        (added,) = store.add_features([draft])
        if as_json:
            print_json(feature_json(added))
        else:
            typer.echo(f"added feature {added.id}: {sanitise(added.name)}")


@features_app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON or YAML: a list of features.")],
    project_dir: ProjectOption = Path(),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be added, and add nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Add what is new in a file; features whose names are there already are skipped.

    The file is a list, or an object with a list "features". An entry has a name, and may
    have a description, steps, category, priority, enabled, backend, model, base, and
    depends_on: names, or ids of entries, or their places in the file.

    \b
    Examples:
      autocoder features import backlog.yaml --dry-run
      autocoder features import feature_list.json
    """
    with guarded(as_json=as_json), _write(project_dir) as store:
        from autocoder.core.backlog import import_backlog
        from autocoder.core.feature_choice import draft_check
        from autocoder.core.worktrees import open_repository

        folder, settings = opened(project_dir)
        check = draft_check(settings, lambda: open_repository(folder, settings.base).branches())
        report = import_backlog(store, file, check=check, dry_run=dry_run)
        if as_json:
            drafts = [_draft_json(draft) for draft in report.drafts] if dry_run else None
            print_json(
                {
                    "dry_run": dry_run,
                    "added": drafts or [feature_json(feature) for feature in report.added],
                    "duplicates": report.duplicates,
                    "passing": report.passing,
                    "ignored_keys": report.ignored_keys,
                }
            )
            return
        for draft in report.drafts:
            typer.echo(f"{'would add' if dry_run else 'added'}: {sanitise(draft.name)}")
        skipped = {"there already": report.duplicates, "passing already": report.passing}
        for why, names in skipped.items():
            if names:
                typer.echo(f"skipped {len(names)} that are {why}")
        if not report.drafts:
            typer.echo("nothing is new in the file")
        if report.ignored_keys:
            warn(f"these keys mean nothing here: {', '.join(report.ignored_keys[:10])}")


@features_app.command()
def retry(
    feature_id: FeatureArgument, project_dir: ProjectOption = Path(), as_json: JsonOption = False
) -> None:
    """Make a blocked or waiting feature claimable now, its attempts set back to none.

    \b
    Examples:
      autocoder features retry 12
    """
    with guarded(as_json=as_json), _read(project_dir) as found:
        feature = _not_empty(found).retry_feature(feature_id)
        if as_json:
            print_json(feature_json(feature))
        else:
            typer.echo(f"feature {feature.id} is pending, with no attempts so far")


@features_app.command()
def update(
    feature_id: FeatureArgument,
    name: Annotated[str | None, typer.Option(help="What is to be done, in one line.")] = None,
    description: Annotated[
        str | None, typer.Option("--description", "-d", help="The whole text.")
    ] = None,
    step: Annotated[
        list[str] | None, typer.Option(help="How it is checked, in place of all; may be repeated.")
    ] = None,
    category: Annotated[str | None, typer.Option(help="A word of your own.")] = None,
    priority: Annotated[
        int | None, typer.Option(min=-LARGEST, max=LARGEST, help="Higher is claimed first.")
    ] = None,
    backend: BackendOption = "",
    model: ModelOption = "",
    base: BaseOption = "",
    project_dir: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Change what is given of a feature; an agent that works on it already is told nothing.

    \b
    Examples:
      autocoder features update 12 --priority 10
      autocoder features update 12 --backend codex --base release
    """
    with guarded(as_json=as_json), _read(project_dir) as found:
        changes = (name, description, step, category, priority, backend, model, base)
        if all(change in (None, "", []) for change in changes):
            raise UsageError("nothing to change is given", "`--help` lists what can be.")
        _check_choice(project_dir, backend, model, base)
        feature = _not_empty(found).edit_feature(
            feature_id,
            name=name,
            description=description,
            steps=step or None,
            category=category,
            priority=priority,
            backend=backend or None,
            model=model or None,
            base=base or None,
        )
        if as_json:
            print_json(feature_json(feature))
        else:
            typer.echo(f"feature {feature.id} is changed: {sanitise(feature.name)}")


@features_app.command()
def enable(
    feature_id: FeatureArgument, project_dir: ProjectOption = Path(), as_json: JsonOption = False
) -> None:
    """Let a feature be claimed again.

    \b
    Examples:
      autocoder features enable 12
    """
    _set_enabled(feature_id, project_dir, enabled=True, as_json=as_json)


@features_app.command()
def disable(
    feature_id: FeatureArgument, project_dir: ProjectOption = Path(), as_json: JsonOption = False
) -> None:
    """Keep a feature from being claimed by itself; an agent that works on it goes on.

    \b
    Examples:
      autocoder features disable 12
    """
    _set_enabled(feature_id, project_dir, enabled=False, as_json=as_json)


def _set_enabled(feature_id: int, project_dir: Path, *, enabled: bool, as_json: bool) -> None:
    with guarded(as_json=as_json), _read(project_dir) as found:
        store = _not_empty(found)
        store.set_enabled(feature_id, enabled)
        if as_json:
            print_json(feature_json(store.feature(feature_id)))
        else:
            typer.echo(f"feature {feature_id} is switched {'on' if enabled else 'off'}")


@features_app.command()
def merge(
    feature_id: FeatureArgument, project_dir: ProjectOption = Path(), as_json: JsonOption = False
) -> None:
    """Merge a finished feature's branch into its base: tested there first, then landed.

    The running orchestrator does it. Your checkout is fast-forwarded where it is clean
    and on that base, and left alone otherwise. Exits with 3 where the branch cannot land.

    \b
    Examples:
      autocoder features merge 12
    """
    with guarded(as_json=as_json):
        from autocoder.core.cli.asking import EFFECT_LIMIT_S, ask, once_merged
        from autocoder.core.commands import MergeFeature

        folder, settings = opened(project_dir)
        merged = ask(
            folder,
            MergeFeature(feature_id),
            once_merged(feature_id),
            subject=f"feature {feature_id}",
            limit_s=settings.verify.timeout_s + EFFECT_LIMIT_S,
        )
        if as_json:
            print_json(feature_json(merged))
        else:
            typer.echo(f"feature {feature_id} is merged: {sanitise(merged.name)}")


def _check_choice(project_dir: Path, backend: str, model: str, base: str) -> None:
    """Raises `UsageError` where nothing here could run that, or start from there."""
    from autocoder.core.feature_choice import check_choice
    from autocoder.core.worktrees import open_repository

    folder, settings = opened(project_dir)
    check_choice(
        settings,
        lambda: open_repository(folder, settings.base).branches(),
        backend=backend,
        model=model,
        base=base,
    )


def _draft_json(draft: "FeatureDraft") -> dict[str, object]:
    return {"name": draft.name, "priority": draft.priority, "category": draft.category}


def _row(feature: "Feature", stuck: str) -> tuple[object, ...]:
    note = _note(feature, stuck)
    name = feature.name
    return (
        feature.id,
        feature.status.value,
        feature.priority,
        feature.attempts,
        _numbers(feature.depends_on),
        name if len(name) <= SHORTENED else name[: SHORTENED - 1] + "…",
        note if len(note) <= SHORTENED else note[: SHORTENED - 1] + "…",
    )


def _note(feature: "Feature", stuck: str) -> str:
    """What else there is to know of its status, in a few words."""
    if stuck:
        return stuck
    if not feature.enabled:
        return "switched off"
    if feature.agent_id:
        return f"by {feature.agent_id}"
    if feature.review_status == "READY_FOR_VERIFICATION":
        return f"ready to merge from {feature.branch_name}"
    if feature.review_status == "NOT_CHOSEN":
        return f"not chosen, kept on {feature.branch_name}"
    return feature.last_error


def _numbers(ids: tuple[int, ...]) -> str:
    return ", ".join(map(str, ids))


@contextlib.contextmanager
def _read(project_dir: Path) -> "Iterator[ProjectStore | None]":
    """The project's database; None, and none is made, where there is none yet."""
    # SQL costs a good part of a second: not for --help.
    from autocoder.core.settings import database_path
    from autocoder.core.store import ProjectStore

    folder, settings = opened(project_dir)
    path = database_path(settings, folder)
    if not os.path.lexists(path):
        yield None
        return
    with contextlib.closing(ProjectStore(path)) as store:
        yield store


def _not_empty(store: "ProjectStore | None") -> "ProjectStore":
    if store is None:
        raise UsageError("the backlog is empty", "`autocoder features add NAME` begins one.")
    return store


@contextlib.contextmanager
def _write(project_dir: Path) -> "Iterator[ProjectStore]":
    """The project's database, made where there is none; git overlooks it."""
    from autocoder.core.composition import OWN_FILES
    from autocoder.core.settings import database_path
    from autocoder.core.store import ProjectStore
    from autocoder.core.worktrees import open_repository

    folder, settings = opened(project_dir)
    open_repository(folder, settings.base).ignore(*OWN_FILES)
    with contextlib.closing(ProjectStore(database_path(settings, folder))) as store:
        yield store
