"""The worker: the process that is the parent of everything one agent starts.

One standard-library file, run as `python -I -S .../agent_worker.py`, so that it
costs milliseconds and outlives every change of the panel's environment. It is a
POSIX session leader and child subreaper: whatever the agent's programs do (double
fork, setsid, ignore signals), they become its children in the end, and it ends
them all before it ends itself. It survives the orchestrator; the files of the run
folder (`log`, `status.json`, `exit.json`) are how the two speak.
"""

import ctypes
import errno
import json
import os
import re
import select
import stat
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

TYPE_CHECKING = False
"""As in `typing`, which takes as long to import as all that is imported here."""
if TYPE_CHECKING:
    import signal
    import socket
else:
    # What these two put around them, enumerations mostly, takes as long as Python's own start.
    import _signal as signal
    import _socket as socket

DEFAULT_API_PORT, DEFAULT_WEB_PORT = 5000, 5173
LOWEST_PORT, HIGHEST_PORT = 1024, 65535

EXIT_USAGE = 2
EXIT_NOT_STARTED = 127
"""Shells' own code for a program that cannot be started."""

LEFTOVER_GRACE_S = 0.3
"""What servers left behind by a finished backend get between SIGTERM and SIGKILL."""

SWEEP_LIMIT_S = 10.0
"""A process in uninterruptible sleep cannot be ended; the worker must not wait for ever."""

TIME_INDEX_S = 0.1
"""Shortest time between two entries of the time index beside the log."""

WORTH_A_TURN, REST_MS = 16384, 20
"""After reading fewer bytes the worker rests: a line costs much less among others."""

EXIT_FILE_BYTES = 16384
"""Room reserved for `exit.json` at the start, so that a full disk cannot lose it."""

CREDENTIALS: Mapping[str, tuple[str, ...]] = {
    "ANTHROPIC_API_KEY": ("claude", "opencode", "aider", "mini-swe-agent"),
    "ANTHROPIC_AUTH_TOKEN": ("claude",),
    "CLAUDE_CODE_OAUTH_TOKEN": ("claude",),
    "OPENAI_API_KEY": ("codex", "opencode", "aider", "mini-swe-agent"),
    "CODEX_API_KEY": ("codex",),
    "GEMINI_API_KEY": ("gemini", "opencode", "aider", "mini-swe-agent"),
    "GOOGLE_API_KEY": ("gemini", "opencode", "aider"),
    "OPENROUTER_API_KEY": ("opencode", "aider", "mini-swe-agent"),
    "MISTRAL_API_KEY": ("opencode", "aider", "mini-swe-agent"),
    "GROQ_API_KEY": ("opencode", "aider", "mini-swe-agent"),
    "DEEPSEEK_API_KEY": ("opencode", "aider", "mini-swe-agent"),
    "XAI_API_KEY": ("opencode", "aider"),
    "AZURE_OPENAI_API_KEY": ("codex", "aider"),
}
"""Credentials of model providers, and the backends that may see them."""

MISLEADING = (
    *("HOST", "NODE_ENV", "VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME"),
    *("TMUX", "TMUX_PANE", "COLUMNS", "LINES"),
)
"""What a shell or the panel leaves in the environment and an agent's programs would misread."""


def agent_environment(
    base: Mapping[str, str],
    *,
    agent_id: str,
    feature_id: int,
    backend: str,
    api_port: int,
    web_port: int,
    run_folder: str,
    tmp_dir: str,
    keep: Iterable[str] = (),
    drop: Iterable[str] = (),
) -> dict[str, str]:
    """What everything an agent starts finds in its environment: the user's own, less what
    misleads or leaks, plus the agent's ports. Applied twice it changes nothing more."""
    kept = frozenset(keep)
    withheld = {name for name, users in CREDENTIALS.items() if backend not in users}
    withheld |= {*MISLEADING, *(name for name in base if name.startswith("AUTOCODER_"))}
    withheld = (withheld - kept) | set(drop)
    env = {name: value for name, value in base.items() if name not in withheld}
    if "VIRTUAL_ENV" in base and "VIRTUAL_ENV" in withheld:
        own = os.path.join(base["VIRTUAL_ENV"], "bin")
        entries = env.get("PATH", os.defpath).split(os.pathsep)
        env["PATH"] = os.pathsep.join(entry for entry in entries if entry != own)
    api, web = str(api_port), str(web_port)
    return env | {
        "AUTOCODER_AGENT_ID": agent_id,
        "AUTOCODER_FEATURE_ID": str(feature_id),
        "AUTOCODER_API_PORT": api,
        "AUTOCODER_WEB_PORT": web,
        "API_PORT": api,
        "WEB_PORT": web,
        "PORT": api,
        "VITE_PORT": web,
        "AUTOCODER_API_URL": "http://localhost:" + api,
        "AUTOCODER_WEB_URL": "http://localhost:" + web,
        "AUTOCODER_REQUIRE_GATEKEEPER": "1",
        "AUTOCODER_RUN_FOLDER": run_folder,
        "TMPDIR": tmp_dir,
    }


