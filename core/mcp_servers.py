"""The one list of MCP servers that workers, the assistant and headless runs get.

Ports, URLs and the agent's name go into every entry here and nowhere else, so they
cannot differ between two ways of starting the same agent. Entries name everything
they need: some agent programs hand their own environment on, others do not.
"""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autocoder.core.agent_worker import temporary_folder

FEATURES = "features"
BROWSER = "playwright"
PLAYWRIGHT_PACKAGE = "@playwright/mcp@0.0.83"
"""Fetched by npx on first use where no `playwright-mcp` is installed."""

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_HANDED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
    "XDG_CACHE_HOME",
)


@dataclass(frozen=True, slots=True)
class ServedAgent:
    """Whose tools these are."""

    project_dir: Path
    database: Path
    run_folder: Path
    """Exists; the browser's settings are written there and its output goes below."""
    agent_id: str
    feature_id: int | None
    api_port: int
    web_port: int
    start_commit: str = ""
    about: str = ""
    """The agent a human asks about, where `agent_id` is empty; the ports are that one's."""


def mcp_servers(agent: ServedAgent, *, browser: bool = True) -> dict[str, dict[str, Any]]:
    """Every server by name, in the `mcpServers` shape all agent programs share.

    The browser is left out where no Chromium or no Node is installed. Afterwards
    `playwright.json` of the run folder holds its settings.
    """
    servers = {FEATURES: _features(agent)}
    if browser and (entry := _playwright(agent)) is not None:
        servers[BROWSER] = entry
    return servers


def agent_variables(agent: ServedAgent) -> dict[str, str]:
    """What the servers learn about the agent from their environment."""
    known = {
        "AUTOCODER_AGENT_ID": agent.agent_id,
        "AUTOCODER_FEATURE_ID": "" if agent.feature_id is None else str(agent.feature_id),
        "AUTOCODER_API_PORT": str(agent.api_port),
        "AUTOCODER_WEB_PORT": str(agent.web_port),
        "AUTOCODER_API_URL": f"http://localhost:{agent.api_port}",
        "AUTOCODER_WEB_URL": f"http://localhost:{agent.web_port}",
        "AUTOCODER_RUN_FOLDER": str(agent.run_folder),
        "AUTOCODER_START_COMMIT": agent.start_commit,
        "AUTOCODER_ABOUT_AGENT": agent.about,
        "AUTOCODER_DATABASE_URL": f"sqlite:///{agent.database}",
    }
    return {name: value for name, value in known.items() if value}


def find_chromium() -> str | None:
    """The Chromium or Chrome of this host; Debian's comes first."""
    return next((found for name in CHROMIUMS if (found := shutil.which(name))), None)


def browser_command() -> list[str] | None:
    """What starts Playwright's MCP server; None where no Node is installed."""
    if installed := shutil.which("playwright-mcp"):
        return [installed]
    npx = shutil.which("npx")
    return [npx, "--yes", PLAYWRIGHT_PACKAGE] if npx else None


def _features(agent: ServedAgent) -> dict[str, Any]:
    # -P keeps the worktree, where agents write, off the module search path.
    arguments = ["-P", "-m", "autocoder.core.cli", "mcp", "--project-dir", str(agent.project_dir)]
    inherited = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
    return {
        "command": sys.executable,
        "args": arguments,
        "env": inherited | agent_variables(agent),
    }


def _playwright(agent: ServedAgent) -> dict[str, Any] | None:
    chromium, command = find_chromium(), browser_command()
    if chromium is None or command is None:
        return None
    settings = agent.run_folder / "playwright.json"
    settings.write_text(json.dumps(_browser_settings(agent, chromium), indent=2), "utf-8")
    inherited = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
    tmp_dir = temporary_folder(str(agent.run_folder))
    return {
        "command": command[0],
        "args": [*command[1:], "--config", str(settings)],
        "env": inherited
        | agent_variables(agent)
        | {"TMPDIR": tmp_dir, "PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD": "1"},
    }


def _browser_settings(agent: ServedAgent, chromium: str) -> dict[str, Any]:
    origins = [
        f"http://{host}:{port}"
        for port in (agent.web_port, agent.api_port)
        for host in ("localhost", "127.0.0.1", "[::1]")
    ]
    return {
        "browser": {
            "browserName": "chromium",
            "isolated": True,
            "launchOptions": {
                "executablePath": chromium,
                "headless": True,
                # Chromium refuses its sandbox to root.
                "chromiumSandbox": os.geteuid() != 0,
            },
            "contextOptions": {"baseURL": f"http://localhost:{agent.web_port}"},
        },
        "outputDir": str(agent.run_folder / "browser"),
        "network": {"allowedOrigins": origins},
    }
