"""Every error a user of the engine can meet.

Each carries the sentence for the human, the remedy, and the exit code of the
command line, so that no front end has to translate one.
"""

from typing import ClassVar


class AutocoderError(Exception):
    """Something that cannot be done, said for the human who asked for it."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def said(self) -> str:
        """The message and its remedy, as one line."""
        return f"{self.message}. {self.hint}" if self.hint else self.message

    def as_dict(self) -> dict[str, object]:
        """The shape scripts get on stderr with `--json`."""
        return {"error": type(self).__name__, "message": self.message, "hint": self.hint}


class UsageError(AutocoderError):
    """Wrong arguments, settings or project; the message names the option, variable or file."""

    exit_code = 2


class ProjectError(UsageError):
    """The folder cannot serve as a project: not a repository, bare, empty, unwritable."""


class RefusedError(AutocoderError):
    """Well-formed, but the present state forbids it; nothing has changed."""

    exit_code = 3


class ProjectLocked(RefusedError):
    """Another orchestrator runs this project."""


class PoolExhausted(RefusedError):
    """No pair of ports is free; the ledger is unchanged."""

    def __init__(self, message: str, hint: str, *, role: str, usable: int, leased: int) -> None:
        super().__init__(message, hint)
        self.role = role
        self.usable = usable
        self.leased = leased

    def as_dict(self) -> dict[str, object]:
        return super().as_dict() | {
            "pool": self.role,
            "usable": self.usable,
            "leased": self.leased,
        }


class StaleLease(RefusedError):
    """The lease was granted anew since; whoever holds the old epoch may no longer write."""


class DatabaseError(RefusedError):
    """A database file cannot be used; what was in it is unchanged."""

    def __init__(self, message: str, hint: str = "", *, cause: str) -> None:
        """`cause` is one of damaged, busy, full, unwritable, newer, other."""
        super().__init__(message, hint)
        self.cause = cause


class GitError(AutocoderError):
    """git refused; the message is git's own last line."""
