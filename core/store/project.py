"""`ProjectStore`: every question and every change this program has for a project's database."""

from autocoder.core.store.agents import AgentTables
from autocoder.core.store.features import BacklogTables
from autocoder.core.store.journal import Journal


class ProjectStore(BacklogTables, AgentTables, Journal):
    """One project's database, open; used from the thread that made it.

    Other processes may read and write the file meanwhile. Every change is durable
    when its method returns.

    Raises:
        DatabaseError: from any method: the file cannot be used; nothing changed.
    """
