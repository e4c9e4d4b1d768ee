import json
import os
from pathlib import Path

import pytest

from autocoder.core.models import PortRange, Role
from autocoder.core.policy import Scope, refusal
from autocoder.core.stacks import LARGEST_FILE, completion_message, detect_stacks, suggestion
from support.repositories import write

NODE = {"scripts": {"dev": "x"}}

PROJECTS: dict[str, tuple[dict[str, str], list[tuple[str, Role, str]]]] = {
    "vite": (
        {"package.json": json.dumps(NODE | {"devDependencies": {"vite": "^8"}})},
        [("vite", Role.WEB, 'npm run dev -- --port "$AUTOCODER_WEB_PORT" --strictPort')],
    ),
    "next with pnpm": (
        {
            "package.json": json.dumps(NODE | {"dependencies": {"next": "16", "react": "19"}}),
            "pnpm-lock.yaml": "",
        },
        [("next", Role.WEB, 'pnpm run dev --port "$AUTOCODER_WEB_PORT"')],
    ),
    "express": (
        {
            "package.json": json.dumps(
                {"dependencies": {"express": "5"}, "scripts": {"start": "node ."}}
            )
        },
        [("express", Role.API, 'PORT="$AUTOCODER_API_PORT" npm run start')],
    ),
    "fastapi": (
        {
            "pyproject.toml": '[project]\nname = "x"\ndependencies = ["fastapi[standard]>=0.1"]\n',
            "app/main.py": "from fastapi import FastAPI\n\napi: FastAPI = FastAPI(title='x')\n",
        },
        [
            (
                "fastapi",
                Role.API,
                'uvicorn app.main:api --host 127.0.0.1 --port "$AUTOCODER_API_PORT"',
            )
        ],
    ),
    "flask": (
        {"requirements.txt": "Flask==3.1\npytest\n", "app.py": "app = Flask(__name__)\n"},
        [("flask", Role.API, 'flask --app app:app run --port "$AUTOCODER_API_PORT"')],
    ),
    "django": (
        {"manage.py": "", "requirements.txt": "# web\nDjango>=5\n"},
        [("django", Role.API, 'python manage.py runserver "127.0.0.1:$AUTOCODER_API_PORT"')],
    ),
    "rust": (
        {"Cargo.toml": '[package]\nname = "x"\n[dependencies]\naxum = "0.8"\n'},
        [("rust", Role.API, 'PORT="$AUTOCODER_API_PORT" cargo run')],
    ),
    "go": (
        {"go.mod": "module x\n", "main.go": 'package main\nimport "net/http"\n'},
        [("go", Role.API, 'PORT="$AUTOCODER_API_PORT" go run .')],
    ),
    "mixed": (
        {
            "web/package.json": json.dumps(NODE | {"devDependencies": {"vite": "8"}}),
            "server/go.mod": "module x\nrequire github.com/gin-gonic/gin v1.10\n",
        },
        [
            ("go", Role.API, 'PORT="$AUTOCODER_API_PORT" go run .'),
            ("vite", Role.WEB, 'npm run dev -- --port "$AUTOCODER_WEB_PORT" --strictPort'),
        ],
    ),
    "nothing": ({"README.md": "a text\n"}, []),
    "a library of Rust": ({"Cargo.toml": "[dependencies]\nserde = '1'\n"}, []),
}


@pytest.mark.parametrize("name", PROJECTS)
def test_a_stack_is_told_from_manifests(name: str, tmp_path: Path) -> None:
    files, expected = PROJECTS[name]
    write(tmp_path, files)
    found = detect_stacks(tmp_path)
    assert [(stack.name, stack.role, stack.start) for stack in found.stacks] == expected
    assert all(stack.evidence for stack in found.stacks)
    assert not found.unreadable


@pytest.mark.parametrize("name", PROJECTS)
def test_every_suggested_command_may_run(name: str, tmp_path: Path) -> None:
    write(tmp_path, PROJECTS[name][0])
    scope = Scope(5001, 5174, (PortRange(5000, 5300),), tmp_path, Path("/nowhere"), "main")
    for stack in detect_stacks(tmp_path).stacks:
        assert refusal(stack.start, scope) is None


def test_a_mixed_project_gets_each_server_on_the_port_of_its_role(tmp_path: Path) -> None:
    write(tmp_path, PROJECTS["mixed"][0])
    answer = suggestion(tmp_path, api_port=5001, web_port=5174)
    assert answer["stack"] == "mixed"
    assert [(server["folder"], server["port"], server["url"]) for server in answer["servers"]] == [
        ("server", 5001, "http://localhost:5001"),
        ("web", 5174, "http://localhost:5174"),
    ]
    assert json.dumps(answer)


def test_a_project_without_a_stack_is_told_what_to_do(tmp_path: Path) -> None:
    answer = suggestion(tmp_path, api_port=5001, web_port=5174)
    assert answer["stack"] == "unknown"
    assert "$AUTOCODER_API_PORT" in answer["hint"]


def test_manifests_that_cannot_be_read_are_named_and_the_others_still_count(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "package.json": "{",
            "a/package.json": "[1]",
            "b/pyproject.toml": "= =",
            "c/Cargo.toml": "x" * (LARGEST_FILE + 1),
            "d/go.mod": "module d\nrequire github.com/go-chi/chi v5\n",
            "e/package.json": "[" * 100_000,
            "f/package.json": '{"scripts": 3, "dependencies": ["vite"]}',
        },
    )
    found = detect_stacks(tmp_path)
    assert [stack.folder for stack in found.stacks] == ["d"]
    assert [text.partition(":")[0] for text in found.unreadable] == [
        "package.json",
        "a/package.json",
        "b/pyproject.toml",
        "c/Cargo.toml",
        "e/package.json",
    ]


def test_links_and_installed_packages_are_not_followed(tmp_path: Path) -> None:
    outside, project = tmp_path / "outside", tmp_path / "project"
    write(outside, PROJECTS["vite"][0])
    write(project / "node_modules" / "x", PROJECTS["vite"][0])
    (project / "link").symlink_to(outside)
    (project / "package.json").symlink_to(outside / "package.json")
    os.mkfifo(project / "go.mod")
    assert detect_stacks(project).stacks == ()


def ended(folder: Path | None, *, served: bool = False) -> str:
    return completion_message(folder, branch="main", api_port=5001, web_port=5174, served=served)


def test_an_ended_agents_app_can_be_started_where_it_was(tmp_path: Path) -> None:
    write(tmp_path, PROJECTS["mixed"][0])
    message = ended(tmp_path)
    assert message.startswith("its app was at http://localhost:5174 (API http://localhost:5001);")
    assert "from main: " in message
    assert "(cd web && npm run dev -- --port 5174 --strictPort)" in message
    assert "(cd server && PORT=5001 go run .)" in message
    assert message.endswith("then open http://localhost:5174")


def test_an_api_alone_is_opened_at_its_own_port(tmp_path: Path) -> None:
    write(tmp_path, PROJECTS["django"][0])
    message = ended(tmp_path)
    assert 'manage.py runserver "127.0.0.1:5001"' in message
    assert message.endswith("then open http://localhost:5001")


def test_where_no_stack_is_known_the_ports_of_what_listened_are_still_said(tmp_path: Path) -> None:
    assert ended(tmp_path) == ended(None) == ""
    assert ended(None, served=True) == (
        "its app was at http://localhost:5174 (API http://localhost:5001); "
        "start it again from main with PORT=5001, WEB_PORT=5174"
    )
