"""What an agent may not do in its shell, and the sentence that tells it what to do instead.

The rules keep an honest agent from the accidents that cost most: a port written as
a number, a signal that meets another agent's server, work outside its worktree or on
base. They are no wall: the fence, the worker and the merge are what holds against
malice. When in doubt a command passes, but where a kill would go is never in doubt.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autocoder.core.models import PortRange, Role
from autocoder.core.shell import Command, UnreadableShell, Word, read_commands, resolved

DEV_PORTS = frozenset(
    {1234, 1313, 3000, 3001, 3002, 3003, 3333, 4000, 4173, 4200, 4321, 5000, 5001, 5173, 5174}
    | {5500, 7000, 8000, 8001, 8008, 8080, 8081, 8088, 8787, 8888, 9000, 19000, 19006}
)
"""What development servers take when nobody tells them otherwise."""

VARIABLE = {Role.API: "$AUTOCODER_API_PORT", Role.WEB: "$AUTOCODER_WEB_PORT"}


@dataclass(frozen=True, slots=True)
class Scope:
    """What belongs to one agent, and what it stands beside."""

    api_port: int
    web_port: int
    pools: tuple[PortRange, ...]
    """Ranges of all pools of the host."""
    worktree: Path
    project_dir: Path
    """The user's own checkout."""
    base: str
    worktrees: Path | None = None
    """Where the worktrees of all agents are; None where the agent's stands alone."""
    own_folders: tuple[Path, ...] = ()
    """Further folders that are this agent's, such as its TMPDIR."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Variables of its environment that paths are made of: HOME, TMPDIR, PWD."""
    is_own_process: Callable[[int], bool] = lambda _: False
    listener_pids: Callable[[int], Sequence[int | None]] = lambda _: ()
    """Who listens on a port; None for a process that may not be looked at."""


def refusal(command: str, scope: Scope) -> str | None:
    """Why this shell text is refused and what to do instead; None where it may run."""
    variables = dict(scope.variables) | {"PWD": str(scope.worktree)}
    try:
        commands = read_commands(command, variables=variables, cwd=str(scope.worktree))
    except UnreadableShell as error:
        return (
            f"this cannot be read as shell ({error}): put it in simpler commands, "
            "or into a script file in the worktree"
        )
    except RecursionError:
        return "this is nested too deeply: put it in simpler commands"
    for one in commands:
        for rule in _RULES:
            if (why := rule(one, scope)) is not None:
                return why
    return None


def refuse_path(path: str, scope: Scope) -> str | None:
    """Why a file tool may not touch `path`; None where it may."""
    return _foreign(path, str(scope.worktree), scope)


# ------------------------------------------------------------------------- ports

_TALKERS = frozenset(
    {"echo", "printf", "grep", "egrep", "fgrep", "rg", "ag", "sed", "awk", "gawk", "perl"}
    | {"git", "gh", "cat", "head", "tail", "less", "jq", "diff", "find", "fd", "ls", "test", "["}
    | {"[[", "tee", "cut", "tr", "sort", "seq", "sleep", "true", "false", "expr", "wc", "date"}
    | {"mkdir", "touch", "cp", "mv", "rm", "ln", "chmod", "cd", "pwd", "which", "type", "stat"}
    | {"lsof", "ss", "netstat", "ps", "pgrep", "kill", "fuser", "autocoder"}
)
"""Programs for which a number is text, or that only look at who listens."""

_ADDRESS = re.compile(
    r"(?:(?<=//)|(?<=@)|(?<![\w.:/-]))"
    r"(?:localhost|(?:\d{1,3}\.){3}\d{1,3}|\[[0-9a-fA-F:]*\]|[\w-]+\.localhost|tcp|\*|)"
    r":(\d{4,5})(?![\d.])"
)
"""An address of this host, or none, with a port."""

_LONG_OPTION = re.compile(r"--?(?:[\w.-]*[-_.])?(?:port|listen|bind|addr|address|http)s?\Z", re.I)
_SHORT_OPTION = re.compile(r"-[pPlb]\Z")
_PORT_NAME = re.compile(r"(?:\w*_)?(?:PORT|PORTS|ADDR|ADDRESS|LISTEN|URL|ORIGINS?|HOST)\Z", re.I)
_OTHER_SHORT_OPTIONS = frozenset(
    {"pip", "pip3", "uv", "cargo", "make", "ssh", "scp", "rsync", "tar"}
)
"""Programs whose `-p` and the like are no ports."""
_NUMBER = re.compile(r"(?:\D*:)?(\d{4,5})(?:/tcp)?\Z")
_POSITIONAL = frozenset({"nc", "ncat", "kill-port", "wait-port", "http.server", "runserver"})
"""Programs, modules and orders that take a port as a bare number."""


