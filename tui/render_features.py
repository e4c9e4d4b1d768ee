"""What the features view says: the backlog, in the order it is claimed."""

from collections.abc import Sequence

from autocoder.core.logs import sanitise
from autocoder.core.models import Feature, FeatureStatus
from autocoder.tui.columns import NO_VALUE, Column
from autocoder.tui.palette import BLOCKED, HELD, HELD_WORD, WAITING, Tone
from autocoder.tui.spans import Line, duration

STATUS = {
    FeatureStatus.PENDING: (WAITING, "waiting", Tone.PLAIN),
    FeatureStatus.IN_PROGRESS: ("●", "at work", Tone.GOOD),
    FeatureStatus.DONE: ("✓", "done", Tone.DIM),
    FeatureStatus.BLOCKED: (BLOCKED, "blocked", Tone.BAD),
}


def feature_key(feature: Feature) -> str:
    return str(feature.id)


def _status(feature: Feature, now: float) -> Line:
    glyph, word, tone = STATUS[feature.status]
    if not feature.enabled and feature.status is FeatureStatus.PENDING:
        return (("‖ off", Tone.DIM),)
    if feature.status is FeatureStatus.DONE and feature.review_status == "READY_FOR_VERIFICATION":
        return (("⇡ to merge", Tone.ACCENT),)
    if feature.review_status == "NOT_CHOSEN":
        return (("✓ unchosen", Tone.DIM),)
    if feature.held:
        return ((f"{HELD} {HELD_WORD}", Tone.ACCENT),)
    later = feature.next_attempt_at
    if feature.status is FeatureStatus.PENDING and later is not None and later > now:
        return ((f"{glyph} in {duration(later - now)}", Tone.DIM),)
    return ((f"{glyph} {word}", tone),)


def _depends(feature: Feature, _now: float) -> Line:
    return ((" ".join(map(str, feature.depends_on)), Tone.DIM),) if feature.depends_on else NO_VALUE


def _error(feature: Feature, _now: float) -> Line:
    return ((sanitise(feature.last_error), Tone.WARN if feature.attempts else Tone.DIM),)


FEATURE_COLUMNS: tuple[Column[Feature], ...] = (
    Column(
        "id",
        "id",
        lambda feature, _: ((str(feature.id), Tone.STRONG),),
        5,
        right=True,
        order=lambda feature: feature.id,
    ),
    Column("status", "state", _status, 11),
    Column("name", "feature", lambda feature, _: ((sanitise(feature.name), Tone.PLAIN),), 20, 44),
    Column(
        "priority",
        "priority",
        lambda feature, _: ((str(feature.priority), Tone.DIM),),
        8,
        right=True,
        worth=4,
        order=lambda feature: -feature.priority,
    ),
    Column(
        "attempts",
        "attempts",
        lambda feature, _: ((str(feature.attempts), Tone.PLAIN),),
        8,
        right=True,
        worth=5,
        order=lambda feature: -feature.attempts,
    ),
    Column("depends", "after", _depends, 6, 14, worth=6),
    Column(
        "agent",
        "agent",
        lambda feature, _: (
            ((sanitise(feature.agent_id), Tone.PLAIN),) if feature.agent_id else NO_VALUE
        ),
        7,
        worth=7,
    ),
    Column("error", "last error", _error, 16, 400, worth=3),
)
NO_FEATURES: tuple[Line, ...] = (
    (),
    (("   The backlog is empty.", Tone.PLAIN),),
    (
        (
            "   What agents work through, one each, is listed here in the order it is claimed.",
            Tone.DIM,
        ),
    ),
    (),
    (("   autocoder features add", Tone.ACCENT), ("  adds a feature", Tone.DIM)),
    (
        ("   autocoder features import FILE", Tone.ACCENT),
        ("  takes a JSON or YAML list", Tone.DIM),
    ),
    (
        ("   N", Tone.ACCENT),
        ("  on the main screen: type one, and an agent starts on it", Tone.DIM),
    ),
)


def merge_lines(features: Sequence[Feature], base: str) -> tuple[Line, ...]:
    """What would be merged into what, and what that settles."""
    lines: list[Line] = []
    for feature in features:
        into = sanitise(feature.base or base)
        lines += [
            (
                (f"    {feature.id:>4}  ", Tone.STRONG),
                (sanitise(feature.name), Tone.PLAIN),
            ),
            (
                (f"          {sanitise(feature.branch_name)}", Tone.ACCENT),
                (f" into {into}", Tone.DIM),
            ),
        ]
        if feature.variant_of is not None:
            lines.append((("          the other variants are then not chosen", Tone.WARN),))
    return (*lines, (), (("    What fails its verification is not merged.", Tone.DIM),))


def _claimed(feature: Feature) -> str:
    """When an agent takes it on by itself; empty where that is settled."""
    if not feature.enabled:
        return "off: never"
    if feature.status is FeatureStatus.BLOCKED:
        return "not before it is retried"
    if feature.held:
        return "not before somebody lets it go on"
    return "by the backlog's order" if feature.status is FeatureStatus.PENDING else ""


def feature_page(feature: Feature, now: float) -> tuple[Line, ...]:
    """Everything the backlog knows of one feature."""
    lines: list[Line] = [(), ((f"  {sanitise(feature.name)}", Tone.STRONG),), ()]
    facts: tuple[tuple[str, Line], ...] = (
        ("state", _status(feature, now)),
        ("category", ((sanitise(feature.category), Tone.PLAIN),)),
        ("priority", ((str(feature.priority), Tone.PLAIN),)),
        ("attempts", ((str(feature.attempts), Tone.PLAIN),)),
        ("after", _depends(feature, now)),
        ("claimed", ((_claimed(feature), Tone.PLAIN),)),
        ("backend", ((sanitise(f"{feature.backend} {feature.model}".strip()), Tone.PLAIN),)),
        ("base", ((sanitise(feature.base), Tone.PLAIN),)),
        ("variant of", ((str(feature.variant_of or ""), Tone.PLAIN),)),
        ("branch", ((sanitise(feature.branch_name), Tone.PLAIN),)),
        ("last error", ((sanitise(feature.last_error), Tone.WARN),)),
    )
    for name, value in facts:
        if not any(text for text, _ in value):
            continue
        lines.append(((f"    {name:<12}", Tone.DIM), *value))
    for title, texts in (("what", feature.description.splitlines()), ("steps", feature.steps)):
        if texts:
            lines += [(), ((f"    {title}", Tone.DIM),)]
            lines += [((f"      {sanitise(text)}", Tone.PLAIN),) for text in texts]
    return tuple(lines)
