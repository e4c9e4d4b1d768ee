"""Three features at once by the real `autocoder parallel`, the real SDK and the stub."""

import json
import os
import subprocess
import sys
from pathlib import Path

from autocoder.core.events import EVENTS_FILE, Event, Outcome, ToolEnd, decode, last_progress
from autocoder.core.store import FeatureDraft, ProjectStore
from support.agents import KEY, clean_environment
from support.model_stub import Mcp, Say, Shell, Step, model_stub
from support.repositories import git, make_repository

SERVE = """
python3 -m http.server --bind 127.0.0.1 "$AUTOCODER_WEB_PORT" >"$TMPDIR/web.log" 2>&1 &
while ! curl -sf "http://localhost:$AUTOCODER_WEB_PORT/README.md"; do sleep 0.1; done
echo "$AUTOCODER_AGENT_ID $AUTOCODER_API_PORT $AUTOCODER_WEB_PORT" > "by-$AUTOCODER_FEATURE_ID.txt"
"""
OTHERS = ("OPENAI_API_KEY", "CODEX_API_KEY", "GEMINI_API_KEY")
COMMIT = 'git add -A && git commit -q -m "Feature $AUTOCODER_FEATURE_ID"'


ANOTHER_KEY = "dummy-key-of-another-provider"


def events_of(folder: Path) -> list[Event]:
    lines = (folder / EVENTS_FILE).read_bytes().splitlines()
    return [event for line in lines if (event := decode(line)) is not None]


def test_three_agents_finish_three_features_on_three_pairs(tmp_path: Path, ports: range) -> None:
    project = make_repository(tmp_path / "todo")
    store = ProjectStore(project / "agent_system.db")
    store.add_features([FeatureDraft(f"Feature {n}", "See. [script:work]") for n in (1, 2, 3)])
    store.close()
    steps: list[Step] = [Mcp("ports_get"), Shell(SERVE), Shell("env"), Shell(COMMIT), Say("Done.")]
    with model_stub(work=steps) as stub:
        environ = clean_environment(tmp_path / "home", stub) | {
            "AUTOCODER_PORTS_API": f"{ports[0]}-{ports[9]}",
            "AUTOCODER_PORTS_WEB": f"{ports[20]}-{ports[29]}",
            "AUTOCODER_LEDGER_URL": f"sqlite:///{tmp_path}/ledger.db",
            "AUTOCODER_LIMITS_AGENT_MINUTES": "2",
            # Without a browser: npx would fetch its server.
            "AUTOCODER_YOLO": "true",
            **dict.fromkeys(OTHERS, ANOTHER_KEY),
        }
        command = ("parallel", "--project-dir", str(project), "--parallel", "3", "--json")
        done = subprocess.run(
            [sys.executable, "-m", "autocoder.core.cli", *command, "--backend", "claude"],
            env=environ,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["features"]["done"] == 3
    assert report["agents"]["completed"] == 3
    assert report["leases"]["granted"] == report["leases"]["released"] == 3
    assert report["eaddrinuse"] == 0
    notes = [git(project, "show", f"main:by-{number}.txt").split() for number in (1, 2, 3)]
    assert len({agent for agent, _, _ in notes}) == 3
    assert len({port for _, *pair in notes for port in pair}) == 6
    for agent, api, web in notes:
        folder = project / ".autocoder" / "agents" / agent
        assert int(api) in range(ports[0], ports[10])
        assert int(web) in range(ports[20], ports[30])
        answered, *_, environment, _ = (
            event.detail for event in events_of(folder) if isinstance(event, ToolEnd)
        )
        answer = json.loads(answered)
        assert (answer["agent_id"], answer["api_port"], answer["web_port"]) == (
            agent,
            int(api),
            int(web),
        )
        assert f"AUTOCODER_WEB_PORT={web}" in environment
        progress = last_progress(folder)
        assert progress.outcome is Outcome.SUCCESS
        assert progress.tokens > 0
        for written in folder.iterdir():
            if written.is_file():
                text = written.read_text(errors="replace")
                assert KEY not in text, written
                assert ANOTHER_KEY not in text, written
    assert KEY not in done.stdout + done.stderr
    assert os.environ.get("ANTHROPIC_API_KEY") != KEY