def _hard_coded_port(command: Command, scope: Scope) -> str | None:
    for name, value in command.assignments:
        if name.startswith("AUTOCODER_"):
            return f"${name} is set for this agent and stays as it is"
        if _PORT_NAME.match(name):
            for port in _ports_in(value.text):
                if (why := _judge_port(port, scope, f"{name}=")) is not None:
                    return why
    if command.name == "unset" and any(
        word.text.startswith("AUTOCODER_") for word in command.arguments
    ):
        return "the variables with the agent's ports stay as they are"
    if command.name in _TALKERS:
        return None
    for port in _ports_of(command):
        if (why := _judge_port(port, scope, "")) is not None:
            return why
    return None


def _ports_of(command: Command) -> Iterator[int]:
    """Every number on the command line that stands where a port does."""
    contained = command.name in ("docker", "podman")
    texts = [word.text for word in command.arguments]
    positional = command.name in _POSITIONAL or not _POSITIONAL.isdisjoint(texts)
    for before, text in zip(["", *texts], texts, strict=False):
        option, equals, value = text.partition("=")
        if contained:
            # `-p HOST:CONTAINER`: only the host's side is a port of this machine.
            if before in ("-p", "--publish"):
                yield from _ports_in(text.rpartition(":")[0])
            continue
        if equals and (_LONG_OPTION.match(option) or _PORT_NAME.match(option)):
            yield from _ports_in(value)
        elif _LONG_OPTION.match(before) or (
            _SHORT_OPTION.match(before) and command.name not in _OTHER_SHORT_OPTIONS
        ):
            yield from _ports_in(text)
        elif re.fullmatch(r"-[pPlb]\d{4,5}", text):
            yield int(text[2:])
        elif positional and re.fullmatch(r"\d{4,5}", text):
            yield int(text)
        yield from map(int, _ADDRESS.findall(text))


def _ports_in(text: str) -> Iterator[int]:
    found = _NUMBER.match(text)
    if found:
        yield int(found[1])
    yield from map(int, _ADDRESS.findall(text))


def _judge_port(port: int, scope: Scope, prefix: str) -> str | None:
    if port == scope.api_port:
        return f"port {port} is yours, but write {prefix}{VARIABLE[Role.API]} instead of the number"
    if port == scope.web_port:
        return f"port {port} is yours, but write {prefix}{VARIABLE[Role.WEB]} instead of the number"
    in_pool = any(port in pool for pool in scope.pools)
    if in_pool or port in DEV_PORTS:
        whose = "is leased to agents one by one" if in_pool else "may be anybody's"
        return (
            f"port {port} {whose} and is not yours: use {VARIABLE[Role.API]} for the API server "
            f"and {VARIABLE[Role.WEB]} for the web server"
        )
    return None


# ------------------------------------------------------------------------- signals

_KILL_ADVICE = (
    "end a server of yours by its pid: note it when you start it "
    '(`echo "$!" > "$TMPDIR/api.pid"`), then `kill "$(cat "$TMPDIR/api.pid")"`'
)


def _signal_beyond(command: Command, scope: Scope) -> str | None:
    match command.name:
        case "kill":
            return _kill(command, scope)
        case "pkill" | "killall" | "killall5" | "skill" | "kill-port" | "fkill":
            return _by_name(command, scope)
        case "fuser":
            return _fuser(command, scope)
        case "shutdown" | "reboot" | "poweroff" | "halt":
            return f"{command.name} would end everybody's work"
        case "systemctl" | "service":
            return f"{command.name} reaches services of the whole host, not only yours"
    return None


def _kill(command: Command, scope: Scope) -> str | None:
    for word in _kill_targets(command.arguments):
        if not word.known:
            if (why := _kill_unknown(word, command, scope)) is not None:
                return why
            continue
        text = word.text
        if text.startswith("%"):
            continue
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit()):
            continue  # kill itself refuses it
        if text in ("-1", "0", "1"):
            return f"kill {text} reaches far more than your own processes; {_KILL_ADVICE}"
        if not scope.is_own_process(int(digits)):
            return f"process {digits} is not one you started; {_KILL_ADVICE}"
    return None


def _kill_targets(words: Sequence[Word]) -> Sequence[Word]:
    if words and words[0].text in ("-l", "-L", "--list"):
        return ()
    if words and words[0].text in ("-s", "-n", "--signal"):
        words = words[2:]
    elif len(words) > 1 and re.fullmatch(r"-(\w+|-signal=\w+)", words[0].text):
        words = words[1:]
    return [word for word in words if word.text != "--"]


