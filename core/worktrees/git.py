"""How this program runs git: argument lists, a time limit, and nothing of the repository's own.

Agents share the repository's configuration and may have written it, and so may
whoever made the checkout. So hooks, fsmonitor, pagers, external diffs and
drivers that only the repository configures never run; what the user configures
for all repositories (Git LFS, say) does.
"""

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autocoder.core.errors import GitError, ProjectError

TIME_LIMIT_S = 60.0
OUTPUT_LIMIT = 64 * 1024 * 1024

_FIXED = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.quotePath=false",
    "gc.auto=0",
    "maintenance.auto=false",
    # `worktree remove` asks status whether anything would be lost; it must not look away.
    "status.showUntrackedFiles=normal",
    "protocol.ext.allow=never",
    "worktree.guessRemote=false",
)
_KEPT_VARIABLES = frozenset(
    {
        "GIT_AUTHOR_EMAIL",
        "GIT_AUTHOR_NAME",
        "GIT_COMMITTER_EMAIL",
        "GIT_COMMITTER_NAME",
        "GIT_CONFIG_GLOBAL",
        "GIT_CONFIG_NOSYSTEM",
        "GIT_CONFIG_SYSTEM",
        "GIT_EXEC_PATH",
    }
)
_SET_VARIABLES = {
    "GIT_EDITOR": ":",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}
_HARMLESS = {
    "clean": "",
    "smudge": "",
    "process": "",
    "required": "false",
    "command": "",
    "textconv": "",
    # A merge driver that fails makes a conflict; an empty one would silently keep one side.
    "driver": "false",
    # A clone without its objects fetches them whenever a file is needed.
    "sshcommand": "ssh",
    "uploadpack": "git-upload-pack",
}
"""What a variable that names a program is set to where only the repository sets it."""
_SECTIONS = frozenset({"filter", "diff", "merge", "core", "remote"})


@dataclass(frozen=True, slots=True)
class Output:
    code: int
    stdout: bytes
    stderr: str
    truncated: bool
    """There was more than asked for; git was ended."""

    def fields(self) -> list[str]:
        """What stands between the NULs of `-z` output."""
        return [os.fsdecode(part) for part in self.stdout.split(b"\0") if part]

    def line(self) -> str:
        """The only line there is."""
        return os.fsdecode(self.stdout).removesuffix("\n")

    def complaint(self) -> str:
        """The line that says what is wrong, in git's words."""
        lines = [line.strip() for line in self.stderr.splitlines() if line.strip()]
        if not lines:
            return f"git ended with {self.code} and said nothing"
        marked = [i for i, line in enumerate(lines) if line.startswith(("fatal: ", "error: "))]
        chosen = marked[-1] if marked else len(lines) - 1
        words = lines[chosen].removeprefix("fatal: ").removeprefix("error: ")
        # What a colon announces, a file mostly, stands on the line below.
        return (
            f"{words} {lines[chosen + 1]}" if lines[chosen + 1 :] and words[-1:] == ":" else words
        )


