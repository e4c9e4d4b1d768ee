"""The API over its real ways in: the control socket, and TCP with its token."""

import contextlib
import http.client
import json
import os
import re
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from autocoder.core import control
from autocoder.core.api import log_stream
from autocoder.core.api.log_stream import Position, parse_position, read_from
from autocoder.core.client import SOCKET, Client, NoOrchestrator, connect
from autocoder.core.control import TcpWay, api_token, tcp_way
from autocoder.core.errors import UsageError
from autocoder.core.settings import load_settings
from support.flood import flood
from support.projects import COMMITS, Project, Running
from support.waiting import wait_until

TOKEN = "t" * 43


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


class Api:
    """A running project, asked over its socket and over TCP."""

    def __init__(self, project: Project, run: Running, port: int) -> None:
        self.project = project
        self.run = run
        self.port = port

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """Over the control socket."""
        connection = http.client.HTTPConnection("localhost")
        connection.sock = connect(self.project.folder, 30)
        return _ask(connection, method, path, body, headers)

    def ask_tcp(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with_token = {"Authorization": f"Bearer {TOKEN}"} | headers
        given = {name: value for name, value in with_token.items() if value}
        return _ask(connection, method, path, body, given)


def _ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: object,
    headers: dict[str, str],
) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    content = None
    if method == "POST":
        named.setdefault("Content-Type", "application/json")
        content = body if isinstance(body, bytes) else json.dumps({} if body is None else body)
    with contextlib.closing(connection):
        connection.request(method, path, content, named)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())


@contextlib.contextmanager
def served(folder: Path, ports: range, program: str = COMMITS, **options: Any) -> Iterator[Api]:
    parallel = options.pop("parallel", 0)
    project = Project(folder, ports[:-1], program, **options)
    way = TcpWay("127.0.0.1", ports[-1], TOKEN, ("http://localhost:3000",))
    run = Running(project.open_served(way, parallel=parallel))
    try:
        run.wait_for(lambda _: True)
        yield Api(project, run, ports[-1])
    finally:
        run.stop()


@pytest.fixture
def api(tmp_path: Path, ports: range) -> Iterator[Api]:
    with served(tmp_path, ports) as made:
        yield made


def is_problem(answer: Answer, status: int) -> bool:
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "detail"} <= answer.json.keys()
    assert answer.json["status"] == status
    return True


# ------------------------------------------------------------------ who may ask


def test_the_socket_is_the_users_alone(api: Api) -> None:
    mode = (api.project.folder / SOCKET).stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_a_project_path_longer_than_a_socket_address_works(tmp_path: Path, ports: range) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    with served(deep, ports) as api:
        assert api.ask("GET", "/api/agents").status == 200


def test_every_route_over_tcp_wants_the_token(api: Api) -> None:
    document = api.ask("GET", "/openapi.json").json
    routes = [(verb.upper(), path) for path, verbs in document["paths"].items() for verb in verbs]
    routes += [("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/nothing")]
    assert len(routes) > 15
    for method, path in routes:
        for wrong in ("", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xe9"):
            answer = api.ask_tcp(method, path.replace("{agent_id}", "a-1"), Authorization=wrong)
            assert is_problem(answer, 401), path
            assert answer.headers["www-authenticate"] == "Bearer"


def test_a_name_rebound_to_loopback_is_not_ours(api: Api) -> None:
    for host in ("evil.example", f"evil.example:{api.port}", "localhost.evil.example", ""):
        assert is_problem(api.ask_tcp("GET", "/api/agents", Host=host or " "), 403)
    for host in (f"localhost:{api.port}", "127.0.0.1", "[::1]:80", "LOCALHOST"):
        assert api.ask_tcp("GET", "/api/agents", Host=host).status == 200


def test_pages_of_other_origins_may_not_ask(api: Api) -> None:
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": f"https://127.0.0.1:{api.port}"},
        {"Sec_Fetch_Site": "cross-site"},
    ):
        assert is_problem(
            api.ask_tcp("POST", "/api/ports/allocate", {"holder": "x"}, **headers), 403
        )
    for origin in (f"http://127.0.0.1:{api.port}", "http://localhost:3000"):
        assert api.ask_tcp("GET", "/api/agents", Origin=origin).status == 200


