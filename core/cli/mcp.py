"""`autocoder mcp`: the feature server for any MCP client, on stdin and stdout."""

from pathlib import Path

from autocoder.core.cli.options import ProjectOption, opened
from autocoder.core.cli.output import guarded


def mcp(project_dir: ProjectOption = Path()) -> None:
    """Serve the backlog and the agents' ports to an MCP client on stdin and stdout.

    What it may change depends on who asks: within an agent, told by AUTOCODER_AGENT_ID, only
    that agent's feature; elsewhere every one.

    \b
    Example, an entry of a client's mcpServers:
      {"autocoder": {"command": "autocoder", "args": ["mcp", "-C", "/path/to/project"]}}
    """
    with guarded():
        from autocoder.core.mcp_server import serve_stdio
        from autocoder.core.settings import database_path

        folder, settings = opened(project_dir)
        serve_stdio(folder, database_path(settings, folder))