def _kill_unknown(word: Word, command: Command, scope: Scope) -> str | None:
    """Follow where the pids come from, as far as that can be told before it runs."""
    for what in word.unknown or ("",):
        if isinstance(what, str):
            if what in ("!", "$", "BASHPID"):
                continue
            if what == "xargs" and command.piped_from is not None:
                if (why := _pids_from([command.piped_from], scope)) is not None:
                    return why
                continue
            if what and what not in ("xargs", "find") and re.search("pid", what, re.IGNORECASE):
                continue  # a variable the agent noted a pid in
            return f"it cannot be told whose processes this would end; {_KILL_ADVICE}"
        if (why := _pids_from(what, scope)) is not None:
            return why
    return None


def _pids_from(commands: Sequence[Command], scope: Scope) -> str | None:
    last = commands[-1] if commands else None
    match last:
        case Command() if last.name == "cat" and last.arguments:
            for word in last.arguments:
                for pid in _pids_in_file(word, last.cwd):
                    if not scope.is_own_process(pid):
                        return f"process {pid} in {word.text} is not one you started"
            return None
        case Command() if last.name == "jobs":
            return None
        case Command() if last.name == "pgrep":
            return _by_name(last, scope)
        case Command() if last.name in ("lsof", "fuser"):
            ports = set(_named_ports(last, scope))
            if ports and all(_only_own_listen(port, scope) for port in ports):
                return None
            return (
                "what listens there is not known to be yours; "
                f"only {VARIABLE[Role.API]} and {VARIABLE[Role.WEB]} are. {_KILL_ADVICE}"
            )
    return f"it cannot be told whose processes this would end; {_KILL_ADVICE}"


def _pids_in_file(word: Word, cwd: str | None) -> Iterator[int]:
    path = resolved(word.text, cwd) if word.known else None
    if path is None:
        return
    try:
        with open(path, "rb") as file:
            text = file.read(4096).decode("ascii", "replace")
    except OSError:
        return  # nothing there yet: an earlier part of the command writes it
    yield from (int(part) for part in text.split() if part.isascii() and part.isdigit())


def _named_ports(command: Command, scope: Scope) -> Iterator[int]:
    for word in command.arguments:
        for what in word.unknown:
            if what in ("AUTOCODER_API_PORT", "API_PORT", "PORT"):
                yield scope.api_port
            elif what in ("AUTOCODER_WEB_PORT", "WEB_PORT", "VITE_PORT"):
                yield scope.web_port
            else:
                yield 0
        for digits in re.findall(r"\d{4,5}", word.text):
            yield int(digits)


def _only_own_listen(port: int, scope: Scope) -> bool:
    if port not in (scope.api_port, scope.web_port):
        return False
    return all(pid is not None and scope.is_own_process(pid) for pid in scope.listener_pids(port))


def _by_name(command: Command, scope: Scope) -> str | None:
    texts = [word.text for word in command.arguments]
    if "-P" in texts[:-1]:
        parent = command.arguments[texts.index("-P") + 1]
        own = parent.text.isdigit() and scope.is_own_process(int(parent.text))
        if own or (parent.unknown and parent.unknown[0] in ("$", "!", "BASHPID")):
            return None
    return f"{command.name} ends processes of other agents that look like yours; {_KILL_ADVICE}"


def _fuser(command: Command, scope: Scope) -> str | None:
    options = [word.text for word in command.arguments if word.text.startswith("-")]
    kills = any("k" in option.lstrip("-") for option in options if not option.startswith("--"))
    if not kills and "--kill" not in options:
        return None
    ports = set(_named_ports(command, scope))
    if ports and all(_only_own_listen(port, scope) for port in ports):
        return None
    return f"fuser -k ends whatever listens there, whoever it belongs to; {_KILL_ADVICE}"


# ------------------------------------------------------------------------- git

_COMMIT_ADVICE = "commit on your own branch; it is merged for you when it is finished"
_SHARED_BY_WORKTREES: Mapping[str, str] = {
    "push": f"nothing is pushed from here: {_COMMIT_ADVICE}",
    "stash": f"the stash is shared with all other worktrees: {_COMMIT_ADVICE}",
    "gc": "the object store is shared with all other worktrees; leave its upkeep to git",
    "prune": "the object store is shared with all other worktrees; leave its upkeep to git",
    "filter-branch": "history that others build on is not rewritten",
    "send-pack": f"nothing is pushed from here: {_COMMIT_ADVICE}",
}
_GIT_VALUED = frozenset({"-C", "-c", "--git-dir", "--work-tree", "--namespace", "--exec-path"})


