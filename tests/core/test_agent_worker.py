"""The worker owns its whole tree: whatever its programs do, nothing of them outlives it."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from autocoder.core import agent_worker
from support.waiting import wait_until
from support.workers import is_alive, running_worker

SAY_PID = """
import os, sys
def say_pid(name):
    with open(name, "w") as file:
        file.write(f"{os.getpid()}\\n")
"""

ESCAPES = {
    "ignores SIGTERM": "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "a POSIX session of its own": "os.setsid()",
    "a double fork": "os.setsid()\nif os.fork(): os._exit(0)",
    "nohup": "signal.signal(signal.SIGHUP, signal.SIG_IGN); os.setsid()",
    "a cleared environment": (
        "if len(sys.argv) < 2: os.execve(sys.executable, "
        "[sys.executable, '-I', '-S', sys.argv[0], 'again'], {})"
    ),
}


@pytest.mark.parametrize("escape", ESCAPES.values(), ids=ESCAPES)
@pytest.mark.parametrize("ending", ["exits", "stop", "kill"])
def test_no_descendant_outlives_its_worker(
    tmp_path: Path, pair: tuple[int, int], escape: str, ending: str
) -> None:
    stray = SAY_PID + f"import signal\n{escape}\nsay_pid('stray')\nsignal.pause()\n"
    (tmp_path / "stray.py").write_text(stray)
    program = (
        SAY_PID
        + f"""
import signal, subprocess, time
subprocess.Popen([sys.executable, "-I", "-S", {str(tmp_path / "stray.py")!r}])
while not os.path.exists("stray") or not open("stray").read(): time.sleep(0.005)
say_pid("backend")
if {ending!r} != "exits": signal.pause()
"""
    )
    with running_worker(tmp_path, program, pair, limits={"stop_grace_s": 0.4}) as worker:
        stray_pid, backend_pid = worker.pids("stray", "backend")
        if ending != "exits":
            worker.process.send_signal(15 if ending == "stop" else 10)
        facts = worker.wait()

    assert not is_alive(stray_pid)
    assert not is_alive(backend_pid)
    assert facts["ending"] == {"exits": "exited", "stop": "stopped", "kill": "killed"}[ending]
    assert facts["survivors"] == 0
    assert len(facts["ports_free"]) == 2


def test_a_program_that_keeps_forking_away_is_caught(tmp_path: Path, pair: tuple[int, int]) -> None:
    hopper = """
import os, sys, time
while True:
    if os.fork(): os._exit(0)
    os.setsid()
    with open("hopper.new", "w") as file: file.write(f"{os.getpid()}\\n")
    os.rename("hopper.new", "hopper")
    time.sleep(0.03)
"""
    (tmp_path / "hopper.py").write_text(hopper)
    program = f"""
import subprocess, sys, signal
subprocess.Popen([sys.executable, "-I", "-S", {str(tmp_path / "hopper.py")!r}])
signal.pause()
"""
    with running_worker(tmp_path, program, pair) as worker:
        worker.pids("hopper")
        worker.process.send_signal(10)
        worker.wait()
        last = worker.pids("hopper")[0]

    assert not is_alive(last)
    assert worker.pids("hopper")[0] == last


def test_a_polite_program_may_finish_its_work_when_stopped(
    tmp_path: Path, pair: tuple[int, int]
) -> None:
    # By os.write: an interrupted print cannot be entered again.
    program = """
import os, signal
def finish(*_):
    os.write(1, b"saved\\n")
    os._exit(0)
signal.signal(signal.SIGINT, finish)
os.write(1, b"ready\\n")
signal.pause()
"""
    with running_worker(tmp_path, program, pair) as worker:
        worker.wait_for("ready")
        worker.process.terminate()
        facts = worker.wait()

    assert facts["ending"] == "stopped"
    assert facts["last_lines"] == ["ready", "saved"]


def test_a_server_left_behind_is_named_and_its_port_free_again(
    tmp_path: Path, pair: tuple[int, int]
) -> None:
    api, web = pair
    program = """
