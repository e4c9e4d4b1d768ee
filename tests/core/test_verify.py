"""Finished branches, tested by real commands in real worktrees and landed by real git."""

import contextlib
import dataclasses
import json
import os
import shlex
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from autocoder.core.launcher import LocalLauncher, run_folder
from autocoder.core.models import Holder, LeaseState
from autocoder.core.ports import PortAllocator
from autocoder.core.probe import local_kernel
from autocoder.core.settings import Settings, load_settings
from autocoder.core.verify import (
    Broken,
    Cancelled,
    Closed,
    Finish,
    Passed,
    Unverified,
    Verifier,
)
from autocoder.core.worktrees import Conflict, Merged, ReadyToMerge, Repository, open_repository
from support.repositories import commit, git, make_repository
from support.waiting import wait_until
from support.workers import is_alive

PASSES = "test -f README.md"


class Bench:
    """A project, finished agents in it, and the verifier that lands them."""

    def __init__(self, folder: Path, ports: range, command: str = PASSES, more: str = "") -> None:
        self.folder = folder
        self._ports = ports
        self.project = make_repository(
            folder / "project",
            {
                "README.md": "a project\n",
                "autocoder.toml": f"[verify]\ncommands = [{json.dumps(command)}]\n{more}"
                if command
                else "",
            },
        )
        self.repository: Repository = open_repository(self.project)
        self.repository.ignore("/.autocoder/")
        self.kernel = local_kernel()
        self.allocator = PortAllocator(
            folder / "ledger.db", self.settings.ports, ui_port=ports[-1], kernel=self.kernel
        )
        self._verifier: Verifier | None = None
        self._agents = 0

    @property
    def settings(self) -> Settings:
        first, middle, end = self._ports[0], self._ports[50], self._ports[-1]
        cli = {
            "fence": "off",
            "limits.stop_grace_s": 0.2,
            "merge": self.merge,
            "ports.api": f"{first}-{middle - 1}",
            "ports.web": f"{middle}-{end - 1}",
            "ports.cooldown_s": 0,
        }
        return load_settings(self.project, environ={}, cli=cli)

    merge = "auto"

    @property
    def verifier(self) -> Verifier:
        if self._verifier is None:
            self._verifier = Verifier(
                project_dir=self.project,
                settings=self.settings,
                repository=self.repository,
                launcher=LocalLauncher(self.project, self.settings, self.kernel),
                allocator=self.allocator,
                kernel=self.kernel,
                wake=lambda: None,
            )
        return self._verifier

    def finished(self, *files: str, **contents: str) -> Finish:
        """An agent that has committed these files on a branch of its own."""
        self._agents += 1
        agent_id, branch = f"a-{self._agents}", f"feat/{self._agents}-x"
        start = self.repository.base_commit()
        worktree = self.repository.add(agent_id, branch, start)
        commit(worktree, {name: f"{name}\n" for name in files} | contents, f"Work of {agent_id}")
        pair = self.allocator.lease(Holder(agent_id, str(self.project), os.getpid()))
        return Finish(agent_id, self._agents, branch, start, worktree, pair)

    def close(self, finish: Finish, *, asked: bool = False) -> Closed:
        return self.verifier.submit(finish, late=asked, asked=asked).result(30)

    def holders(self) -> dict[str, set[int | None]]:
        """Who holds ports: the pids of each holder's leases."""
        found: dict[str, set[int | None]] = {}
        for lease in self.allocator.leases():
            if lease.state is LeaseState.LEASED:
                found.setdefault(lease.holder, set()).add(lease.pid)
        return found

    def base_has(self, name: str) -> bool:
        return self.repository.base_file(name) is not None

    def log(self, finish: Finish) -> str:
        return (run_folder(self.project, finish.agent_id, "verify") / "log").read_text()

    def shut(self) -> None:
        if self._verifier is not None:
            self._verifier.close()
        self.allocator.close()


@pytest.fixture
def bench(tmp_path: Path, ports: range) -> Iterator[Bench]:
    made = Bench(tmp_path, ports)
    yield made
    made.shut()


