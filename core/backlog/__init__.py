"""Backlog files: features as JSON or YAML, read into the project database.

A file may be imported again after it has grown: a feature whose name the
database knows already is skipped, and dependencies still find it.
"""

from autocoder.core.backlog.importing import ImportReport, import_backlog

__all__ = ["ImportReport", "import_backlog"]
