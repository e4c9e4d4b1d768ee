"""What leaves the panel: URLs and ssh lines to copy, shells and editors beside it."""

import base64
import contextlib
import getpass
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from autocoder.core.models import Agent

TMUX_S = 5.0


def urls(agent: Agent) -> tuple[str, ...]:
    """Web first, because that is what one opens; empty once its pair is released."""
    ports = (agent.web_port, agent.api_port)
    return tuple(f"http://localhost:{port}" for port in ports if port is not None)


def ssh_line(agents: Sequence[Agent], environ: Mapping[str, str], host: str) -> str:
    """The command that brings the agents' ports to the user's own machine."""
    # SSH_CONNECTION is "client port server port": the server as the client knows it.
    connection = environ.get("SSH_CONNECTION", "").split()
    target = f"{getpass.getuser()}@{connection[2] if len(connection) == 4 else host}"
    forwards = [
        f"-L {port}:localhost:{port}"
        for agent in agents
        for port in (agent.api_port, agent.web_port)
        if port is not None
    ]
    return " ".join(["ssh -N", *forwards, shlex.quote(target)]) if forwards else ""


def agent_environment(agent: Agent, environ: Mapping[str, str]) -> dict[str, str]:
    """The user's own environment with what the agent's processes are given."""
    given = {
        "AUTOCODER_AGENT_ID": agent.agent_id,
        "AUTOCODER_FEATURE_ID": str(agent.feature_id),
    }
    if agent.api_port is not None and agent.web_port is not None:
        api, web = str(agent.api_port), str(agent.web_port)
        given |= {
            "AUTOCODER_API_PORT": api,
            "AUTOCODER_WEB_PORT": web,
            "API_PORT": api,
            "WEB_PORT": web,
            "PORT": api,
            "VITE_PORT": web,
            "AUTOCODER_API_URL": f"http://localhost:{api}",
            "AUTOCODER_WEB_URL": f"http://localhost:{web}",
        }
    return {**environ, **given}


def shell(environ: Mapping[str, str]) -> list[str]:
    return [environ.get("SHELL") or "/bin/sh"]


def editor(environ: Mapping[str, str], path: Path) -> list[str]:
    """The user's editor on a file; `vi` where none is named."""
    named = environ.get("VISUAL") or environ.get("EDITOR") or "vi"
    return [*shlex.split(named), os.fspath(path)]


def clipboard_sequence(text: str, environ: Mapping[str, str]) -> str:
    """What makes the user's own terminal take `text` into its clipboard (OSC 52).

    GNU screen hands it on only inside a control string of its own.
    """
    encoded = base64.b64encode(text.encode()).decode()
    plain = f"\x1b]52;c;{encoded}\x07"
    return _through_screen(plain) if environ.get("STY") else plain


def notification_sequence(text: str, environ: Mapping[str, str]) -> str:
    """What makes the user's own terminal notify its user (OSC 9).

    tmux, too, hands it on only inside a control string of its own, and that only where
    `allow-passthrough` is on; else nothing is to be seen of it.
    """
    plain = f"\x1b]9;{text}\x07"
    if environ.get("STY"):
        return _through_screen(plain)
    if environ.get("TMUX"):
        return "\x1bPtmux;" + plain.replace("\x1b", "\x1b\x1b") + "\x1b\\"
    return plain


def _through_screen(sequence: str) -> str:
    return f"\x1bP{sequence}\x1b\\"


def copy_by_tmux(text: str) -> None:
    """Let tmux copy: as it comes, it drops the sequence of a program inside it.

    In a thread of its own; where there is no such tmux, nothing happens.
    """

    def copy() -> None:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                ["tmux", "load-buffer", "-w", "-"],
                input=text.encode(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=TMUX_S,
                check=False,
            )

    threading.Thread(target=copy, name="copy by tmux", daemon=True).start()


def is_a_shells_job() -> bool:
    """Whether our parent is a shell that notices when we stop, and can make us go on."""
    parent = os.getppid()
    try:
        return os.getsid(parent) == os.getsid(0) and os.getpgid(parent) != os.getpgrp()
    except ProcessLookupError:
        return False


def wipe(environ: Mapping[str, str]) -> None:
    """Take the panel's picture off a terminal that has no other screen to go back to.

    GNU screen is one unless its user has set `altscreen on`: what comes next would be
    written across the picture.
    """
    if environ.get("STY"):
        sys.stderr.write("\x1b[H\x1b[2J")
        sys.stderr.flush()


def run_in_terminal(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> str:
    """Give the terminal to a program until it ends; why it could not start, or nothing.

    Call it with the panel suspended. Ctrl-C is the program's meanwhile.
    """

    def ignore(_number: int, _frame: FrameType | None) -> None:
        pass

    # A handler, not SIG_IGN: the program must start with the default.
    before = signal.signal(signal.SIGINT, ignore)
    wipe(env)
    try:
        subprocess.run(list(argv), cwd=cwd, env=dict(env), check=False)
    except OSError as error:
        return f"{argv[0]}: {error.strerror}"
    finally:
        signal.signal(signal.SIGINT, before)
    return ""
