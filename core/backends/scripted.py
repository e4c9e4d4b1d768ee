"""The scripted agent: no model, a fixed script per feature, everything else real.

It edits files in its worktree, starts the project's servers on its own pair,
checks over HTTP that they are its own, runs the tests and commits. One file of
the standard library, run as `python -I -S scripted.py RUN_JSON` and importing
late, because twenty instant features must not wait for imports.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1] / "demo" / "project" / "features"
MARK = ".scripted"
"""A repository with this file in its root is the demo project, to which the scripts fit."""
ANSWER_S = 20.0
"""How long a server may take to answer for the first time; a loaded box is slow."""

ESCAPES: tuple[tuple[str, bytes], ...] = (
    ("title, OSC 0", b"\x1b]0;owned\x07"),
    ("link, OSC 8", b"\x1b]8;;http://example.invalid\x1b\\click\x1b]8;;\x1b\\"),
    ("clipboard, OSC 52", b"\x1b]52;c;b3duZWQ=\x07"),
    ("OSC that never ends", b"\x1b]0;the rest of the log"),
    ("DCS", b"\x1bP+q544e\x1b\\"),
    ("APC", b"\x1b_Gf=24,s=1,v=1;AAAA\x1b\\"),
    ("clear screen", b"\x1b[2J\x1b[3J\x1b[H"),
    ("where is the cursor", b"\x1b[6n\x1b[c"),
    ("alternate screen", b"\x1b[?1049h\x1b[?25l"),
    ("mouse reports", b"\x1b[?1003h\x1b[?1006h"),
    ("C1 as bytes", b"\x9b2J\x9d0;owned\x9c"),
    ("C1 as UTF-8", b"\xc2\x9b2J\xc2\x9d0;owned\xc2\x9c"),
    ("bell", b"\x07\x07\x07"),
    ("carriage return", b"3 tests failed\rall tests pass"),
    ("backspace", b"no\x08\x08ok"),
    ("right-to-left override", "txt.\u202egpj.exe\u202c \u2066x\u2069".encode()),
    ("combining flood", ("Z" + "\u0301" * 64).encode()),
    ("console markup", b"[bold red]not red[/] [@click=app.quit]quit[/]"),
    ("NUL and invalid UTF-8", b"\x00\xff\xfe\xc3("),
    ("undone again", b"\x1b[?1003l\x1b[?1006l\x1b[?25h\x1b[?1049l\x1b[0m"),
)
"""What hostile output does to a terminal that believes it; one attack a line."""


class Failed(Exception):
    """The attempt is over; the message is its reason and becomes the last line."""


class Stopped(BaseException):
    """SIGTERM or SIGINT came; raised wherever the agent is, so that servers are still stopped."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class Run:
    """What the worker asks for, read from its JSON file."""

    def __init__(self, path: Path) -> None:
        try:
            described = json.loads(path.read_bytes())
            feature, options = described["feature"], described.get("options") or {}
            self.agent_id = str(described["agent_id"])
            self.worktree = Path(described["worktree"])
            self.feature_id = int(feature["id"])
            self.feature = _one_line(str(feature["name"])) or f"Feature {self.feature_id}"
            self.description = str(feature.get("description") or "")
            self.attempt = int(feature.get("attempt") or 1)
            self.step_s = max(0.0, float(options.get("step_s") or 0))
            self.misbehave = bool(options.get("misbehave"))
            self.servers = bool(options.get("servers"))
        except OSError as error:
            raise Failed(f"the run description {path}: {error.strerror}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            kind = type(error).__name__
            raise Failed(f"the run description {path} cannot be read: {kind} {error}") from error

    @property
    def api_port(self) -> int:
        return _own_port("AUTOCODER_API_PORT")

    @property
    def web_port(self) -> int:
        return _own_port("AUTOCODER_WEB_PORT")

    def pause(self) -> None:
        """The time a step takes, so that there is something to watch."""
        time.sleep(self.step_s)


class Script:
    """What the scripted agent does for one feature of the demo project."""

    def __init__(self, folder: Path, described: dict[str, object]) -> None:
        self.files = folder / "files"
        self.wrong = folder / "wrong"
        """Files as the attempt that hard-codes a port leaves them."""
        self.plan = str(described["plan"])
        self.misbehaviour = str(described.get("misbehave", ""))
        checks = described["checks"]
        assert isinstance(checks, list)
        self.checks: list[tuple[str, str, object, int]] = [tuple(check) for check in checks]
        """Method, path, JSON body or None, expected status; sent to the agent's own API."""

    @classmethod
    def find(cls, run: Run) -> "Script | None":
        """The script for this feature, None where the project is any other repository."""
        if not (run.worktree / MARK).is_file():
            return None
        for path in sorted(SCRIPTS.glob("*/script.json")):
            described = json.loads(path.read_bytes())
            if described["feature"] == run.feature:
                return cls(path.parent, described)
        return None


def main(arguments: list[str]) -> int:
    say("scripted agent: no model, a fixed script per feature")
    if len(arguments) != 1:
        say("usage: python -I -S scripted.py RUN_JSON")
        return 2
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _stop)
        run = Run(Path(arguments[0]))
        say(f"text  {run.feature} (feature {run.feature_id}, attempt {run.attempt})")
        script = Script.find(run)
        if script is None:
            take_a_note(run)
        elif run.misbehave and run.attempt == 1 and script.misbehaviour:
            MISBEHAVIOURS[script.misbehaviour](run, script)
        else:
            follow(run, script)
    except Failed as failure:
        say(str(failure))
        return 1
    except OSError as error:
        say(f"{error.filename or 'system call'}: {error.strerror or error}")
        return 1
    except Stopped as stopped:
        say(str(stopped))
        return stopped.exit_code
    return 0


