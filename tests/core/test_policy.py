"""A corpus of shell text with the verdict each must get, and real processes for `kill`."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from autocoder.core.models import PortRange
from autocoder.core.policy import Scope, refusal, refuse_path
from autocoder.core.prompts import SHIPPED

API, WEB = 5041, 5199
POOLS = (PortRange(5000, 5100), PortRange(5173, 5273))
WORKTREES = "/home/ada/todo-worktrees"
WORKTREE = f"{WORKTREES}/a-0f31"
TMP = "/home/ada/todo/.autocoder/agents/a-0f31/tmp"


def scope(**changes: object) -> Scope:
    known: dict[str, object] = {
        "api_port": API,
        "web_port": WEB,
        "pools": POOLS,
        "worktree": Path(WORKTREE),
        "project_dir": Path("/home/ada/todo"),
        "worktrees": Path(WORKTREES),
        "base": "main",
        "own_folders": (Path(TMP),),
        "variables": {"HOME": "/home/ada", "TMPDIR": TMP},
    }
    return Scope(**(known | changes))  # type: ignore[arg-type]


ALLOWED = [
    "",
    "# only a comment",
    "ls -la && git status --short",
    'PORT="$AUTOCODER_API_PORT" npm start > "$TMPDIR/api.log" 2>&1 &',
    'npm run dev -- --port "$AUTOCODER_WEB_PORT" --strictPort',
    "vite --port=$VITE_PORT",
    "npx next dev -p $AUTOCODER_WEB_PORT",
    "uvicorn main:app --host 127.0.0.1 --port ${AUTOCODER_API_PORT}",
    "uvicorn main:app --port ${PORT:-3000}",
    'python manage.py runserver "127.0.0.1:$AUTOCODER_API_PORT"',
    'curl -sS "http://localhost:$AUTOCODER_API_PORT/todos"',
    "curl $AUTOCODER_WEB_URL",
    "curl https://example.com:8080/x",
    "docker run -p $AUTOCODER_API_PORT:3000 app",
    "DATABASE_URL=postgres://localhost:5432/todo pytest -q",
    "redis-cli -p 6379 ping",
    'git commit -m "Listen on the port from the environment, not on 3000"',
    "git commit -F - <<'EOF'\nStop using http://localhost:3000\nEOF",
    'grep -rn "localhost:5173" src | head -n 3000',
    "sed -i 's/app.listen(3000)/app.listen(process.env.PORT)/' server.js",
    'echo "was on :8080 before"',
    "sleep 3000; seq 5000 5010",
    "lsof -i :3000",
    "ss -ltnp | grep 5173",
    "python -m http.server $AUTOCODER_WEB_PORT",
    "mkdir -p 3000",
    "kill %1",
    "npm start & SERVER=$!; kill $SERVER",
    "kill $!",
    'kill "$(cat "$TMPDIR/api.pid")"',
    "kill -TERM $SERVER_PID",
    "jobs -p | xargs kill",
    "kill -l",
    "pkill -P $$",
    "pgrep -af node",
    "git checkout main -- src/api.py",
    "git checkout -- .",
    "git checkout src/api.py",
    "git diff main...HEAD",
    "git merge main",
    "git rebase main",
    "git fetch origin",
    "git log main..",
    "git stash list",
    "git worktree list",
    "git branch --show-current",
    "git config user.email",
    "git -c user.name=A commit -m x",
    "cat src/../README.md",
    f"cat {WORKTREE}/README.md",
    "rm -rf node_modules dist",
    "cp /usr/share/dict/words .",
    "ls ~/.cache",
    f"echo hi > {TMP}/note",
    "find . -name '*.pyc' -exec rm {} +",
    "for f in a b; do\n  python -m json.tool $f.json\ndone",
    "cat <<EOF > notes.txt\ngit push\npkill node\nEOF",
    "bash scripts/build.sh",
    "awk '{ print $1 }' < data.txt | sort | uniq -c",
    "[[ $x =~ ^(a|b)$ ]] && echo yes",
    "test -f package.json || npm init -y",
    "python - <<'EOF'\nprint(1)\nEOF",
]

REFUSED = [
    # A port as a number, however it is written.
    ("PORT=3000 npm start", "$AUTOCODER_API_PORT"),
    ("export PORT=5000", "$AUTOCODER_API_PORT"),
    ("VITE_PORT=5173\nnpm run dev", "$AUTOCODER_WEB_PORT"),
    ("env NODE_ENV=test PORT=8080 npm start", "8080"),
    ("cross-env PORT=4000 node server.js", "4000"),
    ("vite --port 5173", "$AUTOCODER_WEB_PORT"),
    ("vite --port=5174", "5174"),
    ("next dev -p 3000", "3000"),
    ("next dev -p3000", "3000"),
    ("npm run dev -- --port '3001'", "3001"),
    ("P=3000; vite --port $P", "3000"),
    ("for p in 3000 3001; do vite --port $p & done", "3000"),
    (f"uvicorn main:app --port {API}", "yours, but write $AUTOCODER_API_PORT"),
    (f"curl http://localhost:{WEB}/", "yours, but write $AUTOCODER_WEB_PORT"),
    ("curl -s localhost:5042/todos", "5042"),
    ("curl http://127.0.0.1:5000/", "5000"),
    ("curl 'http://[::1]:5000/'", "5000"),
    ("gunicorn -b 0.0.0.0:8000 app:app", "8000"),
    ("go run . -addr :8080", "8080"),
    ("php -S localhost:8000", "8000"),
    ("python3 -m http.server 8000", "8000"),
    ("python manage.py runserver 8000", "8000"),
    ("flask run --port ${FLASK:-5000}", "5000"),
    ("docker run -d -p 8080:80 nginx", "8080"),
    ("bash -c 'PORT=3000 npm start'", "3000"),
    ('sh -lc "cd web && vite --port 5173"', "5173"),
    ("nohup setsid npx vite --port 5173 &", "5173"),
    ("(cd web; timeout 5 vite --port 5173) | tee log", "5173"),
    ("echo $(curl -s localhost:3000)", "3000"),
    ("x=`curl -s localhost:3000`", "3000"),
    ("diff <(curl localhost:3000) a", "3000"),
    ("bash <<'EOF'\nPORT=3000 npm start\nEOF", "3000"),
    ("AUTOCODER_API_PORT=5002 npm start", "stays as it is"),
    ("unset AUTOCODER_WEB_PORT", "stay as they are"),
    ("API_URL=http://localhost:5000 npm run build", "5000"),
    # Signals that meet others.
    ("pkill -f vite", "processes of other agents"),
    ("sudo killall node", "processes of other agents"),
    ("npx kill-port $PORT", "processes of other agents"),
    ("kill $(pgrep node)", "processes of other agents"),
    ("kill -9 $(lsof -t -i:3000)", "not known to be yours"),
    ("lsof -ti:3000 | xargs kill -9", "not known to be yours"),
    ("ps aux | grep node | awk '{print $2}' | xargs kill", "whose processes"),
    ("PID=$(pgrep vite); kill $PID", "processes of other agents"),
    ("for p in $(pidof node); do kill $p; done", "whose processes"),
    ("fuser -k 3000/tcp", "fuser -k"),
    ("fuser -vk $PORT_OF_A/tcp", "fuser -k"),
    ("kill -9 -1", "far more"),
    ("kill 1", "far more"),
    ("find /proc -name x -exec kill {} \\;", "whose processes"),
    ("timeout 5 pkill node", "processes of other agents"),
    ("systemctl restart nginx", "whole host"),
    # git beyond the agent's branch.
    ("git push", "nothing is pushed"),
    ("git -C . -c a.b=c push origin HEAD", "nothing is pushed"),
    ("git commit -am x && git push -f origin HEAD:main", "nothing is pushed"),
    ("true;git push&", "nothing is pushed"),
    ("echo 'git push' | sh", "nothing is pushed"),
    ("cat <<E | bash\ngit push\nE", "nothing is pushed"),
    ("eval 'git push'", "nothing is pushed"),
    ('"git" "pu"sh', "nothing is pushed"),
    ("\\git push", "nothing is pushed"),
    ("/usr/bin/git push", "nothing is pushed"),
    ("if make test\nthen git push\nfi", "nothing is pushed"),
    ("gh pr create --fill", "nothing is pushed"),
    ("git checkout main", "main is not checked out here"),
    ("git switch main", "main is not checked out here"),
    ("git checkout origin/main", "main is not checked out here"),
    ("git checkout -b another", "stay on your branch"),
    ("git branch -f main HEAD", "main belongs to everybody"),
    ("git branch -D main", "main belongs to everybody"),
    ("git update-ref refs/heads/main HEAD", "main belongs to everybody"),
    ("git fetch . HEAD:main", "main belongs to everybody"),
    ("git stash", "shared with all other worktrees"),
    ("git worktree add ../x", "worktrees are made"),
    ("git config --global user.name X", "shared with the user"),
    ("git gc --prune=now", "shared with all other worktrees"),
    # Other people's places.
    ("cd ..", "stay in your worktree"),
    ("cd ../a-0f32 && npm test", "stay in your worktree"),
    (f"cat {WORKTREES}/a-0f32/api.py", "stay in your worktree"),
    ("cd src && ls ../../a-0f32", "stay in your worktree"),
    ("cd /home/ada/todo", "the user's own checkout"),
    ("git -C ~/todo status", "the user's own checkout"),
    ("echo x > /home/ada/todo/README.md", "the user's own checkout"),
    ("cp --target-directory=/home/ada/todo a b", "the user's own checkout"),
    ("rm -rf ~", "other people's work"),
    # What cannot be read is not run.
    ("echo 'never closed", "cannot be read as shell"),
    ("bash -c \"$(printf 'bash -c %s' x\"", "cannot be read as shell"),
]


@pytest.mark.parametrize("command", ALLOWED)
def test_an_honest_command_runs(command: str) -> None:
    assert refusal(command, scope()) is None


@pytest.mark.parametrize(("command", "says"), REFUSED)
def test_a_command_that_reaches_beyond_is_refused_with_what_to_do(command: str, says: str) -> None:
    assert says in str(refusal(command, scope()))


@pytest.mark.parametrize("template", sorted(SHIPPED.glob("*.md")), ids=lambda path: path.stem)
def test_every_command_a_template_shows_may_run(template: Path) -> None:
    text = re.sub(r"\{\{[#/>]?\w+\}\}", "x", template.read_text())
    fenced = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    inline = re.findall(r"\| `((?:PORT=|npm |npx |uvicorn|flask|python|cargo|go )[^`]*)`", text)
    for command in (*fenced, *inline):
        assert refusal(command, scope()) is None, command


def test_templates_do_show_commands() -> None:
    assert "```sh\n" in (SHIPPED / "coding.md").read_text()
    assert "```sh\n" in (SHIPPED / "ports.md").read_text()


@pytest.fixture
def process() -> Iterator[int]:
    running = subprocess.Popen(["sleep", "60"])
    yield running.pid
    running.kill()
    running.wait()


def test_a_pid_may_be_killed_by_whoever_started_it_only(process: int) -> None:
    own = scope(is_own_process=lambda pid: pid == process)
    assert refusal(f"kill -9 {process}", own) is None
    assert f"process {os.getpid()} is not one you started" in str(
        refusal(f"kill -9 {process} {os.getpid()}", own)
    )


def test_a_pid_file_is_read_before_its_pid_is_killed(tmp_path: Path, process: int) -> None:
    (tmp_path / "api.pid").write_text(f"{process}\n")
    command = 'kill "$(cat api.pid)"'
    mine = scope(worktree=tmp_path, is_own_process=lambda pid: pid == process)
    other = scope(worktree=tmp_path, is_own_process=lambda pid: False)
    assert refusal(command, mine) is None
    assert f"process {process} in api.pid is not one you started" in str(refusal(command, other))


def test_what_listens_on_the_agents_own_port_may_be_ended_if_it_is_its_own() -> None:
    by_lsof = "kill $(lsof -ti:$AUTOCODER_API_PORT)"
    for listener, allowed in ((4711, True), (4712, False), (None, False)):
        seen = scope(
            is_own_process=lambda pid: pid == 4711,
            listener_pids=lambda port, pid=listener: (pid,) if port == API else (),
        )
        for command in (by_lsof, "lsof -t -i :$PORT | xargs kill", "fuser -k $PORT/tcp"):
            assert (refusal(command, seen) is None) == allowed, (command, listener)


def test_file_tools_keep_to_the_worktree() -> None:
    assert refuse_path("src/api.py", scope()) is None
    assert refuse_path(f"{WORKTREE}/src/api.py", scope()) is None
    assert refuse_path(f"{TMP}/note", scope()) is None
    assert "the user's own checkout" in str(refuse_path("/home/ada/todo/api.py", scope()))
    assert "not yours" in str(refuse_path("../a-0f32/api.py", scope()))


def test_deep_nesting_is_refused_and_does_not_hang() -> None:
    command = "git status"
    for _ in range(30):
        command = f"$({command})"
    assert "cannot be read" in str(refusal(command, scope()))


def test_hostile_text_gets_an_answer() -> None:
    for text in ("\0", "\ufffc", "\x1b]0;x\x07", "a" * 100_000, "$(" * 500, "kill \ufffc", "~\0/x"):
        verdict = refusal(text, scope())
        assert verdict is None or verdict.strip()
