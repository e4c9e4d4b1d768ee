"""What a project is built with, told from its manifest files, and how to start it on given ports.

Only names are read, nothing is run: the files are an agent's or a stranger's work.
Every finding names its evidence, so that a wrong guess can be seen to be one.
"""

import json
import os
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autocoder.core.models import Role

LARGEST_FILE = 1 << 20
MOST_FOLDERS = 200
DEEPEST = 3
MOST_STARTED = 4
"""Programs whose start is said when an agent has ended."""

SKIPPED = frozenset(
    {"node_modules", "vendor", "target", "dist", "build", "venv", "env", "site-packages"}
    | {"__pycache__", "fixtures", "testdata"}
)


@dataclass(frozen=True, slots=True)
class Stack:
    """One program of the project that listens on a port."""

    name: str
    """vite, next, fastapi, go ..."""
    role: Role
    folder: str
    """Where to start it, relative to the project; "." for its root."""
    evidence: tuple[str, ...]
    """The files and entries that told."""
    start: str
    """The command that starts it on this role's port, from `folder`."""
    note: str = ""
    """What to see to in the code."""


@dataclass(frozen=True, slots=True)
class Detection:
    stacks: tuple[Stack, ...]
    """By folder, then name; several where the project is mixed."""
    unreadable: tuple[str, ...] = ()
    """Manifests that could not be read, with why."""


def detect_stacks(project: Path) -> Detection:
    """Look through the project's manifests, at most three folders deep."""
    stacks: list[Stack] = []
    unreadable: list[str] = []
    for folder in _folders(project):
        where = folder.relative_to(project).as_posix()
        for reader in (_of_node, _of_python, _of_rust, _of_go):
            try:
                stacks += reader(folder, where)
            except _Unreadable as error:
                unreadable.append(str(error))
    return Detection(
        tuple(sorted(stacks, key=lambda stack: (stack.folder, stack.name))), tuple(unreadable)
    )


def suggestion(project: Path, *, api_port: int, web_port: int) -> dict[str, Any]:
    """What `detect_stack_and_suggest_ports` answers, ready for JSON."""
    found = detect_stacks(project)
    ports = {Role.API: api_port, Role.WEB: web_port}
    names = sorted({stack.name for stack in found.stacks})
    return {
        "stack": "mixed" if len(names) > 1 else names[0] if names else "unknown",
        "api_port": api_port,
        "web_port": web_port,
        "servers": [
            {
                "stack": stack.name,
                "role": stack.role.value,
                "folder": stack.folder,
                "port": ports[stack.role],
                "url": f"http://localhost:{ports[stack.role]}",
                "evidence": list(stack.evidence),
                "start": stack.start,
                **({"note": stack.note} if stack.note else {}),
            }
            for stack in found.stacks
        ],
        **({"unreadable": list(found.unreadable)} if found.unreadable else {}),
        **({} if names else {"hint": _NOTHING_FOUND}),
    }


def completion_message(
    folder: Path | None, *, branch: str, api_port: int, web_port: int, served: bool
) -> str:
    """Where the app of an agent that has ended was, and how to start it there again.

    `folder` has its work, if it is still there, and `branch` will have it; `served`:
    it was seen to listen. Empty where neither that nor a manifest tells of an app.
    """
    stacks = detect_stacks(folder).stacks if folder is not None else ()
    if not (stacks or served):
        return ""
    web, api = f"http://localhost:{web_port}", f"http://localhost:{api_port}"
    address = api if {stack.role for stack in stacks} == {Role.API} else web
    where = f"its app was at {address}" + ("" if address == api else f" (API {api})")
    if not stacks:
        return f"{where}; start it again from {branch} with PORT={api_port}, WEB_PORT={web_port}"
    starts = [_again(stack, api_port, web_port) for stack in stacks[:MOST_STARTED]]
    return f"{where}; start it again from {branch}: {'; '.join(starts)}; then open {address}"


def _again(stack: Stack, api_port: int, web_port: int) -> str:
    """The stack's command with the numbers of a pair, from the project's root."""
    command = stack.start
    for role, port in (("API", api_port), ("WEB", web_port)):
        variable = f"$AUTOCODER_{role}_PORT"
        command = command.replace(f'"{variable}"', str(port)).replace(variable, str(port))
    return command if stack.folder == "." else f"(cd {shlex.quote(stack.folder)} && {command})"


_NOTHING_FOUND = (
    "No manifest names a web framework. Start the API server with "
    'PORT="$AUTOCODER_API_PORT" and the web server with PORT="$AUTOCODER_WEB_PORT", and let the '
    "code read $PORT."
)
_API = '"$AUTOCODER_API_PORT"'
_WEB = '"$AUTOCODER_WEB_PORT"'


