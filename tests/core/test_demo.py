import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from autocoder.core.composition import run_demo
from autocoder.core.demo import BASE, make_demo_project
from autocoder.core.errors import AutocoderError, GitError, ProjectError
from autocoder.core.settings import load_settings
from support.scripted_runs import AgentRun, git, held_pair
from support.waiting import wait_until

LOWEST = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
EPHEMERAL = f"{LOWEST}-{LOWEST + 9}"

SCRIPTS = {
    path.parent.name: json.loads(path.read_text())
    for path in sorted((BASE.parent / "features").glob("*/script.json"))
}


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    return make_demo_project(tmp_path / "the demo, größer")


def backlog(project: Path) -> list[dict[str, Any]]:
    features = json.loads((project / "backlog.json").read_text())["features"]
    assert isinstance(features, list)
    return [{"id": number, **feature} for number, feature in enumerate(features, 1)]


def run_tests(project: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "unittest"], cwd=project, capture_output=True, text=True
    )


# --------------------------------------------------------------- the folder


def test_it_is_a_clean_repository_on_main_with_a_history(demo: Path) -> None:
    assert git(demo, "branch", "--show-current") == "main"
    assert git(demo, "status", "--porcelain") == ""
    assert len(git(demo, "log", "--format=%s").splitlines()) >= 3


def test_it_has_an_identity_of_its_own_for_commits_and_merges(demo: Path) -> None:
    assert git(demo, "config", "--local", "user.email") == "demo@localhost"
    assert git(demo, "log", "-1", "--format=%an <%ae>") == "Todo Demo <demo@localhost>"


def test_two_of_them_are_alike(tmp_path: Path) -> None:
    trees = {
        git(make_demo_project(tmp_path / name), "rev-parse", "HEAD^{tree}") for name in ("a", "b")
    }
    assert len(trees) == 1


def test_an_empty_folder_is_filled_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert make_demo_project(Path()) == tmp_path
    assert Path("backlog.json").is_file()


def test_a_relative_path_is_answered_with_the_absolute_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert make_demo_project(Path("todo")) == tmp_path / "todo"