@contextlib.contextmanager
def bench_with(folder: Path, ports: range, command: str, more: str = "") -> Iterator[Bench]:
    made = Bench(folder, ports, command, more)
    try:
        yield made
    finally:
        made.shut()


def python(program: str) -> str:
    return f"{shlex.quote(sys.executable)} -I -S -c {shlex.quote(program)}"


def test_what_passes_lands_and_says_by_what(bench: Bench) -> None:
    closed = bench.close(bench.finished("one"))
    assert isinstance(closed.merge, Merged)
    assert isinstance(closed.verification, Passed)
    assert closed.verification.commands == (PASSES,)
    assert (closed.commits, closed.merge.count) == (1, 1)
    assert bench.base_has("one")


def test_what_fails_does_not_land_and_says_why(tmp_path: Path, ports: range) -> None:
    with bench_with(tmp_path, ports, "echo first; echo 'the reason' >&2; exit 7") as bench:
        finish = bench.finished("one")
        closed = bench.close(finish)
        assert closed.merge is None
        assert isinstance(closed.verification, Broken)
        assert "exited with 7" in str(closed.verification)
        assert "the reason" in closed.verification.last_lines
        assert "the reason" in bench.log(finish)
        assert not bench.base_has("one")
        assert git(finish.worktree, "symbolic-ref", "--short", "HEAD") == finish.branch


def test_the_exam_is_bases_and_never_the_branchs_own(tmp_path: Path, ports: range) -> None:
    with bench_with(tmp_path, ports, "false") as bench:
        lax = {"autocoder.toml": "[verify]\ncommands = ['true']\n"}
        closed = bench.close(bench.finished(**lax))
        assert isinstance(closed.verification, Broken)
        assert any("autocoder.toml" in warning for warning in closed.warnings)


def test_a_branch_is_tested_together_with_what_base_has_got_since(
    tmp_path: Path, ports: range
) -> None:
    with bench_with(tmp_path, ports, "test -f mine && test -f theirs") as bench:
        finish = bench.finished("mine")
        commit(bench.project, {"theirs": "text\n"})
        closed = bench.close(finish)
        assert isinstance(closed.merge, Merged), closed
        assert bench.base_has("mine")
        assert bench.base_has("theirs")


def test_what_lands_is_the_very_commit_that_was_tested(tmp_path: Path, ports: range) -> None:
    seen = tmp_path / "seen"
    with bench_with(tmp_path, ports, f"git rev-parse HEAD >> {seen}") as bench:
        finish = bench.finished("mine")
        commit(bench.project, {"theirs": "text\n"})
        bench.close(finish)
        assert seen.read_text().split() == [bench.repository.base_commit()]


def test_when_base_moves_meanwhile_the_branch_is_tested_anew(tmp_path: Path, ports: range) -> None:
    runs, go = tmp_path / "runs", tmp_path / "go"
    command = f"echo run >> {runs}; while ! test -e {go}; do sleep 0.01; done"
    with bench_with(tmp_path, ports, command) as bench:
        future = bench.verifier.submit(bench.finished("mine"))
        wait_until(runs.exists)
        commit(bench.project, {"theirs": "text\n"})
        go.touch()
        closed = future.result(30)
        assert isinstance(closed.merge, Merged)
        assert runs.read_text().split() == ["run", "run"]