@dataclass(slots=True)
class Git:
    """git in one folder; with a `git_dir` never in another repository than that one."""

    folder: Path
    git_dir: Path | None = None
    common_dir: Path | None = None
    _drivers: dict[object, Mapping[str, str]] = field(default_factory=dict)

    def at(self, folder: Path, git_dir: Path) -> "Git":
        """The same repository in another worktree, whatever that folder's `.git` says."""
        return Git(folder, git_dir, self.common_dir, self._drivers)

    def run(
        self,
        *arguments: str,
        ok: Sequence[int] = (0,),
        settings: Mapping[str, str] | None = None,
        time_limit_s: float = TIME_LIMIT_S,
        output_limit: int = OUTPUT_LIMIT,
    ) -> Output:
        """Run `git <arguments>`; `settings` are further configuration for this run.

        Raises:
            GitError: it ended with a code that is not `ok`, or took too long.
            ProjectError: there is no git.
        """
        configuration = {**self._distrusted(), **(settings or {})}
        output = self._spawn(arguments, configuration, time_limit_s, output_limit)
        if output.code not in ok and not output.truncated:
            raise GitError(f"git {arguments[0]}: {output.complaint()}")
        return output

    def _spawn(
        self,
        arguments: Sequence[str],
        configuration: Mapping[str, str],
        time_limit_s: float = TIME_LIMIT_S,
        output_limit: int = OUTPUT_LIMIT,
    ) -> Output:
        fixed = [part for setting in _FIXED for part in ("-c", setting)]
        try:
            process = subprocess.Popen(
                ["git", "--no-pager", *fixed, *arguments],
                cwd=self.folder,
                env=self._environment(configuration),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                # Ctrl-C at the panel's terminal must not end git half way.
                start_new_session=True,
            )
        except FileNotFoundError as error:
            if not self.folder.is_dir():
                raise GitError(f"{self.folder} is not there any more") from error
            raise ProjectError("git is not installed", "Install git 2.38 or newer.") from error
        except OSError as error:
            raise GitError(f"git cannot be started: {error.strerror}") from error
        with process:
            return _collect(process, f"git {arguments[0]}", time_limit_s, output_limit)

    def _environment(self, configuration: Mapping[str, str]) -> dict[str, str]:
        variables = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("GIT_", "SSH_ASKPASS")) or name in _KEPT_VARIABLES
        }
        variables |= _SET_VARIABLES
        if self.git_dir and self.common_dir:
            variables["GIT_DIR"] = str(self.git_dir)
            variables["GIT_COMMON_DIR"] = str(self.common_dir)
            variables["GIT_WORK_TREE"] = str(self.folder)
        # Unlike `-c` this way takes names with `=` in them.
        variables["GIT_CONFIG_COUNT"] = str(len(configuration))
        for number, (name, value) in enumerate(configuration.items()):
            variables[f"GIT_CONFIG_KEY_{number}"] = name
            variables[f"GIT_CONFIG_VALUE_{number}"] = value
        return variables

    def _distrusted(self) -> Mapping[str, str]:
        """Configuration that puts every driver the repository itself defines out of use."""
        if not self.git_dir or not self.common_dir:
            return {}
        files = (self.common_dir / "config", self.git_dir / "config.worktree")
        signature = tuple(_signature(file) for file in files)
        known = self._drivers.get(signature)
        if known is None:
            listing = self._spawn(["config", "--list", "--null", "--show-scope"], {})
            if listing.code:
                raise GitError(f"git config: {listing.complaint()}")
            known, complete = _overrides(listing.fields())
            if complete:
                self._drivers[signature] = known
        return known


def _overrides(listing: Sequence[str]) -> tuple[Mapping[str, str], bool]:
    """What to set against the drivers in a `--show-scope --null` listing of the configuration.

    The second value is False when the repository includes further files, whose
    changes nobody would see.
    """
    trusted: dict[str, str] = {}
    own: set[str] = set()
    complete = True
    for scope, entry in zip(listing[::2], listing[1::2], strict=True):
        name, _, value = entry.partition("\n")
        section, _, variable = name.rpartition(".")
        kind = section.partition(".")[0]
        local = scope in ("local", "worktree")
        if local and kind in ("include", "includeif"):
            complete = False
        elif kind in _SECTIONS and variable in _HARMLESS:
            if not local:
                trusted[name] = value
            else:
                own.add(name)
                if kind == "filter":
                    # A required filter without a command would make git fail.
                    own.add(f"{section}.required")
    harmless = {name: _HARMLESS[name.rpartition(".")[2]] for name in sorted(own)}
    return {name: trusted.get(name, value) for name, value in harmless.items()}, complete


def _signature(file: Path) -> tuple[int, ...]:
    try:
        status = file.stat()
    except OSError:
        return ()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _collect(
    process: subprocess.Popen[bytes], what: str, time_limit_s: float, output_limit: int
) -> Output:
    """Read both streams until they end, the time is up or there is too much."""
    assert process.stdout
    assert process.stderr
    stdout, stderr = bytearray(), bytearray()
    deadline = time.monotonic() + time_limit_s
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, stdout)
        selector.register(process.stderr, selectors.EVENT_READ, stderr)
        while selector.get_map() and len(stdout) <= output_limit:
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                _end(process)
                raise GitError(f"{what} took longer than {time_limit_s:g} s and was ended")
            for key, _ in ready:
                chunk = os.read(key.fd, 65536)
                if chunk:
                    key.data.extend(chunk)
                else:
                    selector.unregister(key.fileobj)
    truncated = len(stdout) > output_limit
    if truncated:
        _end(process)
    return Output(
        code=process.wait(),
        stdout=bytes(stdout[:output_limit]),
        stderr=stderr.decode("utf-8", "replace"),
        truncated=truncated,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill git and what it has started: they share a POSIX session of their own."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
