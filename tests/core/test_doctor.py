"""`autocoder doctor` and `autocoder config` on real folders, sockets and settings."""

import json
import socket
from pathlib import Path

import pytest

from autocoder.core.doctor import Finding, Status, examine
from autocoder.core.settings import documented, load_settings
from support.commands import autocoder
from support.repositories import make_repository


def found(project: Path, **environ: str) -> dict[str, Finding]:
    settings = load_settings(project, environ=environ)
    return {finding.check: finding for finding in examine(project, settings)}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "project")


def test_a_good_project_has_nothing_that_fails(project: Path) -> None:
    findings = found(project)
    assert {f.check for f in findings.values() if f.status is Status.FAIL} == set()
    assert findings["pool api"].detail == "5000-5099: 98 of 100 ports usable"
    assert findings["backend scripted"].detail == "built in (chosen)"
    assert {"git", "project", "disk", "state folder", "open files", "fence"} <= findings.keys()


def test_whatever_is_not_well_has_a_remedy(project: Path) -> None:
    findings = found(project, AUTOCODER_FENCE="off", AUTOCODER_LIMITS_MIN_FREE_MIB="9999999")
    for finding in findings.values():
        assert bool(finding.remedy) is (finding.status is not Status.OK), finding
    assert findings["disk"].status is Status.FAIL
    assert findings["memory"].status is Status.FAIL


def test_a_range_the_kernel_uses_itself_is_named(project: Path) -> None:
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    environ = {
        "AUTOCODER_API_PORT_RANGE_START": str(low + 1),
        "AUTOCODER_API_PORT_RANGE_END": str(low + 50),
    }
    finding = found(project, **environ)["pool api"]
    assert finding.status is Status.FAIL
    assert f"below {low}" in finding.remedy


def test_who_listens_in_a_pool_is_named(project: Path, ports: range) -> None:
    environ = {
        "AUTOCODER_API_PORT_RANGE_START": str(ports[0]),
        "AUTOCODER_API_PORT_RANGE_END": str(ports[50]),
        "AUTOCODER_WEB_PORT_RANGE_START": str(ports[50]),
        "AUTOCODER_WEB_PORT_RANGE_END": str(ports[99]),
    }
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", ports[3]))
        listener.listen()
        finding = found(project, **environ)["listeners"]
    assert finding.status is Status.WARN
    assert f"{ports[3]}: pid" in finding.detail


def test_a_folder_that_is_no_project_fails_with_the_command_that_helps(tmp_path: Path) -> None:
    finding = found(tmp_path)["project"]
    assert finding.status is Status.FAIL
    assert "git init" in finding.remedy or "init" in finding.remedy


def test_one_line_a_check_and_exit_1_where_one_fails(project: Path, tmp_path: Path) -> None:
    good = autocoder("doctor", "-C", project, "--json")
    lines = json.loads(good.out)
    assert good.code == 0
    assert all(line.keys() == {"check", "status", "detail", "remedy"} for line in lines)
    assert {line["status"] for line in lines} <= {"ok", "warn"}
    assert autocoder("doctor", "-C", tmp_path).code == 1


def test_broken_settings_are_one_finding_and_hide_no_other(project: Path) -> None:
    ran = autocoder("doctor", "-C", project, "--json", environ={"AUTOCODER_PARALLEL": "many"})
    first, *others = json.loads(ran.out)
    assert ran.code == 1
    assert (first["check"], first["status"]) == ("settings", "fail")
    assert "$AUTOCODER_PARALLEL" in first["detail"]
    assert len(others) > 10


def test_doctor_changes_nothing(project: Path) -> None:
    autocoder("doctor", "-C", project)
    assert {path.name for path in project.iterdir()} == {".git", "README.md"}


def test_config_shows_every_setting_with_who_said_so(project: Path) -> None:
    (project / "autocoder.toml").write_text('parallel = 7\npreset = "cheap"\n')
    ran = autocoder("config", "-C", project, "--json", environ={"AUTOCODER_PORTS_MAX_PORTS": "500"})
    entries = {entry["name"]: entry for entry in json.loads(ran.out)}
    assert entries.keys() == {name for name, *_ in documented()}
    assert entries["parallel"]["value"] == 7
    assert entries["parallel"]["origin"] == str(project / "autocoder.toml")
    assert entries["ports.max_ports"]["origin"] == "$AUTOCODER_PORTS_MAX_PORTS"
    assert entries["limits.attempts"]["origin"] == "preset cheap"
    assert entries["ports.api"] == entries["ports.api"] | {
        "value": [[5000, 5100]],
        "origin": "default",
    }
    assert "parallel" in autocoder("config", "-C", project).out


def test_each_backend_says_how_to_get_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "autocoder.toml").write_text(
        '[backends.mine]\ncommand = ["sh", "{worktree}"]\n'
        '[backends.gone]\ncommand = ["no-such-agent"]\n'
        '[backends.wrong]\ncommand = ["sh", "{promt}"]\n'
    )
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    for name in ("codex", "chromium", "playwright-mcp"):
        path = project.parent / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    findings = found(project, AUTOCODER_BACKEND="aider")
    assert findings["backend mine"].status is Status.OK
    assert findings["backend gone"].status is Status.WARN
    assert "[backends.gone]" in findings["backend gone"].remedy
    assert findings["backend wrong"].status is Status.FAIL
    assert "{promt}" in findings["backend wrong"].detail
    assert findings["backend aider"].detail == "aider is not installed (chosen)"
    assert findings["backend aider"].remedy == "pipx install aider-chat"
    assert findings["backend aider"].status is Status.FAIL
    assert findings["backend codex"].remedy == "npm install -g @openai/codex"
    monkeypatch.setenv("PATH", f"{project.parent / 'bin'}:/usr/bin:/bin")
    findings = found(project, AUTOCODER_BACKEND="codex")
    assert findings["backend codex"].detail.endswith("bin/codex (chosen)")
    assert findings["browser"].detail.endswith("bin/playwright-mcp")