def test_branches_are_tested_at_once_each_on_top_of_the_one_before(
    tmp_path: Path, ports: range
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    count = 4
    # Each waits until all are being tested: one after the other they would never end.
    command = (
        f"touch {runs}/$AUTOCODER_AGENT_ID; "
        f"until [ $(ls {runs} | wc -l) = {count} ]; do sleep 0.01; done; "
        f"echo $AUTOCODER_AGENT_ID >> {tmp_path}/tested"
    )
    with bench_with(tmp_path, ports, command) as bench:
        finishes = [bench.finished(f"file{number}") for number in range(count)]
        futures = [bench.verifier.submit(finish) for finish in finishes]
        merges = [future.result(30).merge for future in futures]
        assert all(isinstance(merge, Merged) for merge in merges)
        assert all(bench.base_has(f"file{number}") for number in range(count))
        assert len((tmp_path / "tested").read_text().split()) == count


def test_a_branch_is_not_blamed_for_the_one_it_was_tested_with(
    tmp_path: Path, ports: range
) -> None:
    started = tmp_path / "started"
    command = f"touch {started}; ! test -f bad"
    with bench_with(tmp_path, ports, command) as bench:
        bad, good = bench.finished("bad"), bench.finished("good")
        futures = [bench.verifier.submit(finish) for finish in (bad, good)]
        closed_bad, closed_good = (future.result(30) for future in futures)
        assert isinstance(closed_bad.verification, Broken)
        assert isinstance(closed_good.merge, Merged)
        assert bench.base_has("good")
        assert not bench.base_has("bad")


def test_a_conflict_comes_back_with_its_paths_and_the_commits_stay(bench: Bench) -> None:
    finish = bench.finished(**{"README.md": "mine\n"})
    commit(bench.project, {"README.md": "theirs\n"})
    closed = bench.close(finish)
    assert closed.merge == Conflict(("README.md",))
    assert bench.repository.commits_ahead(finish.branch) == 1


def test_the_command_gets_the_agents_ports_and_environment(tmp_path: Path, ports: range) -> None:
    seen = tmp_path / "seen"
    command = f"echo $AUTOCODER_AGENT_ID $AUTOCODER_API_PORT $WEB_PORT $PWD > {seen}"
    with bench_with(tmp_path, ports, command) as bench:
        finish = bench.finished("one")
        bench.close(finish)
        pair = finish.pair
        assert pair is not None
        assert seen.read_text().split() == [
            finish.agent_id,
            str(pair.api_port),
            str(pair.web_port),
            str(finish.worktree),
        ]


def test_the_pair_is_held_by_the_process_that_uses_it(tmp_path: Path, ports: range) -> None:
    go, parent = tmp_path / "go", tmp_path / "parent"
    command = f"echo $PPID > {parent}; while ! test -e {go}; do sleep 0.01; done"
    with bench_with(tmp_path, ports, command) as bench:
        finish = bench.finished("one")
        future = bench.verifier.submit(finish)
        worker = int(wait_until(lambda: parent.exists() and parent.read_text()))
        wait_until(lambda: bench.holders() == {finish.agent_id: {worker}})
        go.touch()
        future.result(30)
        assert bench.holders() == {finish.agent_id: {os.getpid()}}


def test_a_late_exam_leases_a_pair_and_gives_it_back(tmp_path: Path, ports: range) -> None:
    go, seen = tmp_path / "go", tmp_path / "seen"
    command = f"echo $AUTOCODER_API_PORT > {seen}; while ! test -e {go}; do sleep 0.01; done"
    with bench_with(tmp_path, ports, command) as bench:
        finish = bench.finished("one")
        bench.allocator.release(finish.agent_id, str(bench.project))
        future = bench.verifier.submit(dataclasses.replace(finish, pair=None), late=True)
        wait_until(lambda: seen.exists() and seen.read_text())
        assert bench.holders().keys() == {finish.agent_id}
        go.touch()
        assert isinstance(future.result(30).merge, Merged)
        assert bench.holders() == {}


LINGERS = """
import os, time
if os.fork() == 0:
    os.setsid()
    open({file!r}, "w").write(str(os.getpid()))
    time.sleep(600)
time.sleep(600)
"""


def test_a_pair_whose_lease_was_ended_meanwhile_is_taken_back_for_the_exam(
    tmp_path: Path, ports: range
) -> None:
    said = tmp_path / "port"
    with bench_with(tmp_path, ports, f"echo $API_PORT > {shlex.quote(str(said))}") as bench:
        finish = bench.finished("new.txt")
        assert finish.pair is not None
        bench.allocator.release(finish.agent_id, str(bench.project))

        closed = bench.close(finish)

        assert isinstance(closed.merge, Merged)
        assert said.read_text().strip() == str(finish.pair.api_port)
        assert bench.holders() == {}


def test_a_command_that_takes_too_long_is_ended_with_its_whole_tree(
    tmp_path: Path, ports: range
) -> None:
    file = tmp_path / "pid"
    command = python(LINGERS.format(file=str(file)))
    with bench_with(tmp_path, ports, command, "timeout_s = 1\n") as bench:
        closed = bench.close(bench.finished("one"))
        assert isinstance(closed.verification, Broken)
        assert "had not ended after 1.0s" in str(closed.verification)
        assert not is_alive(int(file.read_text()))


def test_a_cancelled_verification_leaves_nothing_running_and_no_verdict(
    tmp_path: Path, ports: range
) -> None:
    file = tmp_path / "pid"
    with bench_with(tmp_path, ports, python(LINGERS.format(file=str(file)))) as bench:
        finish = bench.finished("one")
        future = bench.verifier.submit(finish)
        pid = int(wait_until(lambda: file.exists() and file.read_text()))
        assert "verifying" in bench.verifier.step(finish.agent_id)
        finish.cancelled.set()
        with pytest.raises(Cancelled):
            future.result(20)
        assert not is_alive(pid)
        assert git(finish.worktree, "symbolic-ref", "--short", "HEAD") == finish.branch
        assert not bench.base_has("one")


def test_closing_does_not_wait_for_a_long_verification(tmp_path: Path, ports: range) -> None:
    started = tmp_path / "started"
    with bench_with(tmp_path, ports, f"touch {started}; sleep 600") as bench:
        future = bench.verifier.submit(bench.finished("one"))
        wait_until(started.exists)
        bench.shut()
        assert isinstance(future.exception(0), Cancelled)


def test_what_the_exam_leaves_goes_and_what_the_agent_left_stays(
    tmp_path: Path, ports: range
) -> None:
    command = "mkdir -p reports; echo x > reports/junit.xml; echo changed > README.md"
    with bench_with(tmp_path, ports, command) as bench:
        finish = bench.finished("one")
        (finish.worktree / "notes.txt").write_text("not committed\n")
        closed = bench.close(finish)
        assert isinstance(closed.merge, Merged)
        assert git(finish.worktree, "status", "--porcelain") == "?? notes.txt"
        assert (finish.worktree / "README.md").read_text() == "a project\n"


def test_work_that_was_not_committed_is_named_and_kept(bench: Bench) -> None:
    finish = bench.finished("one")
    (finish.worktree / "one").write_text("half done\n")
    closed = bench.close(finish)
    assert closed.merge is None
    assert "changed and not committed: one" in str(closed.verification)
    assert (finish.worktree / "one").read_text() == "half done\n"


def test_an_exam_that_was_cut_off_is_repeated_from_a_clean_start(
    tmp_path: Path, ports: range
) -> None:
    with bench_with(tmp_path, ports, "git diff --quiet HEAD") as bench:
        finish = bench.finished("one")
        folder = run_folder(bench.project, finish.agent_id, "verify")
        folder.mkdir(parents=True)
        (folder / "under_way").touch()
        bench.repository.check_out(finish.worktree, bench.repository.base_commit())
        (finish.worktree / "README.md").write_text("changed by the exam\n")
        closed = bench.close(finish)
        assert isinstance(closed.merge, Merged), closed
        kept = git(bench.project, "show", f"refs/autocoder/kept/{finish.agent_id}:README.md")
        assert kept == "changed by the exam"


def test_a_dirty_checkout_keeps_its_bytes_and_the_verdict_is_remembered(
    tmp_path: Path, ports: range
) -> None:
    runs = tmp_path / "runs"
    with bench_with(tmp_path, ports, f"echo run >> {runs}") as bench:
        finish = bench.finished("one")
        (bench.project / "README.md").write_text("being edited\n")
        closed = bench.close(finish)
        assert isinstance(closed.merge, ReadyToMerge)
        assert isinstance(closed.verification, Passed)
        assert git(bench.project, "status", "--porcelain") == " M README.md"
        git(bench.project, "checkout", "--", "README.md")
        assert isinstance(bench.close(finish).merge, Merged)
        assert runs.read_text().split() == ["run"]


def test_manual_merging_verifies_and_waits_to_be_asked(bench: Bench) -> None:
    bench.merge = "manual"
    finish = bench.finished("one")
    closed = bench.close(finish)
    assert closed.merge == ReadyToMerge("merge = manual")
    assert isinstance(closed.verification, Passed)
    assert isinstance(bench.close(finish, asked=True).merge, Merged)


def test_without_a_command_the_branch_lands_and_is_called_unverified(
    tmp_path: Path, ports: range
) -> None:
    with bench_with(tmp_path, ports, "") as bench:
        closed = bench.close(bench.finished("one"))
        assert isinstance(closed.merge, Merged)
        assert isinstance(closed.verification, Unverified)
        assert "no test command found" in str(closed.verification)


def test_a_hard_coded_port_is_a_warning(bench: Bench) -> None:
    closed = bench.close(bench.finished(**{"server.py": "app.run(port=5000)\n"}))
    assert isinstance(closed.merge, Merged)
    assert any("server.py" in warning and "5000" in warning for warning in closed.warnings)


def test_a_branch_without_commits_is_not_examined(bench: Bench) -> None:
    finish = bench.finished()
    git(finish.worktree, "reset", "--quiet", "--hard", finish.start_commit)
    assert bench.close(finish) == Closed(0, None)


def test_a_worktree_that_is_gone_is_made_again_for_the_exam(bench: Bench) -> None:
    finish = bench.finished("one")
    bench.repository.remove(finish.worktree)
    assert isinstance(bench.close(finish).merge, Merged)


def test_many_branches_land_one_by_one_whoever_is_ready_first(tmp_path: Path, ports: range) -> None:
    with bench_with(tmp_path, ports, "true") as bench:
        finishes = [bench.finished(f"file{number}") for number in range(8)]
        barrier = threading.Barrier(8)
        closed: list[Closed] = []

        def close(finish: Finish) -> None:
            barrier.wait(10)
            closed.append(bench.close(finish))

        threads = [threading.Thread(target=close, args=(finish,)) for finish in finishes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(closed) == 8
        assert all(isinstance(each.merge, Merged) for each in closed), closed
        assert all(bench.base_has(f"file{number}") for number in range(8))


def test_what_nothing_has_tested_waits_to_be_asked_where_tests_are_required(
    tmp_path: Path, ports: range
) -> None:
    with bench_with(tmp_path, ports, "") as bench:
        (bench.project / "autocoder.toml").write_text("[verify]\nrequired = true\n")
        finish = bench.finished("one")
        closed = bench.close(finish)
        assert isinstance(closed.merge, ReadyToMerge)
        assert "nothing has tested it" in closed.merge.reason
        git(bench.project, "checkout", "--", "autocoder.toml")
        assert isinstance(bench.close(finish, asked=True).merge, Merged)


def test_a_branch_lands_on_the_base_it_was_made_for(bench: Bench) -> None:
    """Two bases are two trains: neither is tested with what the other got."""
    before = bench.repository.base_commit()
    git(bench.project, "branch", "release")
    commands = 'commands = ["test -f release-only"]'
    released = bench.repository.add("a-0", "feat/0-x", "release")
    commit(released, {"release-only": "", "autocoder.toml": f"[verify]\n{commands}\n"})
    bench.repository.on("release").merge("feat/0-x")
    for_main = bench.finished("for-main")
    for_release = bench.finished("for-release")
    git(for_release.worktree, "rebase", "--quiet", "release")

    closed = bench.close(dataclasses.replace(for_release, base="release"))

    assert isinstance(closed.verification, Passed)
    assert closed.verification.commands == ("test -f release-only",)
    assert isinstance(closed.merge, Merged)
    assert bench.repository.on("release").base_file("for-release") is not None
    assert bench.repository.base_commit() == before
    assert isinstance(bench.close(for_main).merge, Merged)
    assert bench.base_has("for-main")
    assert not bench.base_has("for-release")


def test_a_variant_is_tested_and_waits_to_be_asked(bench: Bench) -> None:
    finish = dataclasses.replace(bench.finished("new"), on_request=True)

    closed = bench.close(finish)
    assert isinstance(closed.verification, Passed)
    assert isinstance(closed.merge, ReadyToMerge)
    assert "variants" in closed.merge.reason
    assert not bench.base_has("new")

    assert isinstance(bench.close(finish, asked=True).merge, Merged)
    assert bench.base_has("new")