def test_a_folder_with_something_in_it_is_refused_and_unchanged(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(ProjectError, match="is not empty"):
        make_demo_project(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ProjectError, match="file is a file"):
        make_demo_project(tmp_path / "file")
    with pytest.raises(ProjectError, match="cannot be made"):
        make_demo_project(tmp_path / "file" / "todo")


@pytest.mark.parametrize("exists", [True, False])
def test_nothing_is_left_behind_where_git_is_missing(
    exists: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "todo"
    if exists:
        folder.mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    with pytest.raises(GitError, match="git is not installed"):
        make_demo_project(folder)
    assert list(tmp_path.rglob("*")) == ([folder] if exists else [])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"base": "develop"}, "the demo has no branch 'develop'"),
        ({"ports.api": EPHEMERAL}, f"{EPHEMERAL} overlaps"),
        ({"ui.host": "0.0.0.0"}, "can be reached from other hosts"),
        ({"ledger_url": "sqlite:////proc/ledger.db"}, "/proc/ledger.db cannot be written"),
    ],
)
def test_what_would_be_refused_with_it_is_refused_before_there_is_one(
    wrong: dict[str, object], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    ledger = {"ledger_url": f"sqlite:///{tmp_path}/ledger.db"}

    with pytest.raises(AutocoderError, match=re.escape(said)):
        run_demo(lambda _: 0, ledger | wrong, served="ui.host" in wrong)

    assert list(temporary.iterdir()) == []


def test_a_repository_around_it_is_left_alone(
    tmp_path: Path, demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = git(demo, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(demo / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(demo / ".git" / "index"))
    other = make_demo_project(tmp_path / "other")
    monkeypatch.undo()
    assert git(demo, "rev-parse", "HEAD") == before
    assert git(other, "status", "--porcelain") == ""


# ------------------------------------------------------------- what is in it


def test_its_settings_are_read_as_asked(tmp_path: Path) -> None:
    project = make_demo_project(tmp_path / "todo", parallel=7, step_s=0, misbehave=False)
    settings = load_settings(project, environ={}, user_config=tmp_path / "none.toml")
    assert (settings.parallel, settings.backend) == (7, "scripted")
    assert (settings.scripted.step_s, settings.scripted.misbehave) == (0, False)
    assert settings.limits.retry_s <= 2


def test_its_own_tests_pass(demo: Path) -> None:
    done = run_tests(demo)
    assert done.returncode == 0, done.stderr


def test_its_tests_see_a_port_in_a_source(demo: Path) -> None:
    (demo / "web" / "features" / "x.js").write_text("// x\nfetch('http://localhost:5001/api')\n")
    done = run_tests(demo)
    assert done.returncode == 1
    assert "web/features/x.js:2 names a port" in done.stderr


def test_the_backlog_has_twelve_features_and_two_dependencies(demo: Path) -> None:
    features = backlog(demo)
    assert len(features) == 12
    assert sum(len(feature.get("depends_on", [])) for feature in features) == 2
    for feature in features:
        assert {"name", "description", "category", "steps", "priority"} <= set(feature)


def test_every_feature_has_a_script_and_every_misbehaviour_is_shown_once(demo: Path) -> None:
    scripted = [script["feature"] for script in SCRIPTS.values()]
    assert sorted(scripted) == sorted(str(feature["name"]) for feature in backlog(demo))
    shown = sorted(script["misbehave"] for script in SCRIPTS.values() if "misbehave" in script)
    assert shown == ["crash", "hard_code_a_port", "leave_a_server", "print_escapes"]


# ------------------------------------------------------------ all of it built


@pytest.fixture
def finished(demo: Path) -> Path:
    """The project after all twelve features were done, four at a time, and merged."""
    open_features, done = backlog(demo), set[object]()
    while open_features:
        wave = [f for f in open_features if set(f.get("depends_on", [])) <= done][:4]
        with ExitStack() as pairs, ThreadPoolExecutor(4) as at_once:
            runs = [
                AgentRun(
                    demo, feature, pairs.enter_context(held_pair()), agent_id=f"a-{feature['id']}"
                ).prepare()
                for feature in wave
            ]
            for outcome in at_once.map(AgentRun.finish, runs):
                assert outcome.code == 0, outcome.reason
        for run, feature in zip(runs, wave, strict=True):
            git(demo, "merge", "--quiet", "--no-edit", run.branch)
            done.add(feature["name"])
            open_features.remove(feature)
    return demo


@pytest.fixture
def page(finished: Path) -> Iterator[tuple[int, int]]:
    with held_pair() as (api, web):
        environment = os.environ | {
            "AUTOCODER_API_PORT": str(api),
            "AUTOCODER_WEB_PORT": str(web),
            "AUTOCODER_AGENT_ID": "",
        }
        servers = [
            subprocess.Popen([sys.executable, "-m", name], cwd=finished, env=environment)
            for name in ("api", "web")
        ]
        try:
            yield api, web
        finally:
            for server in servers:
                server.kill()
                server.wait()


def read(port: int, path: str) -> bytes:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200, path
        return answer.read()
    except ConnectionRefusedError:
        return b""
    finally:
        connection.close()


def test_twelve_features_done_side_by_side_become_one_app_that_works(
    finished: Path, page: tuple[int, int]
) -> None:
    done = run_tests(finished)
    assert done.returncode == 0, done.stderr
    assert git(finished, "status", "--porcelain") == ""
    api, web = page
    config = json.loads(wait_until(lambda: read(web, "/config.json"), what="the page answers"))
    assert config["api"] == f"http://localhost:{api}"
    assert config["modules"] == [f"/features/{name}.js" for name in SCRIPTS]
    for path in ("/", "/app.js", "/style.css", *config["modules"], *config["styles"]):
        assert read(web, path)
    assert wait_until(lambda: read(api, "/api/todos"), what="the API answers") == b"[]"