def _git_beyond(command: Command, scope: Scope) -> str | None:
    if command.name == "gh" and [w.text for w in command.arguments[:2]] in (
        ["pr", "create"],
        ["pr", "merge"],
        ["repo", "sync"],
    ):
        return f"nothing is pushed from here: {_COMMIT_ADVICE}"
    if command.name != "git":
        return None
    words = [word.text for word in command.arguments]
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if option in _GIT_VALUED and words:
            words.pop(0)
    if not words:
        return None
    order, rest = words[0], words[1:]
    if order in _SHARED_BY_WORKTREES:
        listing = order == "stash" and rest[:1] in (["list"], ["show"])
        return None if listing else _SHARED_BY_WORKTREES[order]
    plain = [word for word in rest if not word.startswith("-")]
    bases = {scope.base, f"refs/heads/{scope.base}", f"heads/{scope.base}"}
    match order:
        case "checkout" | "switch":
            return _leaves_branch(order, rest, plain, bases, scope)
        case "worktree":
            if plain[:1] != ["list"]:
                return "worktrees are made and removed for you; stay in your own"
        case "branch":
            changes = any(
                re.fullmatch(r"-\w*[dDmMfcC]\w*|--(delete|move|force|copy)", w) for w in rest
            )
            if changes and bases & set(plain):
                return f"{scope.base} belongs to everybody: {_COMMIT_ADVICE}"
        case "update-ref" | "symbolic-ref":
            if bases & set(plain) or (order == "symbolic-ref" and len(plain) > 1):
                return f"{scope.base} belongs to everybody: {_COMMIT_ADVICE}"
        case "fetch" | "pull":
            if any(word.rpartition(":")[2] in bases for word in plain if ":" in word):
                return f"{scope.base} belongs to everybody: {_COMMIT_ADVICE}"
        case "config":
            reads = any(word.startswith(("--get", "--list", "-l")) for word in rest)
            reads = reads or plain[:1] in (["get"], ["list"]) or len(plain) == 1
            if not reads or "--unset" in rest:
                return (
                    "git's configuration is shared with the user and all other worktrees; "
                    "give a setting for one command with `git -c name=value ...`"
                )
        case "remote":
            if plain[:1] and plain[0] not in ("show", "get-url"):
                return "remotes are shared with the user and all other worktrees"
    return None


def _leaves_branch(
    order: str, rest: Sequence[str], plain: Sequence[str], bases: Iterable[str], scope: Scope
) -> str | None:
    if "--" in rest:
        return None
    target = plain[0] if plain else ""
    creates = any(word in ("-b", "-B", "-c", "-C", "--orphan", "--create") for word in rest)
    advice = f"you have a branch of your own: {_COMMIT_ADVICE}"
    if creates:
        return f"stay on your branch: {advice}"
    if len(plain) == 1 and (target in bases or target.rpartition("/")[2] == scope.base):
        return f"{scope.base} is not checked out here: {advice}"
    if order == "switch" and target:
        return f"stay on your branch: {advice}"
    return None


# ------------------------------------------------------------------------- places


def _elsewhere(command: Command, scope: Scope) -> str | None:
    words = [*command.arguments, *command.written, *(value for _, value in command.assignments)]
    if command.name in ("echo", "printf"):
        words = [*command.written]
    for word in words:
        text = word.text
        if not text.startswith("/") and "=/" in text:
            text = text[text.index("=/") + 1 :]
        if "/" not in text and text != "..":
            continue
        if "://" in text or "\n" in text:
            continue
        if (why := _foreign(text, command.cwd, scope)) is not None:
            return why
        if command.name in ("rm", "mv", "chmod", "chown") and _contains(text, command.cwd, scope):
            return f"{text} holds your worktree and other people's work: name what you mean in it"
    return None


def _contains(text: str, cwd: str | None, scope: Scope) -> bool:
    path = resolved(text, cwd)
    return path is not None and scope.worktree.is_relative_to(path)


def _foreign(text: str, cwd: str | None, scope: Scope) -> str | None:
    found = resolved(text, cwd)
    if found is None:
        return None
    path = Path(found)
    if any(path.is_relative_to(own) for own in (scope.worktree, *scope.own_folders)):
        return None
    if path.is_relative_to(scope.project_dir):
        return (
            f"{path} is in the user's own checkout; "
            f"the same files are in your worktree {scope.worktree}"
        )
    if scope.worktrees is not None and path.is_relative_to(scope.worktrees):
        return f"{path} is not yours: stay in your worktree {scope.worktree}"
    return None


_RULES: Sequence[Callable[[Command, Scope], str | None]] = (
    _signal_beyond,
    _git_beyond,
    _hard_coded_port,
    _elsewhere,
)
