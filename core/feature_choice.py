"""Whether what a feature is to run and where it is to go can be had here, before it is stored.

Asked of everybody who adds or changes a feature, so that none fails only when it starts.
"""

from collections.abc import Callable, Sequence

from autocoder.core.backends.choice import check_backend, settings_for
from autocoder.core.errors import UsageError
from autocoder.core.settings import Settings
from autocoder.core.store import FeatureDraft

BRANCHES_NAMED = 10
"""How many branches a refusal lists."""


def check_choice(
    settings: Settings,
    branches: Callable[[], Sequence[str]],
    *,
    backend: str = "",
    model: str = "",
    base: str = "",
) -> None:
    """Empty ones are the project's own, and not looked at; `branches` may ask git.

    Raises:
        UsageError: nothing here could run that, or start from there; says what there is.
    """
    if backend or model:
        check_backend(settings_for(settings, backend or settings.backend, model))
    if base and base not in (known := branches()):
        raise UsageError(
            f"there is no branch {base!r} to start from",
            f"There are: {', '.join(known[:BRANCHES_NAMED])}.",
        )


def draft_check(
    settings: Settings, branches: Callable[[], Sequence[str]]
) -> Callable[[FeatureDraft], None]:
    """`check_choice` for what a draft names."""

    def check(draft: FeatureDraft) -> None:
        check_choice(settings, branches, backend=draft.backend, model=draft.model, base=draft.base)

    return check
