import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from autocoder.core.cli.ports import ports_app
from support.sockets import listen, reserved_ports


@dataclass
class Answer:
    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, object]:
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found

    @property
    def refusal(self) -> dict[str, object]:
        found = json.loads(self.err)
        assert isinstance(found, dict)
        return found


class Shell:
    """Runs `autocoder ports ...` in this process, in a project with pools of its own."""

    def __init__(self, project: Path, environ: dict[str, str]) -> None:
        self.project = project
        self.environ = environ

    def __call__(self, *arguments: str) -> Answer:
        given = [arguments[0], "-C", str(self.project), *arguments[1:]]
        result = CliRunner().invoke(ports_app, given, env=self.environ)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Answer(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def api() -> Iterator[range]:
    with reserved_ports(20) as ports:
        yield ports[:10]


@pytest.fixture
def shell(tmp_path: Path, api: range) -> Shell:
    project = tmp_path / "a project"
    project.mkdir()
    web = api.stop
    (project / "autocoder.toml").write_text(
        f"[ports]\napi = [[{api.start}, {api.stop}]]\nweb = [[{web}, {web + 10}]]\n"
    )
    ledger = tmp_path / "ledger.db"
    return Shell(
        project,
        {"AUTOCODER_LEDGER_URL": f"sqlite:///{ledger}", "XDG_CONFIG_HOME": str(tmp_path)},
    )


def test_a_lease_is_printed_as_shell_assignments(shell: Shell, api: range) -> None:
    answer = shell("lease", "me")
    assert answer.out.splitlines() == [
        f"export AUTOCODER_API_PORT={api[0]}",
        f"export AUTOCODER_WEB_PORT={api.stop}",
    ]


def test_a_lease_as_json_has_the_documented_keys(shell: Shell, api: range) -> None:
    document = shell("lease", "me", "--json").document
    assert document == {
        "holder": "me",
        "api_port": api[0],
        "web_port": api.stop,
        "epoch": 1,
    }


def test_a_lease_ends_with_its_process(shell: Shell) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as script:
        shell("lease", "script", "--pid", str(script.pid))
        assert len(shell("status", "--json").document["leases"]) == 2  # type: ignore[arg-type]
    answer = shell("status", "--json")
    states = {lease["state"] for lease in answer.document["leases"]}  # type: ignore[attr-defined]
    assert states <= {"releasing", "cooling"}
    assert "the lease of script has ended" in answer.err


def test_nothing_is_leased_that_nobody_would_hold(shell: Shell) -> None:
    shell.environ["AUTOCODER_PORTS_MODE"] = "os"
    answer = shell("lease", "nightly", "--pid", str(os.getpid()), "--json")
    assert answer.code == 3
    assert "as soon as this command has ended" in str(answer.refusal["message"])
    assert "AUTOCODER_PORTS_MODE=pool" in str(answer.refusal["hint"])
    assert shell("status", "--json").document["leases"] == []


def test_status_has_the_documented_keys(shell: Shell, api: range) -> None:
    shell("lease", "me")
    document = shell("status", "--json").document
    assert set(document) >= {
        "host_id",
        "pools",
        "port_allocation_failures",
        "consecutive_failures",
        "leases",
    }
    assert document["pools"]["api"] == {  # type: ignore[index]
        "ranges": [[api.start, api.stop]],
        "total": 10,
        "usable": 10,
        "leased": 1,
        "cooling": 0,
        "quarantined": 0,
        "available": 9,
        "capacity_percent": 10,
    }
    assert set(document["leases"][0]) >= {  # type: ignore[index]
        "port",
        "role",
        "state",
        "holder",
        "pid",
        "leased_at",
    }


def test_status_for_people_tells_how_to_begin(shell: Shell) -> None:
    assert "autocoder ports lease NAME" in shell("status").out


def test_status_names_who_listens(shell: Shell, api: range) -> None:
    with listen(api[0]):
        shell("lease", "me")
        answer = shell("status")
    row = next(line for line in answer.out.splitlines() if line.startswith(str(api[0])))
    assert "quarantined" in row
    assert str(os.getpid()) in row


def test_a_name_cannot_steer_the_terminal(shell: Shell, tmp_path: Path) -> None:
    shell("lease", "me")
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as file, file:
        file.execute("UPDATE port_leases SET holder = ?", ("\x1b]0;owned\x07\x1b[2Jme",))
    assert "\x1b" not in shell("status").out


def test_a_pair_is_given_back(shell: Shell, api: range) -> None:
    shell("lease", "me")
    assert shell("release", "me", "--json").document == {
        "holder": "me",
        "released": [api[0], api.stop],
    }
    assert shell("release", "me").code == 3


def test_a_live_agents_pair_is_not_given_back_by_hand(shell: Shell, tmp_path: Path) -> None:
    shell("lease", "a-1", "--pid", str(os.getpid()))
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as file, file:
        file.execute("UPDATE port_leases SET project = '/project'")
    answer = shell("release", "a-1", "--json")
    assert answer.code == 3
    assert "agents stop a-1" in str(answer.refusal["hint"])


def test_a_dead_agents_pair_is_given_back_by_one_of_its_ports(
    shell: Shell, tmp_path: Path, api: range
) -> None:
    pair = shell("lease", "gone", "--pid", str(os.getpid()), "--json").document
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as file, file:
        file.execute("UPDATE port_leases SET project = '/elsewhere', pid_start = 1")
    answer = shell("release", str(api[0]), "--json")
    assert answer.document["released"] == [pair["api_port"], pair["web_port"]]


def test_a_port_of_a_live_holder_is_not_given_back_by_hand(shell: Shell, api: range) -> None:
    shell("lease", "alive", "--pid", str(os.getpid()))
    answer = shell("release", str(api[0]), "--json")
    assert answer.code == 3
    assert f"held by alive, whose process {os.getpid()} lives" in str(answer.refusal["message"])


def test_a_probe_tells_who_keeps_a_port_out_and_that_it_is_free_again(
    shell: Shell, api: range
) -> None:
    with listen(api[0]):
        shell("lease", "one")
        assert f"used by {os.getpid()} " in shell("probe", str(api[0])).out
    assert shell("probe", str(api[0]), "--json").document == {"port": api[0], "lease": None}


def test_a_pool_grows_and_shrinks(shell: Shell) -> None:
    with reserved_ports(5) as more:
        span = f"{more[0]}-{more[-1]}"
        added = shell("expand", "api", span, "--json").document
        assert added == {"pool": "api", "added": [more.start, more.stop]}
        assert f"lost {span}" in shell("shrink", "api").out


def test_exhaustion_is_exit_code_3_with_the_figures(shell: Shell) -> None:
    shell.environ["AUTOCODER_PORTS_AUTO_EXPAND"] = "false"
    for number in range(10):
        assert shell("lease", f"s-{number}").code == 0
    answer = shell("lease", "one-more", "--json")
    assert answer.code == 3
    assert answer.refusal["error"] == "PoolExhausted"
    assert (answer.refusal["usable"], answer.refusal["leased"]) == (10, 10)
    assert answer.out == ""


def test_check_is_quiet_about_a_sound_ledger(shell: Shell) -> None:
    shell("lease", "me")
    answer = shell("check", "--json")
    assert (answer.code, answer.document) == (0, {"ok": True, "findings": []})


def test_check_finds_a_leak_and_repair_mends_it(shell: Shell, tmp_path: Path, api: range) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as worker:
        shell("lease", "a-1", "--pid", str(worker.pid))
        with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as file, file:
            file.execute("UPDATE port_leases SET project = '/project'")
    answer = shell("check", "--json")
    assert answer.code == 1
    kinds = {(f["kind"], f["port"]) for f in answer.document["findings"]}  # type: ignore[attr-defined]
    assert kinds == {("leak", api[0]), ("leak", api.stop)}
    assert shell("repair").code == 0
    assert shell("check").code == 0


def test_lint_tells_file_and_line_and_fails(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "server.js").write_text("\napp.listen(3000)\n")
    result = CliRunner().invoke(ports_app, ["lint", str(tmp_path / "server.js")])
    assert result.exit_code == 1
    assert "server.js:2: 3000 (listen)" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("lease", "me", "--ttl", "soon"), "--ttl 'soon' is no time"),
        (("lease", "me", "--ttl", "0s"), "cannot end after 0 s"),
        (("lease", "me", "--ttl", "999999d"), "cannot end after"),
        (("lease", ""), "name of a holder"),
        (("lease", "a\x1b[31m"), "name of a holder"),
        (("lease", "me", "--address", "10.1.2.3"), "[[pools]]"),
        (("expand", "api", "many"), "'many' is neither"),
        (("expand", "api", "7000-"), "'7000-' is neither"),
        (("expand", "api", "7049-7000"), "no range of ports"),
        (("expand", "api", "0"), "extended by 0"),
        (("expand", "api", "1-99999"), "no range of ports"),
        (("shrink", "web"), "not extended"),
        (("shrink", "web", "7000-7001"), "not extended by 7000-7001"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_names_what_is_wrong(
    arguments: tuple[str, ...], words: str, shell: Shell
) -> None:
    answer = shell(*arguments, "--json")
    assert answer.code == 2
    assert words in str(answer.refusal["message"])


@pytest.mark.parametrize(
    "arguments",
    [
        ("expand", "db"),
        ("lease",),
        ("lease", "me", "--pid", "-1"),
        ("release",),
        ("lease", "a", "b"),
    ],
)
def test_what_the_parser_refuses_is_exit_code_2(arguments: tuple[str, ...], shell: Shell) -> None:
    assert shell(*arguments).code == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("lease", "me", "--pid", "4194305"), "no process 4194305"),
        (("release", "nobody"), "holds no ports"),
        (("expand", "api", "32768-32770"), "kernel hands out"),
    ],
)
def test_a_refusal_by_state_changes_nothing(
    arguments: tuple[str, ...], words: str, shell: Shell
) -> None:
    answer = shell(*arguments, "--json")
    assert answer.code in (2, 3)
    assert words in str(answer.refusal["message"])
    assert shell("status", "--json").document["leases"] == []