def test_a_form_cannot_be_sent_as_json(api: Api) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        answer = api.ask("POST", "/api/features", b'{"name": "x"}', Content_Type=kind or " ")
        assert is_problem(answer, 415)
    assert len(api.ask("GET", "/api/features").json) == 1


def test_a_preflight_of_a_known_origin_is_answered_without_the_token(api: Api) -> None:
    asked = {"Access_Control_Request_Method": "POST", "Authorization": ""}
    known = api.ask_tcp("OPTIONS", "/api/agents", Origin="http://localhost:3000", **asked)
    assert known.headers["access-control-allow-origin"] == "http://localhost:3000"
    other = api.ask_tcp("OPTIONS", "/api/agents", Origin="http://evil.example", **asked)
    assert "access-control-allow-origin" not in other.headers


# ------------------------------------------------------------------ how much and how often


def test_a_body_that_is_too_large_is_refused_before_it_is_read(api: Api) -> None:
    large = json.dumps({"name": "x" * 70_000}).encode()
    assert is_problem(api.ask("POST", "/api/features", large), 413)


def test_a_body_without_a_length_is_measured_too(api: Api) -> None:
    with contextlib.closing(connect(api.project.folder, 30)) as raw:
        raw.sendall(
            b"POST /api/features HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(40):
                raw.sendall(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
        assert b" 413 " in raw.recv(4096).split(b"\r\n")[0]


def test_a_body_that_does_not_come_is_not_waited_for(
    tmp_path: Path, ports: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autocoder.core.api import guard

    quick = guard.Limits(body_s=0.2)
    monkeypatch.setattr(guard, "Limits", lambda: quick)
    with (
        served(tmp_path, ports) as api,
        contextlib.closing(connect(tmp_path / "project", 30)) as raw,
    ):
        raw.sendall(
            b"POST /api/features HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 50\r\n\r\n{"
        )
        assert b" 408 " in raw.recv(4096).split(b"\r\n")[0]
        assert api.ask("GET", "/api/agents").status == 200


def test_a_client_that_floods_is_slowed_down_and_comes_back(
    tmp_path: Path, ports: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autocoder.core.api import guard

    few = guard.Limits(per_second=50, burst=5)
    monkeypatch.setattr(guard, "Limits", lambda: few)
    with served(tmp_path, ports) as api:
        statuses = [api.ask_tcp("GET", "/api/agents").status for _ in range(60)]
        assert 429 in statuses
        wait_until(lambda: api.ask_tcp("GET", "/api/agents").status == 200)
        # Others are not slowed down with it.
        assert api.ask("GET", "/api/agents").status == 200


def test_too_many_streams_are_refused_not_queued(
    tmp_path: Path, ports: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autocoder.core.api import guard

    few = guard.Limits(at_once=3)
    monkeypatch.setattr(guard, "Limits", lambda: few)
    with served(tmp_path, ports) as api, contextlib.ExitStack() as streams:
        for _ in range(3):
            raw = streams.enter_context(contextlib.closing(connect(api.project.folder, 30)))
            raw.sendall(b"GET /api/snapshots HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert raw.recv(100)
        assert is_problem(api.ask("GET", "/api/agents"), 429)


# ------------------------------------------------------------------ ports


def test_an_outside_holder_gets_a_pair_once_and_gives_it_back(api: Api) -> None:
    first = api.ask("POST", "/api/ports/allocate", {"holder": "e2e"})
    again = api.ask("POST", "/api/ports/allocate", {"holder": "e2e"})
    assert (first.status, again.status) == (201, 201)
    assert first.json == again.json
    assert first.json.keys() == {"holder", "api_port", "web_port", "epoch"}
    leased = [row for row in api.ask("GET", "/api/ports").json["leases"] if row["holder"] == "e2e"]
    assert {row["port"] for row in leased} == {first.json["api_port"], first.json["web_port"]}
    assert api.ask("POST", "/api/ports/release", {"holder": "e2e"}).status == 200
    assert api.ask("POST", "/api/ports/release", {"holder": "e2e"}).status == 200


def test_a_lease_ends_with_the_process_that_was_named(api: Api) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        given = api.ask("POST", "/api/ports/allocate", {"holder": "x", "pid": process.pid})
        assert given.status == 201
        process.communicate(b"\n")

    def states() -> set[str]:
        rows = api.ask("GET", "/api/ports").json["leases"]
        return {row["state"] for row in rows if row["port"] == given.json["api_port"]}

    wait_until(lambda: "leased" not in states(), seconds=20)


def test_a_lease_ends_after_its_time(api: Api) -> None:
    assert api.ask("POST", "/api/ports/allocate", {"holder": "x", "ttl_s": 0.1}).status == 201

    def holders() -> set[str]:
        return {row["holder"] for row in api.ask("GET", "/api/ports").json["leases"]}

    wait_until(lambda: "x" not in holders(), seconds=20)


def test_no_pair_left_is_409_with_the_pool_and_the_remedy(tmp_path: Path, ports: range) -> None:
    with served(tmp_path, ports[:7]) as api:
        answers = [
            api.ask("POST", "/api/ports/allocate", {"holder": f"h{number}"}) for number in range(4)
        ]
        assert [answer.status for answer in answers] == [201, 201, 201, 409]
        assert is_problem(answers[-1], 409)
        assert answers[-1].json["type"] == "urn:autocoder:PoolExhausted"
        assert answers[-1].json["pool"] in ("api", "web")
        assert answers[-1].json["hint"]


def test_a_process_that_does_not_exist_can_hold_nothing(api: Api) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert is_problem(
        api.ask("POST", "/api/ports/allocate", {"holder": "x", "pid": process.pid}), 409
    )


def test_the_agents_leases_cannot_be_given_away(tmp_path: Path, ports: range) -> None:
    with served(tmp_path, ports, "import time; time.sleep(600)") as api:
        api.ask("POST", "/api/agents")
        agent = api.run.wait_for(lambda s: s.agents and s.agents[0].pid).agents[0]
        api.ask("POST", "/api/ports/release", {"holder": agent.agent_id})
        rows = api.ask("GET", "/api/ports").json["leases"]
        assert {row["state"] for row in rows if row["holder"] == agent.agent_id} == {"leased"}
        api.ask("POST", f"/api/agents/{agent.agent_id}/kill")
        api.run.wait_for(lambda s: not s.agents[0].live)


def test_a_pool_grows_by_what_was_asked(api: Api) -> None:
    before = api.ask("GET", "/api/status").json["pools"]["api"]["total"]
    grown = api.ask("POST", "/api/ports/expand", {"pool": "api", "amount": 5})
    assert grown.status == 200
    start, end = grown.json["added"]
    assert end - start == 5
    assert api.ask("GET", "/api/status").json["pools"]["api"]["total"] == before + 5
    both = {"pool": "api", "amount": 5, "start": start, "end": end}
    assert is_problem(api.ask("POST", "/api/ports/expand", both), 422)


def test_the_same_key_gives_the_same_answer_and_acts_once(api: Api) -> None:
    key = {"Idempotency_Key": "k1"}
    first = api.ask("POST", "/api/features", {"name": "Once"}, **key)
    again = api.ask("POST", "/api/features", {"name": "Once"}, **key)
    assert first.json == again.json
    assert is_problem(api.ask("POST", "/api/features", {"name": "Other"}, **key), 422)
    names = [feature["name"] for feature in wait_for_features(api, 2)]
    assert names.count("Once") == 1


def test_a_key_outlives_the_server_that_answered(tmp_path: Path, ports: range) -> None:
    asked = {"pool": "web", "amount": 2}
    with served(tmp_path, ports) as api:
        first = api.ask("POST", "/api/ports/expand", asked, Idempotency_Key="k")
        project = api.project
    run = Running(project.open_served(TcpWay("127.0.0.1", ports[-1], TOKEN), parallel=0))
    try:
        run.wait_for(lambda _: True)
        again = Api(project, run, ports[-1])
        assert again.ask("POST", "/api/ports/expand", asked, Idempotency_Key="k").json == first.json
        other = asked | {"amount": 3}
        assert is_problem(again.ask("POST", "/api/ports/expand", other, Idempotency_Key="k"), 422)
    finally:
        run.stop()


def test_requests_under_one_key_at_the_same_time_act_once(api: Api) -> None:
    answers: list[Answer] = []

    def ask() -> None:
        answers.append(
            api.ask("POST", "/api/ports/expand", {"pool": "web", "amount": 2}, Idempotency_Key="g")
        )

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {answer.content for answer in answers} == {answers[0].content}
    assert len(answers) == 8


# ------------------------------------------------------------------ agents and features


def wait_for_features(api: Api, count: int) -> list[dict[str, Any]]:
    def enough() -> list[dict[str, Any]] | None:
        found: list[dict[str, Any]] = api.ask("GET", "/api/features").json
        return found if len(found) >= count else None

    found = wait_until(enough, what=f"{count} features")
    assert found
    return found


def test_a_feature_is_added_worked_on_and_merged(api: Api) -> None:
    added = api.ask("POST", "/api/features", {"name": "Due dates", "priority": 5})
    assert added.status == 201
    wait_for_features(api, 2)
    spawned = api.ask("POST", "/api/agents", {"feature_id": added.json["id"]})
    assert spawned.status == 202
    api.run.wait_for(lambda s: s.features.done == 1)
    (agent,) = api.ask("GET", "/api/agents?all=true").json
    assert (agent["state"], agent["feature"]) == ("COMPLETED", "Due dates")
    assert api.ask("GET", "/api/agents").json == []


def test_features_are_switched_and_ranked_and_worktrees_removed(api: Api) -> None:
    assert api.ask("POST", "/api/features/1/disable").status == 202
    api.run.wait_for(lambda s: not s.backlog[0].enabled)
    api.ask("POST", "/api/features/1/enable")
    api.ask("POST", "/api/features/1/prioritise", {"priority": 7})
    api.run.wait_for(lambda s: s.backlog[0].enabled and s.backlog[0].priority == 7)
    assert is_problem(api.ask("POST", "/api/features/99/merge"), 404)
    assert api.ask("POST", "/api/features/1/merge").status == 202
    removed = api.ask("POST", "/api/worktrees/remove", {"agent_ids": ["a-none"]})
    assert removed.status == 202
    said = api.run.wait_for(lambda s: s.notices and s.notices[-1].subject == "a-none").notices
    assert "no branch that is ready to merge" in " ".join(notice.text for notice in said)


def test_the_page_of_the_api_names_every_route_and_loads_nothing(api: Api) -> None:
    answer = api.ask("GET", "/docs")
    page = answer.content.decode()
    for path in api.ask("GET", "/openapi.json").json["paths"]:
        assert path in page
    assert not re.search(r"<script|<link|@import|url\(|src=", page)
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_what_does_not_exist_is_404(api: Api) -> None:
    for verb in ("stop", "kill", "recover"):
        assert is_problem(api.ask("POST", f"/api/agents/a-none/{verb}"), 404)
    assert is_problem(api.ask("GET", "/api/agents/a-none/log"), 404)
    assert is_problem(api.ask("POST", "/api/agents", {"feature_id": 999}), 404)
    assert is_problem(api.ask("GET", "/api/nothing"), 404)
    assert is_problem(api.ask("PUT", "/api/agents"), 415)
    assert is_problem(api.ask("POST", "/api/agents/..%2f..%2fetc/kill"), 404)


def test_an_agent_that_has_ended_is_not_killed_again(api: Api) -> None:
    api.ask("POST", "/api/agents")
    ended = api.run.wait_for(lambda s: s.agents and not s.agents[0].live).agents[0]
    assert is_problem(api.ask("POST", f"/api/agents/{ended.agent_id}/kill"), 409)


def test_a_feature_that_nothing_here_could_run_is_refused_before_it_is_stored(api: Api) -> None:
    stored = len(api.ask("GET", "/api/features").json)
    for wrong, cause, remedy in (
        ({"backend": "nonsense"}, "no such backend", "[backends.nonsense]"),
        ({"base": "nowhere"}, "no branch 'nowhere'", "main"),
    ):
        answer = api.ask("POST", "/api/features", {"name": "x"} | wrong)
        assert is_problem(answer, 422)
        assert cause in answer.json["detail"]
        assert remedy in answer.json["hint"]
    assert api.ask("POST", "/api/features", {"name": "x", "base": "main"}).status == 201
    api.run.wait_for(lambda snapshot: len(snapshot.backlog) == stored + 1)


def test_what_is_wrong_with_a_body_is_named(api: Api) -> None:
    wrong = api.ask("POST", "/api/features", {"name": "", "prio": 3})
    assert is_problem(wrong, 422)
    assert {each["where"] for each in wrong.json["errors"]} == {"body.name", "body.prio"}
    assert is_problem(api.ask("POST", "/api/features", b"{not json"), 422)


def test_answers_hold_nothing_that_steers_a_terminal(api: Api) -> None:
    odd = "\x1b]0;owned\x07 \x9b2J \u202e"
    answer = api.ask("POST", "/api/features", {"name": odd})
    assert answer.status == 201
    assert answer.json["name"] == odd
    assert answer.content.isascii()
    assert not set(answer.content) & set(range(32))


def test_activity_is_listed_after_an_id(api: Api) -> None:
    api.ask("POST", "/api/agents")
    api.run.wait_for(lambda s: s.features.done == 1)
    events = wait_until(lambda: api.ask("GET", "/api/events").json)
    last = events[-1]["id"]
    assert api.ask("GET", f"/api/events?after={last}").json == []
    assert len(api.ask("GET", "/api/events?limit=1").json) == 1


# ------------------------------------------------------------------ logs


def events_of(content: bytes) -> list[tuple[str, str, dict[str, Any]]]:
    found = []
    for block in content.decode().strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "event" in fields:
            found.append((fields["id"], fields["event"], json.loads(fields["data"])))
    return found


def test_a_log_is_streamed_until_the_agent_has_ended(api: Api) -> None:
    api.ask("POST", "/api/agents")
    agent = api.run.wait_for(lambda s: s.agents and s.agents[0].pid).agents[0]
    answer = api.ask("GET", f"/api/agents/{agent.agent_id}/log")
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer.content)
    text = "".join(data.get("text", "") for _, _, data in events)
    assert text == Path(agent.log_path).read_text()
    assert events[-1][1] == "end"


def test_a_log_is_resumed_where_a_reader_left_it(api: Api) -> None:
    api.ask("POST", "/api/agents")
    agent = api.run.wait_for(lambda s: s.agents and not s.agents[0].live).agents[0]
    log = Path(agent.log_path)
    path = f"/api/agents/{agent.agent_id}/log?follow=false"
    whole = events_of(api.ask("GET", path).content)
    assert "".join(data.get("text", "") for _, _, data in whole) == log.read_text()
    with log.open("a") as file:
        file.write("and more\n")
    resumed = events_of(api.ask("GET", path, Last_Event_ID=whole[-1][0]).content)
    assert [data.get("text") for _, kind, data in resumed if kind == "log"] == ["and more\n"]
    tail = events_of(api.ask("GET", f"{path}&offset=-9").content)
    assert tail[0][2]["text"] == "and more\n"


def test_nothing_is_missed_when_the_log_is_rotated(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("one\ntwo\n")
    data, position = read_from(log, Position(0, 4), whole_lines=True)
    assert data == b"two\n"
    with log.open("a") as file:
        file.write("three\n")
    log.rename(tmp_path / "log.1")
    log.write_text("four\n")
    data, position = read_from(log, position, whole_lines=True)
    assert data == b"three\n"
    data, position = read_from(log, position, whole_lines=True)
    assert data == b"four\n"
    assert read_from(log, position, whole_lines=True) == (b"", position)


def test_half_a_line_waits_for_its_end_and_a_long_one_does_not(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"half")
    assert read_from(log, Position(0, 0), whole_lines=True)[0] == b""
    assert read_from(log, Position(0, 0), whole_lines=False)[0] == b"half"
    log.write_bytes(b"x" * (log_stream.CHUNK + 5))
    assert len(read_from(log, Position(0, 0), whole_lines=True)[0]) == log_stream.CHUNK


@pytest.mark.parametrize("text", ["", "x", "1", "1:", ":1", "-1:5", "1:-5", "1:2:3", "١:٢"])
def test_what_is_no_position_is_not_taken_for_one(text: str) -> None:
    assert parse_position(text) is None


# ------------------------------------------------------------------ the token


def test_the_token_is_made_once_and_is_the_users_alone(tmp_path: Path) -> None:
    token = api_token()
    assert len(token) >= 43
    assert api_token() == token
    assert stat.S_IMODE(control.token_file().stat().st_mode) == 0o600


def test_a_token_that_others_could_have_read_is_not_used() -> None:
    api_token()
    control.token_file().chmod(0o644)
    with pytest.raises(UsageError, match="not yours alone"):
        api_token()


def test_no_address_that_others_reach_unless_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can be reached from other hosts"):
        tcp_way(load_settings(tmp_path, environ={"AUTOCODER_UI_HOST": "0.0.0.0"}))
    allowed = {"AUTOCODER_UI_HOST": "0.0.0.0", "AUTOCODER_UI_ALLOW_REMOTE": "1"}
    assert tcp_way(load_settings(tmp_path, environ=allowed)).host == "0.0.0.0"


def test_a_port_that_is_taken_is_refused_and_the_project_is_free_again(
    tmp_path: Path, ports: range
) -> None:
    project = Project(tmp_path, ports[:-1])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports[-1]))
        taken.listen()
        run = Running(project.open_served(TcpWay("127.0.0.1", ports[-1], TOKEN), parallel=0))
        with pytest.raises(Exception, match=f"port {ports[-1]} cannot be listened on"):
            run.wait_for(lambda _: True)
    again = Running(project.open_served(parallel=0))
    again.wait_for(lambda _: True)
    again.stop()


def test_where_no_orchestrator_runs_the_client_says_so(tmp_path: Path, ports: range) -> None:
    project = Project(tmp_path, ports)
    with pytest.raises(NoOrchestrator, match="no orchestrator runs"):
        Client(project.folder).ask("GET", "/api/agents")
    run = Running(project.open_served(parallel=0))
    run.wait_for(lambda _: True)
    run.stop()
    with pytest.raises(NoOrchestrator):
        Client(project.folder).ask("GET", "/api/agents")
    assert os.path.lexists(project.folder / SOCKET)


def test_a_burst_of_requests_is_answered_while_the_backlog_is_worked_on(
    tmp_path: Path, ports: range
) -> None:
    project = Project(tmp_path, ports, COMMITS, features=3)
    run = Running(project.open_served(parallel=3))
    try:
        run.wait_for(lambda _: True)
        told = flood(project.folder, per_second=200, seconds=1)
        run.wait_for(lambda s: s.features.done == 3)
    finally:
        run.stop()
    assert told.statuses == {"200": 200}
