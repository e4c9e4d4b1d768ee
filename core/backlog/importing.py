"""From the entries of a backlog file to features of a project.

A number in `depends_on` is the `id` of an entry, or its place in the file,
counted from 1, where entries have no ids; a text is a name, of an entry first,
then of a feature the database has.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autocoder.core.backlog.reading import Entry, read_entries
from autocoder.core.errors import UsageError
from autocoder.core.models import Feature
from autocoder.core.store import FeatureDraft, ProjectStore

NAME_LIMIT = 200
TEXT_LIMIT = 100_000
STEPS_LIMIT = 500
PRIORITY_LIMIT = 1_000_000_000

_KEYS = frozenset(
    {"name", "description", "category", "steps", "priority", "enabled"}
    | {"depends_on", "dependencies", "id", "passes", "backend", "model", "base"}
)


@dataclass(frozen=True, slots=True)
class ImportReport:
    drafts: tuple[FeatureDraft, ...]
    """What is new in the file."""
    added: tuple[Feature, ...]
    """The same as features; empty after a dry run."""
    duplicates: tuple[str, ...]
    """Names that were there already, in the database or earlier in the file."""
    passing: tuple[str, ...]
    """Names of entries that say they are done."""
    ignored_keys: tuple[str, ...]
    """Keys that mean nothing here."""


def _any(_draft: FeatureDraft) -> None:
    """Nothing is wrong with a file of our own."""


def import_backlog(
    store: ProjectStore,
    path: Path,
    *,
    check: Callable[[FeatureDraft], None] = _any,
    dry_run: bool = False,
) -> ImportReport:
    """Add what is new in the file to the backlog, all of it or nothing.

    `check` raises `UsageError` where what is new could not be run here; it is asked once
    for each choice of backend, model and base.

    Raises:
        UsageError: the file cannot be read, or an entry is wrong; names file and line.
    """
    items = [_Item.of(entry, path) for entry in read_entries(path)]
    plan = _Plan(items, {_key(feature.name): feature.id for feature in store.features()}, path)
    drafts = tuple(plan.drafts())
    _check_choices(plan.new, check)
    try:
        added = () if dry_run else store.add_features(drafts)
        if dry_run:
            store.check_features(drafts)
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", error.hint) from error
    return ImportReport(
        drafts,
        added,
        duplicates=tuple(item.draft.name for item in plan.duplicates),
        passing=tuple(item.draft.name for item in plan.passing),
        ignored_keys=tuple(sorted({key for item in items for key in item.unknown})),
    )


def _check_choices(items: Iterable["_Item"], check: Callable[[FeatureDraft], None]) -> None:
    checked: set[tuple[str, str, str]] = set()
    for item in items:
        draft = item.draft
        choice = (draft.backend, draft.model, draft.base)
        if choice not in checked:
            try:
                check(draft)
            except UsageError as error:
                raise UsageError(f"{item.where}: {error.message}", error.hint) from error
            checked.add(choice)


@dataclass(frozen=True, slots=True)
class _Item:
    """One entry, its own fields checked, its dependencies not yet resolved."""

    where: str
    draft: FeatureDraft
    number: int | None
    needs: tuple[int | str, ...]
    passes: bool
    unknown: tuple[str, ...]

    @classmethod
    def of(cls, entry: Entry, path: Path) -> "_Item":
        where = f"{path}:{entry.line}"
        if not isinstance(entry.value, dict):
            raise UsageError(f"{where}: expected a feature, an object with a name")
        fields = _Fields(entry.value, where)
        description = fields.text("description", TEXT_LIMIT)
        name = fields.text("name", NAME_LIMIT) or _first_line(description)
        if not name.strip():
            raise UsageError(f"{where}: a feature needs a name or a description")
        needs = fields.several("depends_on") or fields.several("dependencies")
        return cls(
            where=where,
            draft=FeatureDraft(
                name=" ".join(name.split()),
                description=description,
                steps=fields.texts("steps"),
                category=fields.text("category", NAME_LIMIT),
                priority=fields.integer("priority") or 0,
                enabled=fields.boolean("enabled", default=True),
                backend=fields.text("backend", NAME_LIMIT),
                model=fields.text("model", NAME_LIMIT),
                base=fields.text("base", NAME_LIMIT),
            ),
            number=fields.integer("id"),
            needs=tuple(needs),
            passes=fields.boolean("passes", default=False),
            unknown=tuple(key[:NAME_LIMIT] for key in entry.value if key not in _KEYS),
        )


@dataclass(slots=True)
class _Fields:
    """The values of one entry by type; a value of another type is an error with its line."""

    values: Mapping[str, Any]
    where: str

    def text(self, key: str, limit: int) -> str:
        value = self.values.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self._wrong(key, "a text")
        return self._checked(key, value, limit)

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.values.get(key) or []
        steps = [value] if isinstance(value, str) else value
        if not isinstance(steps, list) or not all(isinstance(step, str) for step in steps):
            raise self._wrong(key, "a list of texts")
        if len(steps) > STEPS_LIMIT:
            raise UsageError(f"{self.where}: {key} has more than {STEPS_LIMIT} entries")
        return tuple(self._checked(key, step, TEXT_LIMIT) for step in steps)

    def integer(self, key: str) -> int | None:
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > PRIORITY_LIMIT:
            raise self._wrong(key, "a whole number")
        return value

    def boolean(self, key: str, *, default: bool) -> bool:
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def several(self, key: str) -> list[int | str]:
        value = self.values.get(key)
        several = value if isinstance(value, list) else [] if value is None else [value]
        if len(several) > STEPS_LIMIT or not all(
            isinstance(one, int | str) and not isinstance(one, bool) for one in several
        ):
            raise self._wrong(key, "a list of names or numbers of features")
        return several

    def _checked(self, key: str, text: str, limit: int) -> str:
        if len(text) > limit:
            raise UsageError(f"{self.where}: {key} is longer than {limit} characters")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{self.where}: {key} holds half a character") from None
        return text

    def _wrong(self, key: str, expected: str) -> UsageError:
        return UsageError(f"{self.where}: {key} must be {expected}, not {self.values[key]!r:.60}")


@dataclass(slots=True)
class _Plan:
    """Which entries are new, and what each of them depends on."""

    items: Sequence[_Item]
    known: Mapping[str, int]
    """Ids of the features there are, by the key of their names."""
    path: Path
    new: list[_Item] = field(default_factory=list)
    duplicates: list[_Item] = field(default_factory=list)
    passing: list[_Item] = field(default_factory=list)

    def drafts(self) -> list[FeatureDraft]:
        positions: dict[str, int] = {}
        done: set[str] = set()
        for item in self.items:
            key = _key(item.draft.name)
            if key in self.known or key in positions or key in done:
                self.duplicates.append(item)
            elif item.passes:
                done.add(key)
                self.passing.append(item)
            else:
                positions[key] = len(self.new)
                self.new.append(item)
        numbers = self._numbers()
        drafts = []
        for item in self.new:
            existing: list[int] = []
            after: list[int] = []
            for need in item.needs:
                key = numbers.get(need, "") if isinstance(need, int) else _key(need)
                if key in positions:
                    after.append(positions[key])
                elif key in self.known:
                    existing.append(self.known[key])
                elif key not in done:
                    raise UsageError(
                        f"{item.where}: depends on {need!r}, which is no feature",
                        "Give the name, the id or the place of a feature in the file.",
                    )
            drafts.append(replace(item.draft, depends_on=tuple(existing), after=tuple(after)))
        return drafts

    def _numbers(self) -> dict[int, str]:
        """The key of the entry that a number in the file means."""
        if all(item.number is None for item in self.items):
            return {place: _key(item.draft.name) for place, item in enumerate(self.items, 1)}
        numbers: dict[int, str] = {}
        for item in self.items:
            if item.number is not None:
                if item.number in numbers:
                    raise UsageError(f"{item.where}: the id {item.number} stands there twice")
                numbers[item.number] = _key(item.draft.name)
        return numbers


def _key(name: str) -> str:
    """Equal for names that a human takes for the same."""
    return " ".join(name.split()).casefold()


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0][:NAME_LIMIT] if lines else ""
