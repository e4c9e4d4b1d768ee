"""Readers on what real programs printed, and the runner with programs of the test's own."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocoder.core import telling
from autocoder.core.backends.choice import (
    availability,
    backend_command,
    check_backend,
    describe_tools,
    model_of,
    prompt_of,
    refuse_untellable,
    uses_prompt,
)
from autocoder.core.backends.parsers import PARSERS
from autocoder.core.backends.programs import PROGRAMS, own_command
from autocoder.core.backends.reporting import Reporter, concealer
from autocoder.core.backends.run import Run, read_run
from autocoder.core.errors import RefusedError, UsageError
from autocoder.core.events import (
    EVENTS_FILE,
    Event,
    Finished,
    Outcome,
    Progress,
    Retry,
    Started,
    Text,
    Told,
    ToolEnd,
    ToolStart,
    Usage,
    Warned,
    decode,
    folded,
    last_progress,
)
from autocoder.core.mcp_servers import ServedAgent
from autocoder.core.settings import (
    BACKENDS,
    CommandBackend,
    EnvSettings,
    LimitSettings,
    Settings,
)
from support.waiting import wait_until

CODEX = """
{"type":"thread.started","thread_id":"01a2"}
{"type":"turn.started"}
{"type":"error","message":"Reconnecting... 1/5 (exceeded retry limit, last status: 429 Too Many)"}
{"type":"item.started","item":{"id":"item_1","type":"command_execution","command":"/bin/bash -lc \
'echo hello'","aggregated_output":"","exit_code":null,"status":"in_progress"}}
{"type":"item.completed","item":{"id":"item_1","type":"command_execution","command":"/bin/bash \
-lc 'echo hello'","aggregated_output":"hello\\n","exit_code":0,"status":"completed"}}
{"type":"item.completed","item":{"id":"item_2","type":"file_change","changes":[{"path":"a.py",\
"kind":"update"}],"status":"completed"}}
{"type":"item.completed","item":{"id":"item_3","type":"agent_message","text":"All good."}}
{"type":"turn.completed","usage":{"input_tokens":200,"cached_input_tokens":0,"output_tokens":40}}
"""
CODEX_FAILED = """
{"type":"thread.started","thread_id":"01a2"}
{"type":"error","message":"unexpected status 401 Unauthorized: no"}
{"type":"turn.failed","error":{"message":"unexpected status 401 Unauthorized: no"}}
"""
OPENCODE = """
{"type":"step_start","timestamp":1,"sessionID":"ses_1","part":{"id":"p","type":"step-start"}}
{"type":"tool_use","timestamp":1,"sessionID":"ses_1","part":{"type":"tool","tool":"bash",\
"callID":"call_1","state":{"status":"completed","input":{"command":"echo hello"},\
"output":"hello\\n","metadata":{"exit":0},"title":"echo hello"}}}
{"type":"step_finish","timestamp":1,"sessionID":"ses_1","part":{"reason":"tool-calls",\
"tokens":{"input":100,"output":20,"reasoning":0,"cache":{"write":0,"read":0}},"cost":0.5}}
{"type":"text","timestamp":1,"sessionID":"ses_1","part":{"type":"text","text":"All good."}}
{"type":"step_finish","timestamp":1,"sessionID":"ses_1","part":{"reason":"stop",\
"tokens":{"input":100,"output":20,"reasoning":0,"cache":{"write":0,"read":0}},"cost":0.5}}
"""
OPENCODE_FAILED = """
{"type":"error","timestamp":1,"sessionID":"ses_1","error":{"name":"APIError","data":\
{"message":"no such key","statusCode":401,"isRetryable":false}}}
"""
GEMINI = """
{"type":"init","timestamp":"x","session_id":"bbb","model":"gemini-2.5-pro"}
{"type":"message","timestamp":"x","role":"user","content":"Do it"}
{"type":"tool_use","tool_name":"run_shell_command","tool_id":"t1","parameters":{"command":"echo"}}
{"type":"tool_result","tool_id":"t1","status":"success","output":"hello"}
{"type":"message","role":"assistant","content":"All ","delta":true}
{"type":"message","role":"assistant","content":"good.","delta":true}
{"type":"result","status":"success","stats":{"input_tokens":200,"output_tokens":40}}
"""
GEMINI_FAILED = """
{"type":"init","session_id":"bbb","model":"gemini-2.5-pro"}
{"type":"result","status":"error","error":{"type":"unknown","message":"[API Error: \
{\\"error\\":{\\"message\\":\\"API key not valid\\"}}]"},"stats":{"input_tokens":0}}
"""
CLAUDE = """
{"type":"system","subtype":"init","session_id":"c1","model":"sonnet"}
{"type":"assistant","message":{"content":[{"type":"tool_use","id":"t1","name":"Bash",\
"input":{"command":"echo"}}]}}
{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"t1","content":"hello"}]}}
{"type":"assistant","message":{"content":[{"type":"text","text":"All good."}]}}
{"type":"result","subtype":"success","is_error":false,"num_turns":2,"total_cost_usd":0.1,\
"usage":{"input_tokens":150,"cache_read_input_tokens":50,"output_tokens":40}}
"""
CLAUDE_FAILED = """
{"type":"result","subtype":"success","is_error":true,"result":"Failed to authenticate. API \
Error: 401","usage":{},"num_turns":1}
"""
PRINTED = Path(__file__).parents[1] / "agents" / "printed"
"""What aider 0.86.2 and mini-swe-agent 2.4.6 printed when they ran against the stub."""


def printed(name: str) -> str:
    return (PRINTED / f"{name}.txt").read_text("utf-8")


def read(name: str, output: str) -> tuple[list[Event], Finished | None, str]:
    parser = PARSERS[name](name)
    events = [event for line in output.strip().split("\n") for event in parser.read(line) or ()]
    return [*events, *parser.close()], parser.finished, parser.conversation


@pytest.mark.parametrize(
    ("name", "output", "conversation"),
    [
        ("codex", CODEX, "01a2"),
        ("opencode", OPENCODE, "ses_1"),
        ("gemini", GEMINI, "bbb"),
        ("claude", CLAUDE, "c1"),
    ],
)
def test_a_run_is_read_from_its_beginning_to_its_last_word(
    name: str, output: str, conversation: str
) -> None:
    events, finished, known_as = read(name, output)
    assert known_as == conversation
    assert finished == Finished(Outcome.SUCCESS)
    assert Text("All good.") in events
    (tool,) = [e for e in events if isinstance(e, ToolStart) and "echo" in e.detail]
    (end,) = [e for e in events if isinstance(e, ToolEnd) and "hello" in e.detail]
    assert tool.id == end.id
    assert end.ok
    progress = Progress()
    for event in events:
        progress = progress.after(event)
    assert (progress.input_tokens, progress.output_tokens) == (200, 40)
    assert progress.resume_id == conversation


@pytest.mark.parametrize(
    ("name", "output", "reason"),
    [
        ("codex", CODEX_FAILED, "401 Unauthorized"),
        ("opencode", OPENCODE_FAILED, "no such key (401)"),
        ("gemini", GEMINI_FAILED, "API error: API key not valid"),
        ("claude", CLAUDE_FAILED, "API Error: 401"),
        ("aider", printed("aider-fail"), "stub says invalid_api_key"),
        ("mini-swe-agent", printed("mini-fail"), "stub says invalid_api_key"),
        ("mini-swe-agent", printed("mini-format"), "RepeatedFormatError"),
    ],
)
def test_a_failure_is_the_programs_own_word_for_it(name: str, output: str, reason: str) -> None:
    _, finished, _ = read(name, output)
    assert finished is not None
    assert finished.outcome is Outcome.FAILED
    assert reason in finished.reason


def test_what_a_program_retries_is_told() -> None:
    events, _, _ = read("codex", CODEX)
    assert Retry("exceeded retry limit, last status: 429 Too Many", 1) in events
    events, _, _ = read("codex", CODEX_FAILED)
    assert Warned("unexpected status 401 Unauthorized: no") in events


def test_programs_that_speak_to_humans_are_read_too() -> None:
    events, finished, _ = read("aider", printed("aider-edit"))
    assert finished is None
    assert events == [
        Usage(100, 20, 0.00036, 1),
        ToolStart("", "edit", "search.txt"),
        ToolEnd("", ok=True),
    ]
    events, finished, _ = read("mini-swe-agent", printed("mini-work"))
    assert finished == Finished(Outcome.SUCCESS)
    assert [event for event in events if isinstance(event, Usage)] == [
        Usage(turns=1),
        Usage(turns=2),
    ]
    first, last = (event for event in events if isinstance(event, ToolStart))
    assert first.detail.startswith("echo hi > a.txt && git add -A")
    assert last == ToolStart("", "bash", "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT")


def test_a_service_that_is_down_is_a_retry_with_its_reason_and_no_failure_yet() -> None:
    events, finished, _ = read("aider", printed("aider-down"))
    assert finished is None
    said = "litellm.InternalServerError: InternalServerError: OpenAIException - stub says"
    assert events[0] == Retry(f"{said} server_error", wait_s=0.2)
    assert len(events) == 5


@given(st.sampled_from(sorted(PARSERS)), st.lists(st.text()))
def test_no_line_stops_a_reader(name: str, lines: list[str]) -> None:
    read(name, "\n".join(lines))


@pytest.mark.parametrize("name", ["codex", "opencode", "gemini", "claude"])
def test_messages_of_another_version_do_not_stop_a_reader(name: str) -> None:
    odd = [
        '{"type": "item.completed", "item": 3}',
        '{"type": "result"}',
        '{"type": "tool_use", "part": []}',
        '{"type": 7}',
        '{"type": "error"}',
        '{"type": "assistant", "message": {"content": [null]}}',
        "[" * 50_000,
        "not json",
    ]
    parser = PARSERS[name](name)
    for line in odd:
        parser.read(line)
    assert parser.read("plain words") is None


# --------------------------------------------------------------------------- settings


def own(*command: str, parser: str = "text") -> Settings:
    return Settings(backend="mine", backends={"mine": CommandBackend(command, parser)})


def test_every_backend_of_the_settings_has_a_way_to_be_run() -> None:
    for name in BACKENDS:
        command = backend_command(Settings(backend=name), Path("/run/run.json"), {})
        assert command[0] == sys.executable
        assert availability(name, Settings(backend=name)).detail


def test_values_stay_one_argument_each() -> None:
    settings = own("my-agent", "--say={prompt}", "{worktree}")
    values = {"prompt": "two words; $(rm -rf /)\n", "worktree": "/w w"}
    command = backend_command(settings, Path("/run/run.json"), values)
    assert command[-3:] == ["my-agent", "--say=two words; $(rm -rf /)\n", "/w w"]
    assert uses_prompt(settings)
    assert not uses_prompt(own("my-agent"))
    assert not uses_prompt(Settings(backend="scripted"))
    assert uses_prompt(Settings(backend="claude"))


def test_an_own_command_is_run_as_it_is_unless_its_log_could_show_a_credential(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def command(settings: Settings) -> list[str]:
        return backend_command(settings, Path("/run/run.json"), {})

    for name in [name for name in os.environ if name.endswith(("KEY", "TOKEN", "SECRET"))]:
        monkeypatch.delenv(name)
    assert command(own("my-agent", "-x")) == ["my-agent", "-x"]
    assert command(own("my-agent", parser="claude"))[0] == sys.executable
    # The worker withholds it, so it can stand in no log.
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1234567890")
    assert command(own("my-agent", "-x")) == ["my-agent", "-x"]
    passed = replace(own("my-agent"), env=EnvSettings(pass_=("OPENAI_API_KEY",)))
    assert command(passed)[0] == sys.executable
    monkeypatch.setenv("DEPLOY_TOKEN", "abcdefghijkl")
    assert command(own("my-agent", "-x"))[0] == sys.executable
    dropped = replace(own("my-agent"), env=EnvSettings(drop=("DEPLOY_TOKEN",)))
    assert command(dropped) == ["my-agent"]


def test_a_backend_that_is_not_installed_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(UsageError) as raised:
        check_backend(Settings(backend="codex"))
    assert "codex is not installed" in raised.value.message
    assert raised.value.hint == "npm install -g @openai/codex"
    check_backend(Settings(backend="scripted"))
    check_backend(own("./agent-in-the-worktree"))


@pytest.mark.parametrize("part", ["{promt}", "{", "{0}"])
def test_a_wrong_placeholder_is_named(part: str) -> None:
    with pytest.raises(UsageError, match=r"backends\.mine\.command"):
        check_backend(own("my-agent", part))


def test_only_backends_with_conversations_can_be_told_something() -> None:
    for name in ("claude", "codex", "opencode", "gemini"):
        refuse_untellable(name, Settings(backend=name))
    for settings in (Settings(backend="aider"), Settings(backend="scripted"), own("x")):
        with pytest.raises(RefusedError, match="cannot be told"):
            refuse_untellable(settings.backend, settings)


def test_credentials_are_concealed_wherever_they_are_repeated() -> None:
    conceal = concealer({"X_API_KEY": "sk-1234567890", "MY_TOKEN": "short", "PATH": "/usr/bin:/x"})
    assert (
        conceal("the key sk-1234567890, /usr/bin:/x short") == "the key [secret], /usr/bin:/x short"
    )
    assert concealer({})("as it is") == "as it is"


def test_a_run_with_a_model_is_given_its_tools_and_limits(tmp_path: Path) -> None:
    agent = ServedAgent(tmp_path, tmp_path / "x.db", tmp_path, "a-0001", 7, 5001, 5174)
    limits = LimitSettings(iterations=2, turns=30, budget_usd=1.5)
    settings = Settings(backend="claude", preset="cheap", limits=limits, yolo=True)
    tools = describe_tools(settings, agent, resume_id="c1")
    given = read_run(described(tmp_path, **tools), AN_AGENTS)
    assert (given.max_turns, given.budget_usd, given.resume_id) == (30, 1.5, "c1")
    assert set(given.mcp_servers) == {"features"}
    assert given.mcp_servers["features"]["env"]["AUTOCODER_WEB_PORT"] == "5174"
    assert prompt_of(settings) == "coding_yolo"
    assert describe_tools(Settings(), agent) == {}
    assert describe_tools(own("my-agent"), agent) == {}
    assert model_of(Settings(backend="codex")) == ""
    assert model_of(Settings(backend="claude", model="opus")) == "opus"
    assert model_of(settings) == "haiku"
    unlimited = read_run(described(tmp_path), AN_AGENTS)
    assert (unlimited.max_turns, unlimited.budget_usd) == (None, None)


# --------------------------------------------------------------------------- the runner

AN_AGENTS = {"AUTOCODER_API_PORT": "5001", "AUTOCODER_WEB_PORT": "5174"}


def described(folder: Path, **more: Any) -> Path:
    (folder / "prompt.md").write_text("Do it.\n")
    run_file = folder / "run.json"
    known = {
        "agent_id": "a-0001",
        "backend": "mine",
        "worktree": str(folder),
        "project_dir": str(folder),
        "prompt_file": str(folder / "prompt.md"),
        "feature": {"id": 7},
    }
    run_file.write_text(json.dumps(known | more))
    return run_file


def runner(run_file: Path, *arguments: str, **more: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "autocoder.core.backends.command", str(run_file)),
            *arguments,
        ],
        cwd=run_file.parent,
        env={**os.environ, **AN_AGENTS, **more.pop("environ", {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **more,
    )


def run(run_file: Path, *arguments: str, **more: Any) -> tuple[int, str]:
    with runner(run_file, *arguments, **more) as process:
        output, _ = process.communicate(timeout=30)
        return process.returncode, output


def program(folder: Path, name: str, text: str) -> Mapping[str, str]:
    """A program of that name, first on PATH."""
    path = folder / "programs" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!{sys.executable} -IS\n" + textwrap.dedent(text))
    path.chmod(0o755)
    return {"PATH": f"{path.parent}:{os.environ['PATH']}"}


def events(folder: Path) -> list[Event]:
    lines = (folder / EVENTS_FILE).read_bytes().splitlines()
    return [event for line in lines if (event := decode(line)) is not None]


def test_an_own_command_speaks_for_itself(tmp_path: Path) -> None:
    run_file = described(tmp_path)
    code, output = run(run_file, "--", "sh", "-c", "echo one; echo two >&2; printf three; exit 3")
    assert code == 3
    assert output.splitlines() == ["one", "two", "three"]
    assert last_progress(tmp_path).outcome is Outcome.FAILED
    assert run(run_file, "--", "true") == (0, "")


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    code, output = run(described(tmp_path), "--", "no-such-agent", "x")
    assert code == 127
    assert output == "no-such-agent cannot be started: No such file or directory\n"


def test_a_signal_that_ended_the_program_is_passed_on(tmp_path: Path) -> None:
    code, _ = run(described(tmp_path), "--", "sh", "-c", "kill -SEGV $$")
    assert code == -signal.SIGSEGV


def test_a_program_that_lies_with_its_exit_code_is_not_believed(tmp_path: Path) -> None:
    environ = program(tmp_path, "aider", f"print({printed('aider-fail')!r})")
    run_file = described(tmp_path, backend="aider")
    code, output = run(run_file, "--program", "aider", environ=environ)
    assert code == 1
    assert "stub says invalid_api_key" in output.splitlines()[-1]
    environ = program(tmp_path, "gemini", f"print({GEMINI!r}); raise SystemExit(145)")
    assert run(run_file, "--program", "gemini", environ=environ)[0] == 0


def test_a_server_left_with_the_output_open_does_not_hold_the_run(tmp_path: Path) -> None:
    code, output = run(described(tmp_path), "--", "sh", "-c", "sleep 20 & echo done")
    assert (code, output) == (0, "done\n")


def test_no_secret_is_printed_or_reported(tmp_path: Path) -> None:
    environ = program(
        tmp_path,
        "codex",
        f"import os; print({CODEX!r}.replace('hello', os.environ['CODEX_API_KEY']))",
    )
    environ = {**environ, "CODEX_API_KEY": "sk-very-secret-1"}
    run_file = described(tmp_path, backend="codex")
    code, output = run(run_file, "--program", "codex", environ=environ)
    assert code == 0
    assert "[secret]" in output
    assert "sk-very-secret-1" not in output + (tmp_path / EVENTS_FILE).read_text()


def test_a_program_gets_its_prompt_model_and_servers(tmp_path: Path) -> None:
    environ = program(
        tmp_path,
        "codex",
        """
        import json, os, sys
        json.dump([sys.argv, sys.stdin.read(), dict(os.environ)], open("seen.json", "w"))
        """,
    )
    server = {"command": "py", "args": ["-m", "x y"], "env": {"A_B": 'quote " and $x'}}
    run_file = described(tmp_path, backend="codex", model="gpt-x", mcp_servers={"features": server})
    assert run(run_file, "--program", "codex", environ=environ)[0] == 0
    arguments, prompt, seen = json.loads((tmp_path / "seen.json").read_text())
    assert prompt == "Do it.\n"
    assert arguments[arguments.index("-m") + 1] == "gpt-x"
    assert 'mcp_servers.features.args=["-m", "x y"]' in arguments
    assert 'mcp_servers.features.env={"A_B" = "quote \\" and $x"}' in arguments
    assert seen["AUTOCODER_API_PORT"] == "5001"


def test_an_interrupted_run_says_so(tmp_path: Path) -> None:
    with runner(described(tmp_path), "--", "sh", "-c", "echo begun; exec sleep 60") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(20) == 130
    assert isinstance(events(tmp_path)[-1], Finished)
    assert last_progress(tmp_path).outcome is Outcome.INTERRUPTED


def test_a_message_starts_the_program_again_in_the_same_conversation(tmp_path: Path) -> None:
    environ = program(
        tmp_path,
        "codex",
        """
        import json, sys, time
        print(json.dumps({"type": "thread.started", "thread_id": "01a2"}), flush=True)
        if "resume" not in sys.argv:
            time.sleep(60)
        text = " ".join(sys.argv[:4]) + sys.stdin.read()
        item = {"id": "1", "type": "agent_message", "text": text}
        print(json.dumps({"type": "item.completed", "item": item}))
        usage = {"input_tokens": 1, "output_tokens": 1}
        print(json.dumps({"type": "turn.completed", "usage": usage}))
        """,
    )
    run_file = described(tmp_path, backend="codex")
    with runner(run_file, "--program", "codex", environ=environ) as process:
        wait_until(
            lambda: (
                (tmp_path / EVENTS_FILE).exists() and last_progress(tmp_path).resume_id == "01a2"
            ),
            seconds=20,
        )
        telling.tell(tmp_path, "Leave the page as it is.")
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "told  Leave the page as it is." in output
    assert Told("Leave the page as it is.") in events(tmp_path)
    (said,) = [event.text for event in events(tmp_path) if isinstance(event, Text)]
    assert "exec resume 01a2" in said
    assert "Leave the page as it is." in said


def test_an_earlier_conversation_is_taken_up_again(tmp_path: Path) -> None:
    environ = program(tmp_path, "opencode", "import sys; print(sys.argv)")
    run_file = described(tmp_path, backend="opencode", resume_id="ses_9")
    _, output = run(run_file, "--program", "opencode", environ=environ)
    assert "'--session', 'ses_9'" in output
    assert "taken up again" in output
    started = events(tmp_path)[0]
    assert started == Started("opencode", "", "ses_9", resumed=True)


def test_a_conversation_that_is_gone_begins_anew(tmp_path: Path) -> None:
    environ = program(
        tmp_path,
        "codex",
        """
        import json, sys
        if "resume" in sys.argv:
            sys.exit("no rollout found for thread id 01a2")
        print(json.dumps({"type": "thread.started", "thread_id": "02b3"}))
        item = {"id": "1", "type": "agent_message", "text": sys.stdin.read()}
        print(json.dumps({"type": "item.completed", "item": item}))
        usage = {"input_tokens": 1, "output_tokens": 1}
        print(json.dumps({"type": "turn.completed", "usage": usage}))
        """,
    )
    run_file = described(tmp_path, backend="codex", resume_id="01a2")
    code, output = run(run_file, "--program", "codex", environ=environ)
    assert code == 0, output
    assert "no rollout found" in output
    assert "begins anew" in output
    assert last_progress(tmp_path).resume_id == "02b3"
    assert Text("Do it.\n") in events(tmp_path)


def test_a_run_description_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"agent_id": 1}')
    with pytest.raises(UsageError, match=r"run\.json"):
        read_run(tmp_path / "run.json", {})
    code, output = run(tmp_path / "run.json", "--", "true")
    assert code == 1
    assert "run.json" in output


def test_every_known_program_is_started_with_the_prompt(tmp_path: Path) -> None:
    run_file = described(tmp_path, model="m")
    described_run: Run = read_run(run_file, AN_AGENTS)
    for known in PROGRAMS.values():
        invocation = known.start(described_run)
        assert invocation.command[0] == known.executable
        given = invocation.stdin + " ".join(invocation.command)
        assert "Do it." in given or str(tmp_path / "prompt.md") in given
        if known.resume is not None:
            again = known.resume(described_run, "id-1", "And now?")
            assert "id-1" in again.command
            assert "And now?" in again.stdin
    assert own_command(["./x", "y"]).start(described_run).command == ("./x", "y")


def test_a_reporter_prints_for_humans_and_writes_for_the_panel(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    reporter = Reporter(tmp_path, {})
    for event in (
        Started("codex", "m"),
        ToolStart("1", "shell", "pytest\n-q"),
        ToolEnd("1", False, "\n".join(map(str, range(40)))),
        Usage(10, 5, 0.25, 1),
        Finished(Outcome.SUCCESS),
    ):
        reporter.report(event)
    lines = capfdbinary.readouterr().out.decode().splitlines()
    assert lines[0] == "codex with m"
    assert lines[1:3] == ["tool  shell  pytest", "      -q"]
    assert lines[3] == "      failed: 0"
    assert lines[-2] == "      (29 more lines)"
    assert lines[-1] == "finished (15 tokens, $0.25)"
    assert folded((tmp_path / EVENTS_FILE).read_bytes().splitlines()).output_tokens == 5