import os, subprocess, sys, socket, time
subprocess.Popen([sys.executable, "-m", "http.server", os.environ["WEB_PORT"]],
                 start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
while socket.socket().connect_ex(("127.0.0.1", int(os.environ["WEB_PORT"]))): time.sleep(0.01)
"""
    with running_worker(tmp_path, program, (api, web)) as worker:
        facts = worker.wait()

    assert any("http.server" in left for left in facts["left_behind"])
    assert facts["ports_free"] == [api, web]
    assert worker.says("exited, exit code 0; 1 process ended, 2 ports free")


def test_the_agents_own_server_binds_beside_the_placeholder_and_others_do_not(
    tmp_path: Path, pair: tuple[int, int]
) -> None:
    api, web = pair
    program = """
import os, socket
server = socket.create_server(("", int(os.environ["PORT"])))
print("serving", flush=True)
server.accept()
"""
    with running_worker(tmp_path, program, (api, web)) as worker:
        worker.wait_for("serving")
        for port in (api, web):
            with socket.socket() as other, pytest.raises(OSError, match="in use"):
                other.bind(("0.0.0.0", port))
        with socket.create_connection(("127.0.0.1", api)):
            facts = worker.wait()

    assert facts["exit_code"] == 0


def test_a_fenced_agent_cannot_bind_a_neighbours_port(tmp_path: Path, ports: range) -> None:
    api, web, neighbour = ports[:3]
    program = f"""
import socket
for port in (0, {api}, {web}):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", port))
print("own ports bound", flush=True)
try:
    socket.create_server(("127.0.0.1", {neighbour}))
except PermissionError as error:
    print(f"{{error}}: port {neighbour}", flush=True)
"""
    fence = {"mode": "neighbours", "pools": [[p, p + 1] for p in (api, web, neighbour)]}
    with running_worker(tmp_path, program, (api, web), fence=fence) as worker:
        facts = worker.wait()

    if not worker.says("(fenced)"):
        pytest.skip("this kernel has no Landlock network rules")
    assert worker.says("own ports bound")
    assert facts["foreign_ports"] == [neighbour]
    assert worker.says(f"port {neighbour} is not this agent's; use $AUTOCODER_API_PORT ({api})")


def test_an_agent_finds_its_ports_in_every_variable_and_no_others(
    tmp_path: Path, pair: tuple[int, int]
) -> None:
    api, web = pair
    program = "import json, os; json.dump(dict(os.environ), open('env.json', 'w'))"
    leaks = {
        "PORT": "3000",
        "HOST": "0.0.0.0",
        "NODE_ENV": "production",
        "PYTHONPATH": "/nowhere",
        "TMUX": "x",
        "COLUMNS": "80",
        "ANTHROPIC_API_KEY": "dummy",
        "OPENAI_API_KEY": "dummy",
        "AUTOCODER_LEDGER_URL": "sqlite:///x",
        "MY_TOOL": "kept",
        "SECRET_OF_MINE": "x",
    }
    with running_worker(
        tmp_path, program, (api, web), environ=leaks, env={"pass": [], "drop": ["SECRET_OF_MINE"]}
    ) as worker:
        worker.wait()

    env = json.loads((worker.worktree / "env.json").read_text())
    for name in ("AUTOCODER_API_PORT", "API_PORT", "PORT"):
        assert env[name] == str(api)
    for name in ("AUTOCODER_WEB_PORT", "WEB_PORT", "VITE_PORT"):
        assert env[name] == str(web)
    assert env["AUTOCODER_API_URL"] == f"http://localhost:{api}"
    assert env["AUTOCODER_AGENT_ID"] == "a-0001"
    assert env["AUTOCODER_RUN_FOLDER"] == str(worker.run_folder)
    assert env["MY_TOOL"] == "kept"
    assert not {"HOST", "NODE_ENV", "PYTHONPATH", "TMUX", "COLUMNS", "SECRET_OF_MINE"} & set(env)
    assert not {"ANTHROPIC_API_KEY", "OPENAI_API_KEY", "AUTOCODER_LEDGER_URL"} & set(env)


def test_an_agents_tmpdir_is_short_enough_for_sockets_its_own_and_gone_at_the_end(
    tmp_path: Path, pair: tuple[int, int]
) -> None:
    deep = tmp_path / ("deep" * 20)
    deep.mkdir()
    program = """
        import json, os, socket, stat
        folder = os.environ["TMPDIR"]
        with socket.socket(socket.AF_UNIX) as socket_:
            socket_.bind(os.path.join(folder, "s" * 45))
        mode = stat.S_IMODE(os.stat(folder).st_mode)
        with open("seen.json", "w") as seen:
            json.dump([folder, mode], seen)
    """
    with running_worker(deep, program, pair) as worker:
        assert worker.wait()["exit_code"] == 0
    folder, mode = json.loads((worker.worktree / "seen.json").read_text())
    assert mode == 0o700
    assert not Path(folder).exists()


def test_a_tmpdir_that_is_somebody_elses_is_not_used(tmp_path: Path) -> None:
    run_folder = tmp_path / ("deep" * 20)
    run_folder.mkdir()
    short = Path(agent_worker.temporary_folder(str(run_folder)))
    assert len(str(short)) <= agent_worker.LONGEST_TMPDIR
    short.mkdir(mode=0o755)
    try:
        assert agent_worker.make_temporary_folder(str(run_folder)) == str(run_folder / "tmp")
        agent_worker.remove_temporary_folder(str(run_folder))
        assert short.exists()
        short.chmod(0o700)
        assert agent_worker.make_temporary_folder(str(run_folder)) == str(short)
    finally:
        agent_worker.remove_temporary_folder(str(run_folder))
    assert not short.exists()


def test_a_backend_keeps_its_own_credentials_only() -> None:
    base = {"ANTHROPIC_API_KEY": "a", "OPENAI_API_KEY": "o"}

    env = agent_worker.agent_environment(
        base,
        agent_id="a-0001",
        feature_id=1,
        backend="codex",
        api_port=5000,
        web_port=5173,
        run_folder="/r",
        tmp_dir="/t",
    )

    assert "ANTHROPIC_API_KEY" not in env
    assert env["OPENAI_API_KEY"] == "o"


def test_an_active_virtual_environment_does_not_reach_the_agent() -> None:
    base = {"VIRTUAL_ENV": "/venv", "PATH": "/venv/bin:/usr/bin"}

    env = agent_worker.agent_environment(
        base,
        agent_id="a-0001",
        feature_id=1,
        backend="scripted",
        api_port=5000,
        web_port=5173,
        run_folder="/r",
        tmp_dir="/t",
    )

    assert "VIRTUAL_ENV" not in env
    assert env["PATH"] == "/usr/bin"


def test_a_program_that_cannot_be_started_is_named(tmp_path: Path, pair: tuple[int, int]) -> None:
    with running_worker(tmp_path, "", pair, command=["no-such-agent"]) as worker:
        facts = worker.wait()

    assert facts["ending"] == "not_started"
    assert facts["error"].startswith("no-such-agent cannot be started: No such file")


def test_a_signal_that_ended_the_backend_is_told(tmp_path: Path, pair: tuple[int, int]) -> None:
    with running_worker(tmp_path, "import os; os.abort()", pair) as worker:
        assert worker.wait()["exit_code"] == -6


def test_an_agent_that_says_nothing_for_too_long_is_stopped(
    tmp_path: Path, pair: tuple[int, int]
) -> None:
    program = "import signal; signal.pause()"
    limits = {"idle_limit_s": 0.2, "stop_grace_s": 0.2}
    with running_worker(tmp_path, program, pair, limits=limits) as worker:
        assert worker.wait()["ending"] == "idle_limit"


def test_a_writer_that_never_stops_does_not_keep_the_worker_from_ending(
    tmp_path: Path, pair: tuple[int, int]
) -> None:
    program = "import os\nwhile True: os.write(1, b'x' * 4096 + b'\\n')"
    with running_worker(tmp_path, program, pair) as worker:
        worker.wait_for("xxxx")
        worker.process.send_signal(10)
        assert worker.wait()["ending"] == "killed"


def test_eaddrinuse_is_counted_only_for_the_agents_own_ports(
    tmp_path: Path, pair: tuple[int, int]
) -> None:
    api, web = pair
    program = f"""
print("Error: listen EADDRINUSE: address already in use :::{api}")
print("Error: listen EADDRINUSE: address already in use :::4999")
print("2026-01-10 permission to land")
"""
    with running_worker(tmp_path, program, (api, web)) as worker:
        facts = worker.wait()

    assert facts["eaddrinuse"] == 1
    assert facts["foreign_ports"] == [4999]


def test_a_rotated_log_keeps_its_newest_half_whole(tmp_path: Path, pair: tuple[int, int]) -> None:
    program = "for number in range(4000): print(f'line {number:06d}', flush=number % 100 == 0)"
    limits = {"log_bytes": 20_000}
    with running_worker(tmp_path, program, pair, limits=limits) as worker:
        worker.wait()

    kept = (worker.run_folder / "log.1").read_text() + (worker.run_folder / "log").read_text()
    numbers = [int(line[5:]) for line in kept.splitlines() if line.startswith("line")]
    assert numbers == list(range(numbers[0], 4000))
    assert len(kept) <= 20_000 + 200


def test_the_time_index_says_when_the_output_came(tmp_path: Path, pair: tuple[int, int]) -> None:
    with running_worker(tmp_path, "print('hello')", pair) as worker:
        facts = worker.wait()

    first = (worker.run_folder / "log.times").read_text().splitlines()[0].split()
    assert first[0] == "0"
    assert facts["started_at"] - 1 <= float(first[1]) <= facts["ended_at"] + 1


def test_a_heartbeat_names_the_process_it_comes_from(tmp_path: Path, pair: tuple[int, int]) -> None:
    with running_worker(tmp_path, "import signal; signal.pause()", pair) as worker:
        path = worker.run_folder / "status.json"
        wait_until(path.exists)
        status = json.loads(path.read_text())

        assert status["pid"] == worker.process.pid
        assert status["start"] == agent_worker.start_ticks(worker.process.pid)


def test_a_worker_started_by_hand_takes_its_ports_from_the_environment(
    tmp_path: Path, pair: tuple[int, int]
) -> None:
    api, web = pair
    (tmp_path / "wt").mkdir()
    (tmp_path / "p").mkdir()
    environ = {"AUTOCODER_API_PORT": str(api), "AUTOCODER_WEB_PORT": str(web)}
    subprocess.run(["git", "init", "-q", str(tmp_path / "wt")], check=True)

    subprocess.run(
        [
            *(sys.executable, "-I", "-S", agent_worker.__file__, "--project-dir", "p"),
            *("--agent-id", "env-test-1", "--feature-id", "1", "--worktree-path", "wt"),
        ],
        cwd=tmp_path,
        env=os.environ | environ,
        check=False,
        timeout=30,
    )

    log = (tmp_path / "p/.autocoder/agents/env-test-1/log").read_text()
    assert f"on api {api}, web {web}" in log


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--api-port", "80"], "--api-port"),
        (["--api-port", "70000"], "--api-port"),
        (["--web-port", "x"], "--web-port"),
        (["--api-port", "5000", "--web-port", "5000"], "differ"),
        (["--agent-id", "../../etc"], "--agent-id"),
        (["--agent-id", "-rf"], "--agent-id"),
        (["--worktree-path", "/nonexistent"], "--worktree-path"),
        (["--feature-id", "seven"], "--feature-id"),
        (["--api-port=80"], "--api-port"),
        (["--colour", "red"], "--colour"),
        (["--model"], "--model"),
    ],
)
def test_a_bad_argument_is_refused_with_its_name(
    tmp_path: Path, arguments: list[str], named: str
) -> None:
    base = [
        *("--project-dir", str(tmp_path), "--agent-id", "a-1"),
        *("--feature-id", "1", "--worktree-path", str(tmp_path)),
    ]
    done = subprocess.run(
        [sys.executable, "-I", "-S", agent_worker.__file__, *base, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert named in done.stderr
    assert not (tmp_path / ".autocoder").exists()


def test_a_bad_port_in_the_environment_is_refused_by_its_variable(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-I", "-S", agent_worker.__file__),
            *("--project-dir", str(tmp_path), "--agent-id", "a-1"),
            *("--feature-id", "1", "--worktree-path", str(tmp_path)),
        ],
        env=os.environ | {"AUTOCODER_WEB_PORT": "http"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "$AUTOCODER_WEB_PORT" in done.stderr