LONGEST_TMPDIR = 60
"""Bytes: programs keep unix sockets below it, whose paths have 107 at most."""


def temporary_folder(run_folder: str) -> str:
    """The TMPDIR of a run folder's agent, short even where the run folder's own path is not.

    Not below $XDG_RUNTIME_DIR, which goes when its user logs out: agents stay.
    """
    own = os.path.join(run_folder, "tmp")
    if len(os.fsencode(own)) <= LONGEST_TMPDIR:
        return own
    try:
        status = os.stat(run_folder)
    except OSError:
        return own
    return f"/tmp/autocoder-run-{status.st_dev:x}-{status.st_ino:x}"  # noqa: S108


def make_temporary_folder(run_folder: str) -> str:
    """As `temporary_folder`; afterwards it is there, and nobody else's.

    Raises:
        OSError: it cannot be made.
    """
    path = temporary_folder(run_folder)
    try:  # noqa: SIM105 - contextlib is slow to import
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    if _is_private(path):
        return path
    own = os.path.join(run_folder, "tmp")
    os.makedirs(own, mode=0o700, exist_ok=True)
    return own


def remove_temporary_folder(run_folder: str) -> None:
    """A short one is gone afterwards; one in the run folder goes with its worktree."""
    path = temporary_folder(run_folder)
    if os.path.dirname(path) != run_folder and _is_private(path):
        # Imported here because most workers never need it, and all would pay for it.
        import shutil

        shutil.rmtree(path, ignore_errors=True)


