"""Real Chromium by Playwright's MCP server opens the agent's page, on the agent's own port."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters, stdio_client
from mcp_types import TextContent

from autocoder.core import agent_worker
from autocoder.core.mcp_servers import ServedAgent, find_chromium, mcp_servers
from support.repositories import write

pytestmark = [
    pytest.mark.agents,
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        shutil.which("playwright-mcp") is None or find_chromium() is None,
        reason="needs playwright-mcp and Chromium: make test-agents",
    ),
]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        return


@contextmanager
def serving(folder: Path, port: int, text: str) -> Iterator[None]:
    write(folder, {"index.html": f"<title>{text}</title><h1>{text}</h1><script src=a.js></script>"})
    write(folder, {"a.js": "document.title += ' ready'"})
    server = ThreadingHTTPServer(("127.0.0.1", port), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_the_browser_opens_the_agents_own_page_and_no_neighbours(
    tmp_path: Path, ports: range
) -> None:
    own, neighbour = ports[1], ports[3]
    worktree = tmp_path / "worktree"
    run_folder = tmp_path / "run"
    worktree.mkdir()
    run_folder.mkdir()
    tmp_dir = agent_worker.make_temporary_folder(str(run_folder))
    agent = ServedAgent(tmp_path, tmp_path / "x.db", run_folder, "a-0001", 1, ports[0], own)
    entry = mcp_servers(agent)["playwright"]
    parameters = StdioServerParameters(
        command=entry["command"],
        args=entry["args"],
        env={"PATH": os.environ["PATH"], **entry["env"]},
        cwd=worktree,
    )
    with (
        serving(tmp_path / "own", own, "Mine"),
        serving(tmp_path / "neighbour", neighbour, "Not mine"),
    ):
        async with Client(stdio_client(parameters)) as client:

            async def call(tool: str, **arguments: object) -> str:
                result = await client.call_tool(tool, arguments)
                return "\n".join(p.text for p in result.content if isinstance(p, TextContent))

            mine = await call("browser_navigate", url=f"http://localhost:{own}/")
            assert "Mine ready" in mine, mine
            other = await call("browser_navigate", url=f"http://localhost:{neighbour}/")
            assert "Not mine" not in other
            await call("browser_take_screenshot")
            await call("browser_close")
    agent_worker.remove_temporary_folder(str(run_folder))
    assert not Path(tmp_dir).exists()
    assert list(worktree.iterdir()) == []
    assert any((run_folder / "browser").rglob("*.png"))