def take_a_note(run: Run) -> None:
    """The feature of a repository without a script: a note in a file of its own, committed."""
    path = Path("notes", f"{run.feature_id}-{_slug(run.feature)}.md")
    note = f"# {run.feature}\n\n{run.description}\n\nAttempt {run.attempt} by {run.agent_id}.\n"
    write(run, path, note.encode(errors="replace"))
    run.pause()
    if run.servers:
        serve = ("-I", "-m", "http.server", "--bind", "127.0.0.1", "--protocol", "HTTP/1.1")
        with (
            Server(run, run.api_port, *serve, str(run.api_port)) as api,
            Server(run, run.web_port, *serve, str(run.web_port)) as web,
        ):
            for server in (api, web):
                server.wait(f"/{path.as_posix()}")
                answer = get(server.port, f"/{path.as_posix()}")
                if run.agent_id.encode() not in answer.body:
                    raise Failed(f"port {server.port} serves another agent's files")
                run.pause()
    commit(run, [path])


def follow(run: Run, script: Script) -> None:
    """Do the feature as a careful agent would."""
    say(f"text  {script.plan}")
    run.pause()
    mend(run, script)
    written = edit(run, script.files)
    with (
        Server(run, run.api_port, "-m", "api") as api,
        Server(run, run.web_port, "-m", "web") as web,
    ):
        api.wait("/api/todos")
        web.wait("/config.json")
        check(run, script)
        run_tests(run)
        run.pause()
    say("text  Both servers are stopped again.")
    commit(run, written)
    say(f"text  {run.feature}: done, and it stood up to its tests.")


def mend(run: Run, script: Script) -> None:
    """Take back what an earlier attempt wrote wrongly, if this worktree still has it."""
    for path in tree(script.wrong):
        target = run.worktree / path
        if target.is_file() and target.read_bytes() == (script.wrong / path).read_bytes():
            say(f"tool  run   git checkout HEAD -- {path}")
            git(run, "checkout", "HEAD", "--", str(path))


def edit(run: Run, folder: Path) -> list[Path]:
    """Write the files of `folder` to the same places of the worktree."""
    written = sorted(tree(folder), key=lambda path: path.parts[0] == "tests")
    for path in written:
        write(run, path, (folder / path).read_bytes())
        run.pause()
    return written


def check(run: Run, script: Script) -> None:
    """Prove over HTTP that the agent's page talks to the agent's API, and the feature works."""
    own_api = f"http://localhost:{run.api_port}"
    page = get(run.web_port, "/")
    if page.agent != run.agent_id:
        raise Failed(f"port {run.web_port} answers for {page.agent or 'nobody'}, not for me")
    named = page_api(get(run.web_port, "/config.json").body)
    say(f"tool  http  GET http://localhost:{run.web_port}/config.json -> api {named}")
    if named != own_api:
        raise Failed(f"the page on port {run.web_port} talks to {named}, not to {own_api}")
    run.pause()
    title = f"seen by {run.agent_id}"
    asked(run, "POST", "/api/todos", {"title": title}, 201)
    if title not in [todo["title"] for todo in asked(run, "GET", "/api/todos", None, 200).json()]:
        raise Failed(f"{own_api} forgot the todo it was just given")
    for method, path, body, status in script.checks:
        asked(run, method, path, body, status)
        run.pause()


def asked(run: Run, method: str, path: str, body: object, status: int) -> "Answer":
    answer = request(run.api_port, method, path, body)
    say(f"tool  http  {method} http://localhost:{run.api_port}{path} -> {answer.status}")
    if answer.agent != run.agent_id:
        raise Failed(f"port {run.api_port} answers for {answer.agent or 'nobody'}, not for me")
    if answer.status != status:
        text = answer.body.decode(errors="replace")[:200]
        raise Failed(f"{method} {path} gave {answer.status}, not {status}: {_one_line(text)}")
    return answer


