"""Hard-coded ports in source and configuration, by file and line.

A port that stands in a file is the same for every agent, so the second one fails
to start or, worse, tests the first one's app. A fallback beside a variable
(`process.env.PORT || 3000`) is fine, and so is what only talks about a port:
comments, prose, types, defaults of a parameter. Lines are matched, not parsed:
a rule must be worth its false alarms in any language.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePath
from typing import Final

from autocoder.core.errors import UsageError
from autocoder.core.worktrees.git import Git

LARGEST_BYTES: Final = 1 << 20
LONGEST_LINE: Final = 2000
"""Longer lines are generated, like whole files beyond `LARGEST_BYTES`."""


@dataclass(frozen=True, slots=True)
class HardCodedPort:
    path: str
    """Relative to the folder that was searched, with forward slashes."""
    line: int
    port: int
    rule: str
    text: str
    """The line as it stands, clipped; not sanitised."""

    def as_dict(self) -> dict[str, object]:
        return {
            "path": self.path,
            "line": self.line,
            "port": self.port,
            "rule": self.rule,
            "text": self.text,
        }


def lint_tree(folder: Path) -> Iterator[HardCodedPort]:
    """Every hard-coded port below `folder`, or in it where it is a file, by path and line.

    Raises:
        UsageError: it is not there or cannot be read.
    """
    if folder.is_file():
        yield from lint_text(folder.name, _text(folder))
        return
    if not folder.is_dir():
        raise UsageError(f"{folder} is not there", "Name a folder or a file.")
    for path in sorted(_files(folder)):
        yield from lint_text(path.relative_to(folder).as_posix(), _text(path))


def lint_diff(folder: Path, base: str) -> Iterator[HardCodedPort]:
    """Those in lines that the checkout at `folder` has and commit `base` has not.

    Files that git does not track and does not ignore count as new.

    Raises:
        GitError: `folder` is no checkout, or has no such commit.
    """
    git = Git(folder)
    commit = git.run("rev-parse", "--verify", "--end-of-options", f"{base}^{{commit}}").line()
    changed = git.run("diff", "--name-only", "--relative", "-z", commit, "--").fields()
    fresh = git.run("ls-files", "--others", "--exclude-standard", "-z").fields()
    for name in sorted({*changed, *fresh}):
        path = folder / name
        if path.is_symlink() or not path.is_file() or _is_skipped(PurePath(name)):
            continue
        found = list(lint_text(name, _text(path)))
        added = None if name in fresh or not found else _added_lines(git, commit, name)
        yield from (port for port in found if added is None or port.line in added)


def lint_text(path: str, text: str) -> Iterator[HardCodedPort]:
    """Those in one file; its path tells what kind of file it is."""
    kind = _kind(PurePath(path))
    if kind is None or _is_generated(text):
        return
    in_signature = False
    for number, (raw, line) in enumerate(_without_comments(text, PurePath(path)), 1):
        in_signature = in_signature or (path.endswith(".py") and bool(_SIGNATURE.match(line)))
        if in_signature:
            in_signature = ")" not in line
            continue
        if len(raw) > LONGEST_LINE or not _DIGITS.search(line) or _FROM_ENVIRONMENT.search(line):
            continue
        if kind is _Kind.SOURCE and _TOLD.search(line):
            continue
        seen: set[int] = set()
        for rule in _RULES:
            if kind not in rule.kinds:
                continue
            for found in rule.pattern.finditer(line):
                port = int(next(group for group in found.groups() if group))
                if 1024 <= port <= 65535 and port not in _SERVICES and port not in seen:
                    seen.add(port)
                    yield HardCodedPort(path, number, port, rule.name, raw.strip()[:200])


class _Kind(Enum):
    SOURCE = "source"
    TEST = "test"
    CONFIG = "config"
    """Settings of tools, whatever their language: vite.config.ts, .env, *.toml."""
    SCRIPT = "script"
    """What a shell reads: scripts, Makefiles, package.json, Dockerfiles, CI files."""
    COMPOSE = "compose"


_EVERYWHERE: Final = frozenset(_Kind)
_NO_CODE: Final = _EVERYWHERE - {_Kind.SOURCE, _Kind.TEST}


@dataclass(frozen=True, slots=True)
class _Rule:
    name: str
    pattern: re.Pattern[str]
    kinds: frozenset[_Kind]


_PORT = r"([1-9][0-9]{3,4})(?![0-9.])"
_LOCAL = r"(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1?\]|host\.docker\.internal)"
_SERVERS = (
    r"vite|next|nuxt|astro|serve|http-server|live-server|json-server|webpack(?:-dev-server)?|"
    r"webpack serve|ng serve|react-scripts|parcel|flask|uvicorn|gunicorn|hypercorn|daphne|"
    r"streamlit|rails|puma|rackup|hugo|jekyll|wrangler|deno|bun"
)
# Clients of shared services connect to these; no agent's server listens on them.
_SERVICES: Final = frozenset(
    {
        1433,
        1521,
        1883,
        2181,
        2375,
        2376,
        3306,
        4222,
        4317,
        4318,
        5432,
        5433,
        5672,
        6333,
        6334,
        6379,
        6380,
        8125,
    }
    | {9042, 9092, 9200, 9300, 9411, 11211, 11434, 15672, 26379, 27017, 27018}
)
_RULES: Final = (
    _Rule("url", re.compile(rf"(?:https?|wss?)://{_LOCAL}:{_PORT}", re.I), _NO_CODE),
    # In code, an address within a longer text is told to a human; a string of its own is used.
    _Rule(
        "url",
        re.compile(rf"[\"'`](?:https?|wss?)://{_LOCAL}:{_PORT}", re.I),
        frozenset({_Kind.SOURCE}),
    ),
    _Rule(
        "url",
        re.compile(
            r"(?:goto|visit|open|fetch|request|get|post|put|patch|delete|urlopen|connect|baseURL"
            rf"|base_url|WebSocket|axios)\b\W{{0,6}}(?:https?|wss?)://{_LOCAL}:{_PORT}",
            re.I,
        ),
        frozenset({_Kind.TEST}),
    ),
    _Rule("address", re.compile(rf"(?<![\w./-]){_LOCAL}:{_PORT}", re.I), _NO_CODE),
    _Rule(
        "address",
        re.compile(rf"[\"'`]{_LOCAL}:{_PORT}", re.I),
        frozenset({_Kind.SOURCE}),
    ),
    _Rule("listen", re.compile(rf"\.listen\(\s*(?:\{{\s*port:\s*)?{_PORT}"), _EVERYWHERE),
    _Rule(
        "listen",
        re.compile(
            rf"(?:ListenAndServe(?:TLS)?|net\.Listen|\.Run|\.Start)\(\s*(?:\"tcp\",\s*)?"
            rf"\"[\w.]*:{_PORT}\""
        ),
        _EVERYWHERE,
    ),
    _Rule(
        "listen",
        re.compile(
            r"(?:\.bind|HTTPServer|TCPServer|WSGIServer|make_server|run_simple|create_server"
            r"|start_server|TcpListener::bind|SocketAddr::from)\(\s*\(?\(?\s*"
            rf"(?:\"[^\"]*\"|'[^']*'|\[[\d, ]+\])\s*,\s*{_PORT}"
        ),
        _EVERYWHERE,
    ),
    _Rule(
        "listen",
        re.compile(
            r"(?:\brun|run_app|serve|make_server|create_server|start_server)\([^()]*\bport\s*=\s*"
            + _PORT
        ),
        _EVERYWHERE,
    ),
    _Rule(
        "assignment",
        re.compile(
            r"(?:^|[\s;,{(\"'])(?:export\s+|const\s+|let\s+|var\s+|static\s+|final\s+|int\s+)*"
            r"(?!\w*(?:DEFAULT|MAX|MIN|HIGH|LOW))(?:[A-Za-z]\w*_)?(?:PORT|(?<![A-Za-z_])[Pp]ort)[\"']?"
            rf"(?:\s*:\s*(?:u16|int|number))?\s*:?=(?![=>])\s*[\"']?{_PORT}"
        ),
        _EVERYWHERE - {_Kind.TEST},
    ),
    _Rule(
        "setting",
        re.compile(
            rf"(?:^|[\s{{,(\"'.])(?:server\.|strict)?port[\"']?\s*[:=](?![=:])\s*[\"']?{_PORT}",
            re.I,
        ),
        frozenset({_Kind.CONFIG}),
    ),
    _Rule(
        "setting",
        re.compile(rf"(?:^|[\s{{,(])[\"']?port[\"']?\s*:\s*{_PORT}\s*(?:[,}})]|$)"),
        frozenset({_Kind.SOURCE}),
    ),
    _Rule(
        "flag",
        re.compile(rf"--(?:\w+-)?port(?:[=\s]|[\"'],\s*[\"']?)\s*[\"']?{_PORT}"),
        _EVERYWHERE,
    ),
    _Rule(
        "flag",
        re.compile(
            rf"\b(?:{_SERVERS})\b[^|;&#]*?\s-[plbL]\s*(?:tcp://)?(?:[\w.]*:)?{_PORT}"
            rf"|\bhttp\.server\s+{_PORT}|\brunserver\s+(?:[\d.]+:)?{_PORT}|\bphp\s+-S\s+[\w.]+:{_PORT}"
        ),
        frozenset({_Kind.SCRIPT, _Kind.COMPOSE, _Kind.CONFIG}),
    ),
    _Rule(
        "flag",
        re.compile(rf"\bdocker\s+run\b.*?\s-p\s*(?:[\d.]+:)?{_PORT}:\d"),
        frozenset({_Kind.SCRIPT, _Kind.CONFIG}),
    ),
    _Rule(
        "published",
        re.compile(
            rf"^\s*-\s*[\"']?(?:[\d.]+:)?{_PORT}:\d+(?:/tcp)?[\"']?\s*$"
            rf"|^\s*published:\s*[\"']?{_PORT}"
        ),
        frozenset({_Kind.COMPOSE}),
    ),
)
_SIGNATURE: Final = re.compile(r"\s*(?:async\s+)?def\s")
"""Of a Python function: what stands in it are defaults of parameters."""
_TOLD: Final = re.compile(
    r"\be\.g\.|\bfor example\b|\bhelp\s*=|\bplaceholder\b|\\n[\"'`]|[\"']`", re.I
)
"""A line of text for a human."""
_DIGITS: Final = re.compile(r"[0-9]{4}")
_FROM_ENVIRONMENT: Final = re.compile(
    r"process\.env|import\.meta\.env|Deno\.env|Bun\.env|os\.environ|getenv|GetEnv|env::var|env!\("
    r"|ENV\[|ENV\.fetch|System\.getenv|\$\{?\w*PORT|\$\w*\(\w*PORT|%\w*PORT%|env\(|loadEnv"
    r"|default\s*=|default:|\bdef\s.*port|\.env\.|add_argument|Option\(|\boption\(",
    re.I,
)

_SKIPPED_FOLDERS: Final = frozenset(
    {".git", ".hg", ".svn", "node_modules", "vendor", "third_party", "dist", "build", "out"}
    | {".venv", "venv", "__pycache__", "target", "coverage", ".next", ".nuxt", ".tox", ".autocoder"}
    | {"site-packages", "docs", "doc", "locale", "locales", "CHANGELOG", ".terraform"}
)
_TEST_FOLDERS: Final = frozenset({"test", "tests", "spec", "specs", "__tests__", "e2e", "fixtures"})
_TEST_FILE: Final = re.compile(r"(?:^test_|_test\.|\.test\.|\.spec\.|\.cy\.|^conftest\.)")
_HASH: Final = frozenset(
    {".py", ".sh", ".bash", ".zsh", ".rb", ".yml", ".yaml", ".toml", ".ini", ".cfg", ".conf"}
    | {".env", ".properties", ".ex", ".exs", ".mk", ".fish"}
)
_SLASH: Final = frozenset(
    {".js", ".jsx", ".ts", ".tsx", ".mjs", ".cjs", ".mts", ".cts", ".vue", ".svelte", ".go", ".rs"}
    | {".java", ".kt", ".scala", ".cs", ".php", ".swift", ".c", ".cc", ".cpp", ".dart", ".astro"}
)
_PLAIN: Final = frozenset({".json", ".html", ".htm"})
_CONFIG_FILE: Final = re.compile(
    r"^\.env|\.env$|(?:^|\.)(?:config|conf|rc)\.\w+$|rc$|^(?:config|settings|application)\b"
    r"|\.(?:ini|cfg|conf|toml|properties)$"
)
_SCRIPT_FILE: Final = re.compile(
    r"^(?:GNU)?[Mm]akefile$|\.mk$|^[Jj]ustfile$|^Procfile|^Dockerfile|\.[Dd]ockerfile$"
    r"|\.(?:sh|bash|zsh|fish)$|^package\.json$|^Taskfile\.ya?ml$"
)


def _kind(path: PurePath) -> _Kind | None:
    """What kind of file it is; None for what is not linted: prose, data, locks, generated."""
    name = path.name
    if _is_skipped(path):
        return None
    if re.search(r"compose.*\.ya?ml$", name):
        return _Kind.COMPOSE
    if _SCRIPT_FILE.search(name):
        return _Kind.SCRIPT
    if _CONFIG_FILE.search(name) and path.suffix not in (".md", ".rst", ".txt"):
        return _Kind.CONFIG
    if path.suffix not in _HASH | _SLASH | _PLAIN:
        return None
    in_tests = _TEST_FOLDERS.intersection(part.lower() for part in path.parts[:-1])
    if in_tests or _TEST_FILE.search(name):
        return _Kind.TEST
    if path.suffix in (".yml", ".yaml"):
        return _Kind.SCRIPT
    return _Kind.SOURCE


def _is_skipped(path: PurePath) -> bool:
    return (
        bool(_SKIPPED_FOLDERS.intersection(path.parts))
        or ".min." in path.name
        or path.name in ("package-lock.json", "npm-shrinkwrap.json", "composer.lock")
    )


def _is_generated(text: str) -> bool:
    return len(text) > LARGEST_BYTES or "\0" in text[:8192]


def _without_comments(text: str, path: PurePath) -> Iterator[tuple[str, str]]:
    """Each line as it stands, and without what is comment in files of this kind."""
    slash, hash_ = path.suffix in _SLASH, path.suffix in _HASH or not path.suffix
    closing: str | None = None
    for raw in text.splitlines():
        line = raw
        if closing is not None:
            _, found, line = line.partition(closing)
            if not found:
                yield raw, ""
                continue
            closing = None
        for opening, end in _blocks(path.suffix):
            begin = line.find(opening)
            if begin < 0:
                continue
            stop = line.find(end, begin + len(opening))
            line = line[:begin] + ("" if stop < 0 else line[stop + len(end) :])
            closing = end if stop < 0 else closing
        if slash:
            line = re.sub(r"(?:^|(?<=\s)|(?<=[;,{})]))//.*", "", line)
        if hash_:
            line = re.sub(r"(?:^|\s)#.*", "", line)
        yield raw, line


def _blocks(suffix: str) -> tuple[tuple[str, str], ...]:
    """What opens and closes a comment, or a text that is prose, over several lines."""
    if suffix in _SLASH:
        return (("/*", "*/"), ("<!--", "-->")) if suffix in (".vue", ".svelte") else (("/*", "*/"),)
    if suffix == ".py":
        return ('"""', '"""'), ("'''", "'''")
    return (("<!--", "-->"),) if suffix in (".html", ".htm") else ()


def _files(folder: Path) -> Iterator[Path]:
    """Files that may be linted; links are not followed, they may lead anywhere."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED_FOLDERS)
        for name in names:
            path = Path(root, name)
            if not path.is_symlink() and path.is_file():
                yield path


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST_BYTES:
            return ""
        return path.read_text("utf-8", "replace")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def _added_lines(git: Git, commit: str, name: str) -> set[int]:
    output = git.run("diff", "--no-ext-diff", "--no-color", "--relative", "-U0", commit, "--", name)
    added: set[int] = set()
    for start, count in re.findall(
        r"^@@ -\S+ \+(\d+)(?:,(\d+))? @@", output.stdout.decode("utf-8", "replace"), re.M
    ):
        added.update(range(int(start), int(start) + int(count or 1)))
    return added