def _is_private(path: str) -> bool:
    """Whether it is a folder of ours alone: anybody may make one of that name in /tmp."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    ours = status.st_uid == os.geteuid() and not status.st_mode & 0o77
    return ours and stat.S_ISDIR(status.st_mode)


# ------------------------------------------------------------------ the kernel


def become_subreaper() -> None:
    """Orphaned descendants become children of this process (prctl(2))."""
    pr_set_child_subreaper = 36
    if ctypes.CDLL(None, use_errno=True).prctl(pr_set_child_subreaper, 1, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, "PR_SET_CHILD_SUBREAPER: " + os.strerror(code))


def hold_ports(ports: Iterable[int]) -> tuple[list[socket.socket], list[int]]:
    """Bind a placeholder per port: other programs' plain binds then fail, the agent's own
    server (which sets SO_REUSEADDR, as nearly all do) binds beside it.

    Never listening and never inherited. Also returned: the ports on which another
    program listens, or which it has for itself.
    """
    held: list[socket.socket] = []
    taken: list[int] = []
    for port in ports:
        for family, address in ((socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")):
            try:
                holder = socket.socket(family, socket.SOCK_STREAM)
            except OSError:  # no IPv6 on this host
                continue
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                holder.bind((address, port))
            except OSError as error:
                holder.close()
                if error.errno == errno.EADDRINUSE and port not in taken:
                    taken.append(port)
                continue
            held.append(holder)
    return held, taken


def is_free(port: int) -> bool:
    """Whether the agent's next server could listen here; closed connections do not count."""
    for family, address in ((socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")):
        try:
            probe = socket.socket(family, socket.SOCK_STREAM)
        except OSError:
            continue
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                return False
        finally:
            probe.close()
    return True


def fence(allowed: Iterable[int]) -> bool:
    """Let this process and all it starts bind TCP only to `allowed` (landlock(7), ABI 4).

    Irrevocable, sets NO_NEW_PRIVS. False where the kernel has no such rule; nothing
    is restricted then.
    """
    sys_create_ruleset, sys_add_rule, sys_restrict_self = 444, 445, 446
    bind_tcp, rule_net_port, version_query = 1, 2, 1
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(sys_create_ruleset, None, 0, version_query) < 4:
        return False
    handled = struct.pack("=QQ", 0, bind_tcp)
    ruleset = libc.syscall(sys_create_ruleset, handled, len(handled), 0)
    if ruleset < 0:
        return False
    try:
        rule = (ctypes.c_uint64 * 2)(bind_tcp, 0)
        port = ctypes.c_uint64.from_address(ctypes.addressof(rule) + 8)
        # 65,000 calls. Landlock knows no ranges, a ruleset cannot be copied or taken from,
        # and every agent's differs: so each is built anew, and only the way there can be
        # short: arguments converted once, the GIL kept, one rule rewritten in place.
        add_rule = ctypes.PyDLL(None).syscall
        add_rule.restype = None
        arguments = (
            ctypes.c_long(sys_add_rule),
            ctypes.c_long(ruleset),
            ctypes.c_long(rule_net_port),
            ctypes.c_void_p(ctypes.addressof(rule)),
            ctypes.c_long(0),
        )
        for port.value in allowed:
            add_rule(*arguments)
        pr_set_no_new_privs = 38
        libc.prctl(pr_set_no_new_privs, 1, 0, 0, 0)
        return bool(libc.syscall(sys_restrict_self, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def start_ticks(pid: int) -> int | None:
    """Start time in clock ticks since boot, field 22 of /proc/PID/stat; None when gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            # The name in field 2 may itself hold spaces and parentheses.
            return int(stat.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


def children(pid: int) -> Iterator[int]:
    """Children of every thread of `pid`; nothing when it is gone."""
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as listing:
                yield from map(int, listing.read().split())
    except OSError:
        return


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    queue = [pid]
    while queue:
        below = list(children(queue.pop()))
        found += below
        queue += below
    return found


def send(pid: int, number: int, start: int | None) -> bool:
    """Signal the process that was `pid` at `start`; False when it is gone or another by now."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        # The pidfd pins the process, so what is checked now is what is signalled.
        if start_ticks(pid) != start:
            return False
        signal.pidfd_send_signal(handle, number)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def command_of(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as cmdline:
            return cmdline.read(300).replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return ""


# -------------------------------------------------------------- the run folder


def write_json(path: str, value: Mapping[str, object]) -> None:
    """Replace the file in one step: a reader sees the old value or the new one."""
    partial = path + ".tmp"
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(value, file)
    os.replace(partial, path)


class Log:
    """The agent's output as it came, in at most two files, and when it came.

    At half of `cap_bytes` the file becomes `log.1` and a new one begins, at a line's
    end: the newest half is always whole. `log.times` holds a line `<offset> <unix
    time>` for what begins at that offset, at most ten a second.
    """

    def __init__(self, path: str, cap_bytes: int) -> None:
        self.path = path
        self.lost_bytes = 0
        self._cap = max(cap_bytes // 2, 4096)
        self._last_index = 0.0
        self._open()

    def write(self, data: bytes) -> None:
        """Append; what a full disk refuses is counted, never waited for."""
        while len(data) > (room := self._cap - self._size):
            cut = data.rfind(b"\n", 0, max(room, 0)) + 1 or data.find(b"\n") + 1
            if not cut:
                break
            self._append(data[:cut])
            data = data[cut:]
            self._rotate()
        self._append(data)

    def _append(self, data: bytes) -> None:
        try:
            now = time.time()
            if now - self._last_index >= TIME_INDEX_S:
                os.write(self._times, b"%d %.2f\n" % (self._size, now))
                self._last_index = now
            view = memoryview(data)
            while view:
                written = os.write(self._fd, view)
                self._size += written
                view = view[written:]
        except OSError:
            self.lost_bytes += len(data)

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(self.path, flags, 0o600)
        self._times = os.open(self.path + ".times", flags, 0o600)
        self._size = os.fstat(self._fd).st_size

    def _rotate(self) -> None:
        os.close(self._fd)
        os.close(self._times)
        os.replace(self.path, self.path + ".1")
        os.replace(self.path + ".times", self.path + ".1.times")
        self._last_index = 0.0
        self._open()


class AddressErrors:
    """Counts lines that say a port was taken, and tells the agent's own ports from others."""

    MARKS = (b"EADDRINUSE", b"ddress already in use", b"EACCES", b"ermission denied", b"bind(")
    PORT = re.compile(rb"(?:[:=]|port |', )([1-9]\d{3,4})\b")
    """As Node, Python, Go and Rust name a port in these errors."""

    def __init__(self, pair: tuple[int, int], fenced: bool, ledger: str = "") -> None:
        """`ledger`: the host's, asked whose port it was that the fence refused."""
        self.own = 0
        """Lines that name one of the agent's ports, or none."""
        self.others: list[int] = []
        """Other ports named, each once."""
        self._pair = pair
        self._fenced = fenced
        self._ledger = ledger
        self._rest = b""
        self._binding = False
        """A traceback that is being printed goes through a bind."""
        self._unnamed = False
        """A refusal that named no port has been explained."""

    def feed(self, data: bytes) -> list[str]:
        """What to tell the agent about the lines that `data` completes."""
        data = self._rest + data
        cut = data.rfind(b"\n") + 1
        self._rest = data[cut:][-4096:]
        if not any(mark in data for mark in self.MARKS):
            return []
        advice = []
        for line in data[:cut].splitlines():
            taken = b"EADDRINUSE" in line or b"ddress already in use" in line
            refused = self._fenced and (b"EACCES" in line or b"ermission denied" in line)
            if taken or refused:
                advice += self._judge(line, taken)
                self._binding = False
            elif line[:1] not in b" \t":
                self._binding = False
            if b"bind(" in line:
                self._binding = True
        return advice

    def _judge(self, line: bytes, taken: bool) -> list[str]:
        ports = {int(digits) for digits in self.PORT.findall(line[:4096])}
        foreign = sorted(ports - set(self._pair))
        if taken and not foreign:
            self.own += 1
        advice = []
        for port in foreign:
            if port not in self.others and len(self.others) < 100:
                self.others.append(port)
                whose = holder_of(self._ledger, port) if self._ledger else ""
                belongs = f"belongs to {whose}" if whose else "is not this agent's"
                advice.append(f"port {port} {belongs}; {self._own()}")
        if not taken and not ports and self._binding and not self._unnamed:
            # Python's own message says neither that it is a port nor which.
            self._unnamed = True
            advice.append(f"a port that is not this agent's was refused; {self._own()}")
        return advice

    def _own(self) -> str:
        api, web = self._pair
        return f"use $AUTOCODER_API_PORT ({api}) or $AUTOCODER_WEB_PORT ({web})"


def holder_of(ledger: str, port: int) -> str:
    """Who has leased the port, as the host's ledger says; empty where it does not."""
    # Imported here because hardly any worker ever needs it, and all pay for it.
    import sqlite3

    try:
        connection = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True, timeout=1)
        try:
            row = connection.execute(
                "SELECT holder FROM port_leases WHERE port = ? AND state = 'leased'", (port,)
            ).fetchone()
        finally:
            connection.close()
    except sqlite3.Error:
        return ""
    return str(row[0]) if row else ""


# ----------------------------------------------------------------- command line


USAGE = f"""\
usage: agent_worker.py --project-dir DIR --agent-id ID --feature-id N --worktree-path DIR [options]

Run one agent in its worktree, on its own two ports, and end all it started.

options:
  --api-port N             default: $AUTOCODER_API_PORT, else {DEFAULT_API_PORT}
  --web-port N             default: $AUTOCODER_WEB_PORT, else {DEFAULT_WEB_PORT}
  --backend NAME           default: scripted
  --model NAME             default: the backend's own
  --max-iterations N       default: 5
  --yolo                   skip browser tests
  --heartbeat-seconds S    default: 2
  --part NAME              a run folder of its own below the agent's
  -h, --help               this text

example: agent_worker.py --project-dir app --agent-id manual-1 --feature-id 42
         --worktree-path app-worktrees/manual-1 --api-port 9999 --web-port 4000
"""


class Arguments:
    """A worker's command line. Read without argparse, which takes as long as Python's start."""

    REQUIRED = ("--project-dir", "--agent-id", "--feature-id", "--worktree-path")
    OPTIONAL = (
        *("--api-port", "--web-port", "--backend", "--model", "--max-iterations"),
        *("--heartbeat-seconds", "--part"),
    )

    def __init__(self, argv: Iterable[str]) -> None:
        """Ports: option, else environment, else 5000 and 5173; a bad one is refused.

        Raises:
            SystemExit: 2, and the reason is on stderr; or 0 where help was asked for.
        """
        given = self._given(argv)
        for name in self.REQUIRED:
            if name not in given:
                raise _refusal(f"{name} is required")
        self.agent_id = given["--agent-id"]
        self.part = given.get("--part", "")
        for name, text in (("--agent-id", self.agent_id), ("--part", self.part)):
            if not _is_name(text) and (text or name in self.REQUIRED):
                raise _refusal(f"{name} may hold letters, digits and ._- only, not {text!r}")
        self.feature_id = int(_number(given, "--feature-id", int))
        self.max_iterations = int(_number(given, "--max-iterations", int, "5"))
        self.heartbeat_seconds = _number(given, "--heartbeat-seconds", float, "2")
        self.backend = given.get("--backend", "scripted")
        self.model = given.get("--model", "")
        self.yolo = "--yolo" in given
        self.api_port = self._port(given, "api", DEFAULT_API_PORT)
        self.web_port = self._port(given, "web", DEFAULT_WEB_PORT)
        if self.api_port == self.web_port:
            raise _refusal(f"api and web port must differ, both are {self.api_port}")
        self.project_dir, self.worktree_path = (
            self._folder(given, name) for name in ("--project-dir", "--worktree-path")
        )

    def _given(self, argv: Iterable[str]) -> dict[str, str]:
        given: dict[str, str] = {}
        words = iter(argv)
        for word in words:
            name, equals, value = word.partition("=")
            if word in ("-h", "--help"):
                sys.stdout.write(USAGE)
                raise SystemExit(0)
            if word == "--yolo":
                given[word] = ""
            elif name not in self.REQUIRED and name not in self.OPTIONAL:
                raise _refusal(f"{word!r} is no option")
            else:
                found = value if equals else next(words, None)
                if found is None:
                    raise _refusal(f"{name} needs a value")
                given[name] = found
        return given

    def _port(self, given: Mapping[str, str], role: str, default: int) -> int:
        name, variable = f"--{role}-port", f"AUTOCODER_{role.upper()}_PORT"
        text = given.get(name)
        if text is None:
            text, name = os.environ.get(variable) or str(default), "$" + variable
        if not (text.isascii() and text.isdigit() and LOWEST_PORT <= int(text) <= HIGHEST_PORT):
            raise _refusal(
                f"{name} must be a port between {LOWEST_PORT} and {HIGHEST_PORT}, not {text!r}"
            )
        return int(text)

    def _folder(self, given: Mapping[str, str], name: str) -> str:
        if not os.path.isdir(given[name]):
            raise _refusal(f"{name} {given[name]} is not a folder")
        return os.path.abspath(given[name])


def _refusal(reason: str) -> SystemExit:
    """To be raised; the reason is said already."""
    sys.stderr.write(f"agent_worker.py: {reason}\n")
    return SystemExit(EXIT_USAGE)


def _number(
    given: Mapping[str, str], name: str, kind: Callable[[str], float], default: str = ""
) -> float:
    text = given.get(name, default)
    try:
        return kind(text)
    except ValueError:
        raise _refusal(f"{name} must be a number, not {text!r}") from None


def _is_name(text: str) -> bool:
    plain = text.replace("-", "").replace("_", "").replace(".", "")
    return plain.isascii() and plain.isalnum() and text[:1] not in ".-" and len(text) <= 64


# ------------------------------------------------------------------- the worker


class Worker:
    """One run of one backend, from its start to a swept tree and `exit.json`."""

    def __init__(self, args: Arguments, run: Mapping[str, object], folder: str) -> None:
        self.args = args
        self.run_description = run
        self.folder = folder
        limits = run.get("limits")
        self.limits: Mapping[str, float] = limits if isinstance(limits, dict) else {}
        self.ending = "exited"
        """exited, stopped, killed, wall_limit, idle_limit, not_started or ports_taken."""
        self.error = ""
        self.backend_pid = 0
        self.backend_start: int | None = None
        self.wait_status: int | None = None
        self._output = -1
        self.ended: dict[int, int | None] = {}
        """Processes of the tree seen while ending it, by start time."""
        self.left_behind: list[str] = []
        self._requests: set[int] = set()
        self._stop_stages: list[tuple[float, str]] = []
        self._recent = b""
        self._last_words: list[str] | None = None
        """What it said last before a limit ended it; what it says while ending explains nothing."""

    def run(self) -> int:
        """Returns this process's own exit code: 0 when the backend ended with 0."""
        self.started_at = self.last_output = time.time()
        self._last_beat = 0.0
        self._wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poller, self._waking = select.poll(), select.poll()
        for poller in (self._poller, self._waking):
            poller.register(self._wake_read, select.POLLIN)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, self._note_signal)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        # The launcher has blocked them, so that none is lost before this.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        become_subreaper()
        pair = (self.args.api_port, self.args.web_port)
        self._placeholders, taken = hold_ports(pair)
        self.log = Log(
            os.path.join(self.folder, "log"), int(self.limits.get("log_bytes", 50 << 20))
        )
        self._reserve_exit_file()
        self.fenced = self._fence()
        description = self.run_description.get("fence")
        ledger = description.get("ledger", "") if isinstance(description, dict) else ""
        self.address_errors = AddressErrors(pair, self.fenced, ledger)
        self._say(
            f"{self.args.agent_id} starts {self.args.backend} on api {pair[0]}, web {pair[1]}"
            + (" (fenced)" if self.fenced else "")
        )
        # What is run beside or after a backend shares the pair with what that left.
        if taken and not self.args.part:
            self._give_up("ports_taken", f"another program has {_listed(taken)}")
        else:
            self._start_backend()
            self._beat()
        while self.backend_pid and self.wait_status is None and self.ending != "killed":
            self._turn()
        self._end_tree()
        self._drain()
        return self._finish()

    # -- starting

    def _fence(self) -> bool:
        description = self.run_description.get("fence")
        if not isinstance(description, dict) or description.get("mode") == "off":
            return False
        pair = {self.args.api_port, self.args.web_port}
        if description.get("mode") == "strict":
            return fence((0, *pair))
        # Port 0 is "any free one", which the kernel never takes from a bound pool port.
        allowed = set(range(65536))
        for start, end in description.get("pools", []):
            allowed.difference_update(range(start, end))
        return fence(allowed | pair)

    def _start_backend(self) -> None:
        command = self._command()
        tmp_dir = make_temporary_folder(self.folder)
        environment = self.run_description.get("env")
        rules: Mapping[str, list[str]] = environment if isinstance(environment, dict) else {}
        env = agent_environment(
            os.environ,
            agent_id=self.args.agent_id,
            feature_id=self.args.feature_id,
            backend=self.args.backend,
            api_port=self.args.api_port,
            web_port=self.args.web_port,
            run_folder=self.folder,
            tmp_dir=tmp_dir,
            keep=rules.get("pass", ()),
            drop=rules.get("drop", ()),
        )
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(read_end, False)
        self._output = read_end
        self._poller.register(read_end, select.POLLIN)
        try:
            os.chdir(self.args.worktree_path)
            env["PWD"] = os.getcwd()
            self.backend_pid = os.posix_spawnp(
                command[0],
                command,
                env,
                file_actions=(
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, write_end, 1),
                    (os.POSIX_SPAWN_DUP2, write_end, 2),
                ),
                setsid=True,
                setsigdef=(signal.SIGHUP, signal.SIGPIPE),
            )
            self.backend_start = start_ticks(self.backend_pid)
        except OSError as error:
            self._give_up("not_started", f"{command[0]} cannot be started: {error.strerror}")
        finally:
            os.close(write_end)

    def _give_up(self, ending: str, error: str) -> None:
        self.ending, self.error = ending, error
        self._say(error)

    def _command(self) -> list[str]:
        given = self.run_description.get("command")
        if isinstance(given, list) and given and all(isinstance(part, str) for part in given):
            return given
        here = os.path.dirname(os.path.abspath(__file__))
        script = os.path.join(here, "backends", "scripted.py")
        return [sys.executable, "-I", "-S", script, os.path.join(self.folder, "run.json")]

    def _reserve_exit_file(self) -> None:
        with open(os.path.join(self.folder, "exit.json.tmp"), "wb") as file:
            file.write(b" " * EXIT_FILE_BYTES)

    # -- running

    def _note_signal(self, number: int, _frame: object) -> None:
        self._requests.add(number)

    def _turn(self) -> None:
        """Wait for output, a signal or the next deadline, and deal with it."""
        ready = [fd for fd, _ in self._poller.poll(self._milliseconds_to_wait())]
        if self._output in ready and self._pump() < WORTH_A_TURN:
            # Whoever prints line by line is read some lines at a time.
            self._waking.poll(REST_MS)
        _empty(self._wake_read)
        self._take_requests()
        self._advance_stop()
        now = time.time()
        if now - self._last_beat >= self.args.heartbeat_seconds:
            self._beat()
        if self.ending == "exited":
            self._check_limits(now)
        self._reap()

    def _milliseconds_to_wait(self) -> float:
        wait: float = self._last_beat + self.args.heartbeat_seconds - time.time()
        if self._stop_stages:
            wait = min(wait, self._stop_stages[0][0] - time.monotonic())
        return max(wait, 0.0) * 1000

    def _take_requests(self) -> None:
        requests, self._requests = self._requests, set()
        if signal.SIGUSR1 in requests:
            self.ending = "killed"
        elif requests & {signal.SIGTERM, signal.SIGINT} and self.ending == "exited":
            self._begin_stop("stopped")

    def _begin_stop(self, ending: str) -> None:
        """Interrupt now, ask in half the grace, force at its end."""
        self.ending = ending
        self._beat()
        grace = float(self.limits.get("stop_grace_s", 5.0))
        now = time.monotonic()
        self._stop_stages = [(now, "interrupt"), (now + grace / 2, "ask"), (now + grace, "force")]

    def _advance_stop(self) -> None:
        while self._stop_stages and self._stop_stages[0][0] <= time.monotonic():
            _, stage = self._stop_stages.pop(0)
            if stage == "interrupt":
                self._signal_tree(signal.SIGINT, only_group_of_backend=True)
            elif stage == "ask":
                self._signal_tree(signal.SIGTERM)
            else:
                self._signal_tree(signal.SIGKILL)

    def _check_limits(self, now: float) -> None:
        for limit, since in (("wall_limit", self.started_at), ("idle_limit", self.last_output)):
            seconds = float(self.limits.get(limit + "_s", 0))
            if seconds and now - since > seconds:
                self._last_words = _last_lines(self._recent, 5)
                self._say(f"{limit.replace('_', ' ')} of {seconds:.0f} s reached, stopping")
                self._begin_stop(limit)
                return

    def _pump(self) -> int:
        """Move what is there into the log; how many bytes, at most 1 MiB lest signals starve."""
        moved = 0
        for _ in range(16):
            try:
                data = os.read(self._output, 65536)
            except BlockingIOError:
                break
            if not data:
                self._poller.unregister(self._output)
                os.close(self._output)
                self._output = -1
                break
            moved += len(data)
            self.log.write(data)
            self.last_output = time.time()
            self._recent = (self._recent + data)[-4096:]
            for line in self.address_errors.feed(data):
                self._say(line)
        return moved

    def _drain(self) -> None:
        """What the ended tree still left in the pipe; an escaped writer cannot hold us."""
        if self._output >= 0:
            self._pump()

    def _beat(self) -> None:
        self._last_beat = time.time()
        status = {
            "agent_id": self.args.agent_id,
            "pid": os.getpid(),
            "start": start_ticks(os.getpid()),
            "backend_pid": self.backend_pid,
            "backend_start": self.backend_start,
            "ending": self.ending,
            "fenced": self.fenced,
            "at": self._last_beat,
            "last_output": self.last_output,
            "log_lost_bytes": self.log.lost_bytes,
        }
        try:
            write_json(os.path.join(self.folder, "status.json"), status)
        except OSError:
            # A missed heartbeat on a full disk: the process itself is what proves life.
            return

    # -- ending

    def _reap(self) -> bool:
        """Collect whatever has ended; False when this process has no children left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.backend_pid:
                self.wait_status = status

    def _signal_tree(self, number: int, *, only_group_of_backend: bool = False) -> None:
        for pid in descendants(os.getpid()):
            if only_group_of_backend and not _in_group(pid, self.backend_pid):
                continue
            start = start_ticks(pid)
            self.ended.setdefault(pid, start)
            send(pid, number, start)

    def _end_tree(self) -> None:
        """Nothing of the tree lives when this returns, short of an unkillable process."""
        if not self._reap():
            return
        if self.ending == "exited":
            self.left_behind = [f"{pid} {command_of(pid)}" for pid in descendants(os.getpid())[:10]]
            self._signal_tree(signal.SIGTERM)
            self._wait_for_no_children(LEFTOVER_GRACE_S)
        deadline = time.monotonic() + SWEEP_LIMIT_S
        while self._reap() and time.monotonic() < deadline:
            self._signal_tree(signal.SIGKILL)
            self._wait_for_no_children(0.005)

    def _wait_for_no_children(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._reap():
            left = deadline - time.monotonic()
            if left <= 0:
                return
            if self._output >= 0:
                self._pump()  # a full pipe would keep a process from ending politely
            self._waking.poll(min(left, 0.05) * 1000)
            _empty(self._wake_read)

    def _finish(self) -> int:
        remove_temporary_folder(self.folder)
        for placeholder in self._placeholders:
            placeholder.close()
        free = [p for p in (self.args.api_port, self.args.web_port) if is_free(p)]
        code = None if self.wait_status is None else os.waitstatus_to_exitcode(self.wait_status)
        facts = {
            "agent_id": self.args.agent_id,
            "pid": os.getpid(),
            "ending": self.ending,
            "error": self.error,
            "exit_code": code,
            "started_at": self.started_at,
            "ended_at": time.time(),
            "processes_ended": len(self.ended),
            "left_behind": [text[:300] for text in self.left_behind],
            "survivors": len(descendants(os.getpid())),
            "ports_free": free,
            "eaddrinuse": self.address_errors.own,
            "foreign_ports": self.address_errors.others,
            "last_lines": self._last_words or _last_lines(self._recent, 5),
        }
        how = self.ending.replace("_", " ") + ("" if code is None else f", exit code {code}")
        ended = f"{len(self.ended)} process" + ("" if len(self.ended) == 1 else "es")
        ports = f"{len(free)} port" + ("" if len(free) == 1 else "s")
        self._say(f"{how}; {ended} ended, {ports} free")
        # Written into the room reserved at the start, then put in place before this
        # process ends: whoever sees it gone finds the reason.
        text = json.dumps(facts, ensure_ascii=False).encode("utf-8", "replace")
        partial = os.path.join(self.folder, "exit.json.tmp")
        with open(partial, "r+b") as file:
            file.write(text)
            file.truncate()
        os.replace(partial, os.path.join(self.folder, "exit.json"))
        return 0 if code == 0 and self.ending == "exited" else 1

    def _say(self, text: str) -> None:
        self.log.write(f"autocoder: {text}\n".encode())


def _listed(ports: list[int]) -> str:
    return ("ports " if ports[1:] else "port ") + " and ".join(map(str, ports))


def _in_group(pid: int, group: int) -> bool:
    try:
        return os.getpgid(pid) == group
    except ProcessLookupError:
        return False


def _empty(fd: int) -> None:
    try:
        while os.read(fd, 512):
            pass
    except BlockingIOError:
        return


def _last_lines(data: bytes, count: int) -> list[str]:
    lines = [line.strip() for line in data.decode("utf-8", "replace").splitlines()]
    return [line[:500] for line in lines if line][-count:]


def read_run(folder: str, args: Arguments) -> dict[str, object]:
    """The run description the orchestrator wrote, or a minimal one for a worker started by hand."""
    path = os.path.join(folder, "run.json")
    try:
        with open(path, encoding="utf-8") as file:
            run = json.load(file)
        if isinstance(run, dict):
            return run
        raise SystemExit(f"agent_worker.py: {path} is no run description")
    except FileNotFoundError:
        pass
    if args.backend != "scripted":
        raise SystemExit(
            f"agent_worker.py: backend {args.backend} needs a run description; "
            "start it by `autocoder worker` instead"
        )
    run = {
        "agent_id": args.agent_id,
        "backend": args.backend,
        "worktree": args.worktree_path,
        "model": args.model,
        "max_iterations": args.max_iterations,
        "feature": {"id": args.feature_id, "name": f"Feature {args.feature_id}", "attempt": 1},
        "options": {"step_s": 0, "misbehave": False},
    }
    write_json(path, run)
    return run


def main(argv: list[str]) -> int:
    args = Arguments(argv)
    folder = os.path.join(args.project_dir, ".autocoder", "agents", args.agent_id, args.part)
    folder = folder.rstrip(os.sep)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    run = read_run(folder, args)
    if os.getsid(0) != os.getpid():
        # A process group leader may not begin a session; the shell made us one.
        if os.getpgid(0) == os.getpid() and os.fork():
            return os.waitstatus_to_exitcode(os.wait()[1])
        os.setsid()
    return Worker(args, run, folder).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