def page_api(config: bytes) -> str:
    try:
        return str(json.loads(config)["api"])
    except (ValueError, KeyError, TypeError) as error:
        raise Failed(f"/config.json does not say where the API is: {error!r}") from error


def run_tests(run: Run, *which: str) -> None:
    """Run the project's tests; raises with their first failure."""
    say(" ".join(("tool  run   python -m unittest", *which)))
    done = subprocess.run(
        [sys.executable, "-m", "unittest", *which],
        cwd=run.worktree,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    for line in lines if done.returncode else lines[-2:]:
        say(f"      {line}")
    if done.returncode:
        causes = [line for line in lines if line.startswith(("AssertionError", "ERROR", "FAIL"))]
        raise Failed(f"tests fail: {(causes or lines or ['no output'])[-1]}")


def commit(run: Run, paths: list[Path]) -> None:
    """Afterwards the branch has one more commit, with these files as they are now."""
    git(run, "add", "--force", "--", *map(str, paths))
    say(f"tool  run   git commit -m {json.dumps(run.feature, ensure_ascii=False)}")
    order = ["commit", "--quiet", "-m", run.feature]
    # A guessed identity is refused, so that commits never carry a made-up host name.
    done = git(run, "-c", "user.useConfigOnly=true", *order, codes=(0, 1, 128))
    if done.returncode == 128 and "auto-detection is disabled" in done.stderr:
        neutral = ("-c", "user.name=scripted agent", "-c", "user.email=scripted@localhost")
        order = [*neutral, *order]
        done = git(run, *order, codes=(0, 1))
    if done.returncode == 1:
        say("text  Nothing left to change: the files are already as they should be.")
        done = git(run, *order, "--allow-empty", codes=(0,))
    if done.returncode:
        raise Failed(f"git commit: {_last_line(done.stderr)}")
    run.pause()


def git(run: Run, *order: str, codes: tuple[int, ...] = (0,)) -> "subprocess.CompletedProcess[str]":
    quiet = (
        "core.hooksPath=/dev/null",
        "core.fsmonitor=false",
        "commit.gpgSign=false",
        "gc.auto=0",
    )
    done = subprocess.run(
        ["git", *(part for setting in quiet for part in ("-c", setting)), *order],
        cwd=run.worktree,
        env=os.environ | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode not in codes:
        raise Failed(f"git {order[0]}: {_last_line(done.stderr or done.stdout)}")
    return done


class Server:
    """A server of the project, running while the block does."""

    def __init__(self, run: Run, port: int, *command: str) -> None:
        self.run = run
        self.port = port
        self.command = command
        self.name = " ".join(("python", *command))

    def __enter__(self) -> "Server":
        say(f"tool  run   {self.name}   # on port {self.port}")
        self.process = subprocess.Popen(
            [sys.executable, *self.command], cwd=self.run.worktree, stdin=subprocess.DEVNULL
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def wait(self, path: str) -> None:
        """Until its port answers."""
        wait_for_answer(self.process, self.name, self.port, path)


def wait_for_answer(process: "subprocess.Popen[bytes]", name: str, port: int, path: str) -> None:
    deadline = time.monotonic() + ANSWER_S
    while not answers(port, path):
        code = process.poll()
        if code is not None:
            raise Failed(f"{name} ended with code {code} before port {port} answered")
        if time.monotonic() > deadline:
            raise Failed(f"{name}: port {port} does not answer within {ANSWER_S:g} s")
        time.sleep(0.03)


class Answer:
    def __init__(self, status: int, agent: str, body: bytes) -> None:
        self.status = status
        self.agent = agent
        """The agent the answering process belongs to, by its own word."""
        self.body = body

    def json(self) -> list[dict[str, object]]:
        found = json.loads(self.body)
        assert isinstance(found, list)
        return found


def request(port: int, method: str, path: str, body: object = None) -> Answer:
    """One HTTP exchange with a server of this host; raises OSError where nothing answers.

    The client closes first, so that no TIME_WAIT holds the server's port afterwards.
    """
    from http.client import HTTPConnection, HTTPException  # start-up: 50 ms, often not needed

    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        data = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        return Answer(answer.status, answer.getheader("X-Agent", ""), answer.read())
    except HTTPException as error:
        raise OSError(0, f"port {port} speaks no HTTP: {error!r}") from error
    finally:
        connection.close()


def get(port: int, path: str) -> Answer:
    answer = request(port, "GET", path)
    if answer.status != 200:
        raise Failed(f"GET {path} on port {port} gave {answer.status}")
    return answer


def answers(port: int, path: str) -> bool:
    try:
        request(port, "GET", path)
    except OSError:
        return False
    return True


def crash(run: Run, script: Script) -> None:
    """Die by SIGSEGV over an edit that nobody has committed."""
    import resource  # start-up: nobody else needs it

    path = next(tree(script.files))
    write(run, path, (script.files / path).read_bytes())
    run.pause()
    say(f"crash on purpose: SIGSEGV, with {path} edited and not committed")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), signal.SIGSEGV)


def leave_a_server(run: Run, script: Script) -> None:
    """Start a server as `nohup setsid ... &` does, and go without it."""
    edit(run, script.files)
    say("tool  run   nohup setsid python -m web &")
    ignore = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    server = subprocess.Popen(
        [sys.executable, "-m", "web"],
        cwd=run.worktree,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    signal.signal(signal.SIGHUP, ignore)
    wait_for_answer(server, "python -m web", run.web_port, "/config.json")
    run.pause()
    raise Failed(
        f"left behind on purpose: python -m web, pid {server.pid}, on port {run.web_port}, "
        "in a session of its own and deaf to SIGHUP"
    )


def hard_code_a_port(run: Run, script: Script) -> None:
    """Write the port every tutorial names, and find out."""
    say("text  Every tutorial says 5000, so 5000 it is.")
    edit(run, script.files)
    edit(run, script.wrong)
    if 5000 in (run.api_port, run.web_port):
        say("text  5000 happens to be this agent's own; the next agent would not be so lucky.")
    else:
        with Server(run, 5000, "-m", "api") as server:
            try:
                server.wait("/api/todos")
            except Failed as refusal:
                say(f"text  {refusal}")
            if answers(run.api_port, "/api/todos"):
                raise Failed(f"port {run.api_port} answers, though nothing of mine listens there")
        say(f"text  Nothing answers on port {run.api_port}, where the page looks for its API.")
    run.pause()
    try:
        run_tests(run, "tests.test_ports.PortsTest.test_no_source_names_a_port")
    except Failed:
        lines = [
            f"{path}:{number}"
            for path in tree(script.wrong)
            for number, line in enumerate((script.wrong / path).read_text().splitlines(), 1)
            if "5000" in line
        ]
        raise Failed(
            f"hard-coded on purpose: {lines[0]} names port 5000; "
            "take it from $AUTOCODER_API_PORT, which every agent has its own value of"
        ) from None
    raise Failed("hard-coded port 5000 on purpose, and the project's own test did not see it")


def print_escapes(run: Run, script: Script) -> None:
    """Say everything a terminal should never be told by an agent."""
    edit(run, script.files)
    for label, attack in ESCAPES:
        say(f"text  {label}: ", attack)
    run.pause()
    raise Failed(f"printed {len(ESCAPES)} terminal escape attacks on purpose, then gave up")


MISBEHAVIOURS: dict[str, Callable[[Run, Script], None]] = {
    "crash": crash,
    "leave_a_server": leave_a_server,
    "hard_code_a_port": hard_code_a_port,
    "print_escapes": print_escapes,
}


def say(line: str, raw: bytes = b"") -> None:
    """One line of the log, at once."""
    sys.stdout.buffer.write(line.encode(errors="replace") + raw + b"\n")
    sys.stdout.buffer.flush()


def write(run: Run, path: Path, content: bytes) -> None:
    """Write a file of the worktree; a link that leads out of it is refused."""
    say(f"tool  edit  {path}")
    target = run.worktree / path
    root = os.path.realpath(run.worktree)
    if os.path.commonpath([root, os.path.realpath(target)]) != root:
        raise Failed(f"{path} leads out of the worktree")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def tree(folder: Path) -> Iterator[Path]:
    """The files below `folder`, relative to it; caches of tools are none of them."""
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if path.is_file() and not any("cache" in part for part in inner.parts[:-1]):
            yield inner


def _own_port(variable: str) -> int:
    value = os.environ.get(variable, "")
    if not value.isdecimal():
        raise Failed(f"${variable} is {value!r}; a worker gives its agent a port there")
    return int(value)


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _last_line(text: str) -> str:
    return _one_line((text.strip().splitlines() or ["no output"])[-1])


def _slug(text: str) -> str:
    kept = "".join(c if c.isascii() and c.isalnum() else " " for c in text.lower())
    return "-".join(kept.split())[:40].strip("-") or "feature"


def _stop(number: int, _frame: object) -> None:
    # Once is enough: a second signal must not interrupt the stopping of servers.
    for other in (signal.SIGTERM, signal.SIGINT):
        signal.signal(other, signal.SIG_IGN)
    raise Stopped(number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