def test_a_project_that_is_not_there_is_said() -> None:
    result = CliRunner().invoke(ports_app, ["status", "-C", "/nowhere/at/all"])
    assert result.exit_code == 2
    assert "/nowhere/at/all is not a folder" in result.stderr


def test_a_bad_environment_value_is_said_by_name(shell: Shell) -> None:
    shell.environ["AUTOCODER_API_PORT_RANGE_START"] = "many"
    answer = shell("status")
    assert answer.code == 2
    assert "$AUTOCODER_API_PORT_RANGE_START" in answer.err


def test_every_command_shows_an_example_in_its_help() -> None:
    names = [command.name or command.callback.__name__ for command in ports_app.registered_commands]  # type: ignore[union-attr]
    assert set(names) == {
        "status", "lease", "release", "probe", "expand", "shrink", "check", "repair", "lint"
    }  # fmt: skip
    for name in names:
        help_text = CliRunner().invoke(ports_app, [name, "--help"]).stdout
        assert f"autocoder ports {name}" in help_text


def test_a_reader_that_goes_away_is_no_error(shell: Shell) -> None:
    code = "from autocoder.core.cli.ports import ports_app; ports_app()"
    command = [sys.executable, "-c", code, "status", "-C", str(shell.project), "--json"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | shell.environ,
        text=True,
    ) as child:
        assert child.stdout is not None
        child.stdout.close()
        assert child.stderr is not None
        assert child.stderr.read() == ""