class _Unreadable(Exception):
    """A manifest that cannot be read; the message names it."""


def _folders(project: Path) -> Iterator[Path]:
    queue = [(project, 0)]
    for _ in range(MOST_FOLDERS):
        if not queue:
            return
        folder, depth = queue.pop(0)
        yield folder
        if depth < DEEPEST:
            try:
                with os.scandir(folder) as entries:
                    below = sorted(
                        entry.name
                        for entry in entries
                        if entry.is_dir(follow_symlinks=False)
                        and not entry.name.startswith(".")
                        and entry.name not in SKIPPED
                    )
            except OSError:
                continue  # a folder that may not be read holds nothing an agent could start
            queue += [(folder / name, depth + 1) for name in below]


def _read(path: Path, where: str) -> str | None:
    """The text of a regular file of reasonable size; None where there is none."""
    shown = path.name if where == "." else f"{where}/{path.name}"
    try:
        if path.is_symlink() or not path.is_file():
            return None
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise _Unreadable(f"{shown}: {error.strerror}") from error
    if len(data) > LARGEST_FILE:
        raise _Unreadable(f"{shown}: larger than {LARGEST_FILE >> 20} MiB")
    return data.decode("utf-8", "replace")


def _named(where: str, name: str) -> str:
    return name if where == "." else f"{where}/{name}"


# -------------------------------------------------------------------------- Node

_NODE: Sequence[tuple[str, str, Role, str, str]] = (
    # Package, stack, role, arguments after the dev script, note.
    ("next", "next", Role.WEB, f"--port {_WEB}", ""),
    ("nuxt", "nuxt", Role.WEB, f"--port {_WEB}", ""),
    ("astro", "astro", Role.WEB, f"--port {_WEB}", "Astro moves to the next port when taken."),
    ("@angular/cli", "angular", Role.WEB, f"--port {_WEB}", ""),
    ("react-scripts", "create-react-app", Role.WEB, "", "It takes its port from $PORT."),
    ("vite", "vite", Role.WEB, f"--port {_WEB} --strictPort", ""),
)
_NODE_SERVERS = ("express", "fastify", "koa", "@nestjs/core", "hono", "@hapi/hapi", "polka")


def _of_node(folder: Path, where: str) -> Iterator[Stack]:
    text = _read(folder / "package.json", where)
    if text is None:
        return
    manifest = _named(where, "package.json")
    try:
        package = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _Unreadable(f"{manifest}: no JSON") from error
    if not isinstance(package, dict):
        raise _Unreadable(f"{manifest}: no object")
    packages = {
        name: f"{manifest}: {kind}.{name}"
        for kind in ("devDependencies", "dependencies")
        for name in _table(package, kind)
    }
    scripts = _table(package, "scripts")
    run = _node_runner(folder)
    for name, stack, role, arguments, note in _NODE:
        if name in packages:
            script = next((s for s in ("dev", "start") if s in scripts), "")
            evidence = (packages[name], *([f"{manifest}: scripts.{script}"] if script else []))
            start = _node_start(run, script, arguments, name)
            if not arguments:
                start = f"PORT={_WEB} {start}"
            yield Stack(stack, role, where, evidence, start, note)
            break  # a framework brings vite along; the framework's own command is what counts
    for name in _NODE_SERVERS:
        if name in packages:
            script = next((s for s in ("server", "start", "dev") if s in scripts), "")
            start = f"{run} {script}" if script else "node ."
            yield Stack(
                "nest" if name.startswith("@nestjs") else name.rpartition("/")[2],
                Role.API,
                where,
                (packages[name], *([f"{manifest}: scripts.{script}"] if script else [])),
                f"PORT={_API} {start}",
                "The code must listen on process.env.PORT.",
            )
            break


def _node_runner(folder: Path) -> str:
    for lock, runner in (
        ("pnpm-lock.yaml", "pnpm run"),
        ("yarn.lock", "yarn run"),
        ("bun.lock", "bun run"),
        ("bun.lockb", "bun run"),
    ):
        if (folder / lock).is_file():
            return runner
    return "npm run"


def _node_start(run: str, script: str, arguments: str, package: str) -> str:
    if not script:
        binary = {"next": "next dev", "nuxt": "nuxt dev", "astro": "astro dev"}.get(package, "")
        return f"npx {binary or {'@angular/cli': 'ng serve'}.get(package, package)} {arguments}"
    # npm alone needs the dashes that hand arguments on; the others would pass them along.
    separator = " -- " if run == "npm run" and arguments else " "
    return f"{run} {script}{separator}{arguments}".rstrip()


def _table(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}


# -------------------------------------------------------------------------- Python

_REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9][\w.-]*)", re.MULTILINE)
_APPLICATION = re.compile(r"^(\w+)\s*(?::[^=\n]+)?=\s*(?:\w+\.)?(FastAPI|Flask)\(", re.MULTILINE)
_ENTRIES = ("main.py", "app.py", "server.py", "api.py", "asgi.py", "wsgi.py", "__init__.py")


def _of_python(folder: Path, where: str) -> Iterator[Stack]:
    evidence = dict(_python_requirements(folder, where))
    if _read(folder / "manage.py", where) is not None:
        found = (
            _named(where, "manage.py"),
            *([evidence["django"]] if "django" in evidence else []),
        )
        start = 'python manage.py runserver "127.0.0.1:$AUTOCODER_API_PORT"'
        yield Stack("django", Role.API, where, found, start)
    for name in ("fastapi", "flask"):
        if name not in evidence:
            continue
        entry, path = _python_entry(folder, where, "FastAPI" if name == "fastapi" else "Flask")
        found = (evidence[name], *([path] if path else []))
        if name == "fastapi":
            start = f"uvicorn {entry or 'main:app'} --host 127.0.0.1 --port {_API}"
        else:
            start = f"flask --app {entry or 'app'} run --port {_API}"
        yield Stack(name, Role.API, where, found, start)


def _python_requirements(folder: Path, where: str) -> Iterator[tuple[str, str]]:
    text = _read(folder / "pyproject.toml", where)
    if text is not None:
        manifest = _named(where, "pyproject.toml")
        try:
            document = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise _Unreadable(f"{manifest}: no TOML") from error
        project = _table(document, "project")
        listed = [project.get("dependencies"), *_table(project, "optional-dependencies").values()]
        listed += _table(document, "dependency-groups").values()
        for group in listed:
            for entry in group if isinstance(group, list) else ():
                if isinstance(entry, str) and (name := _REQUIREMENT.match(entry)):
                    yield name[1].lower(), f"{manifest}: dependencies {name[1]}"
        poetry = _table(_table(_table(document, "tool"), "poetry"), "dependencies")
        for package in poetry:
            yield package.lower(), f"{manifest}: tool.poetry.dependencies.{package}"
    for requirements in ("requirements.txt", "requirements-dev.txt", "Pipfile"):
        text = _read(folder / requirements, where)
        for found in _REQUIREMENT.finditer(text or ""):
            yield found[1].lower(), f"{_named(where, requirements)}: {found[1]}"


def _python_entry(folder: Path, where: str, kind: str) -> tuple[str, str]:
    """Module and variable of the application, and the file it is in; empty where not found."""
    packages = [folder / name for name in ("app", "src", "api", "server", "backend", "")]
    for package in packages:
        for entry in _ENTRIES:
            path = package / entry
            if package.is_symlink():
                continue
            text = _read(path, where)
            for found in _APPLICATION.finditer(text or ""):
                if found[2] == kind:
                    relative = path.relative_to(folder)
                    module = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
                    return f"{module}:{found[1]}", _named(where, relative.as_posix())
    return "", ""


# -------------------------------------------------------------------------- Rust and Go

_RUST = ("axum", "actix-web", "rocket", "warp", "poem", "salvo", "tide", "hyper")
_GO = {
    "github.com/gin-gonic/gin": "gin",
    "github.com/labstack/echo": "echo",
    "github.com/gofiber/fiber": "fiber",
    "github.com/go-chi/chi": "chi",
    "github.com/gorilla/mux": "gorilla",
}


def _of_rust(folder: Path, where: str) -> Iterator[Stack]:
    text = _read(folder / "Cargo.toml", where)
    if text is None:
        return
    manifest = _named(where, "Cargo.toml")
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise _Unreadable(f"{manifest}: no TOML") from error
    dependencies = _table(document, "dependencies")
    for name in _RUST:
        if name in dependencies:
            prefix = f"ROCKET_PORT={_API} " if name == "rocket" else f"PORT={_API} "
            note = "" if name == "rocket" else 'The code must read std::env::var("PORT").'
            evidence = (f"{manifest}: dependencies.{name}",)
            yield Stack("rust", Role.API, where, evidence, f"{prefix}cargo run", note)
            return


def _of_go(folder: Path, where: str) -> Iterator[Stack]:
    text = _read(folder / "go.mod", where)
    if text is None:
        return
    manifest = _named(where, "go.mod")
    frameworks = [f"{manifest}: {module}" for module in _GO if module in text]
    serves = _read(folder / "main.go", where) or ""
    if not frameworks and "net/http" not in serves:
        return
    evidence = frameworks or [manifest, f"{_named(where, 'main.go')}: net/http"]
    note = 'The code must read os.Getenv("PORT").'
    yield Stack("go", Role.API, where, tuple(evidence), f"PORT={_API} go run .", note)
