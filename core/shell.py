"""Shell text taken apart into the simple commands it would run.

A real parser (tree-sitter's grammar of bash) reads it, so newlines, `$(...)`,
backticks, pipes, subshells and heredocs are what the shell takes them for. What
only a run can tell is a mark in the text, and the commands inside are listed all
the same.
"""

import codecs
import functools
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import tree_sitter
import tree_sitter_bash
from tree_sitter import Node

UNKNOWN = "\ufffc"
"""Stands in a word for what only a run can tell."""

SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "ash"})
_DEEPEST = 12
_MOST_LOOPS = 20


class UnreadableShell(ValueError):
    """The text is no shell this parser knows, or is nested beyond reason."""


@dataclass(frozen=True, slots=True)
class Word:
    """One argument as the shell would pass it, `UNKNOWN` for what only a run can tell."""

    text: str
    unknown: tuple["str | tuple[Command, ...]", ...] = ()
    """For each mark in turn, the variable's name or the commands whose output it is."""

    @property
    def known(self) -> bool:
        return UNKNOWN not in self.text


@dataclass(frozen=True, slots=True)
class Command:
    """One simple command, wrappers such as `env` and `timeout` taken off."""

    words: tuple[Word, ...]
    """Program and arguments; empty for bare assignments and redirections."""
    assignments: tuple[tuple[str, Word], ...] = ()
    written: tuple[Word, ...] = ()
    """Files it redirects output into."""
    cwd: str | None = None
    """Where it would run; None where only a run can tell."""
    piped_from: "Command | None" = None
    """Whose output it reads."""

    @property
    def name(self) -> str:
        """The program without its folder."""
        return self.words[0].text.rpartition("/")[2] if self.words else ""

    @property
    def arguments(self) -> tuple[Word, ...]:
        return self.words[1:]


def read_commands(
    text: str, *, variables: Mapping[str, str], cwd: str | None = None
) -> tuple[Command, ...]:
    """Every simple command in `text`, in the order they would run, inner ones first.

    `variables` are those whose values may be looked through; all others are unknown.

    Raises:
        UnreadableShell: the text is not shell.
    """
    known = {name: Word(value) for name, value in variables.items()}
    return tuple(_Reader().read(text, _State(known, cwd)))


def resolved(text: str, cwd: str | None) -> str | None:
    """Where a path leads as far as it is known, links not followed; None: only a run can tell."""
    path = text.partition(UNKNOWN)[0]
    if not path or (cwd is None and not path.startswith("/")):
        return None
    return posixpath.normpath(posixpath.join(cwd or "/", path))


@dataclass(slots=True)
class _State:
    """What one shell knows; a subshell works on a copy."""

    variables: dict[str, Word]
    cwd: str | None
    depth: int = 0

    def copy(self) -> "_State":
        return _State(dict(self.variables), self.cwd, self.depth + 1)


@dataclass(slots=True)
class _Redirects:
    written: list[Word] = field(default_factory=list)
    stdin: str = ""
    """Text given by a heredoc or here-string."""


@functools.cache
def _parser() -> tree_sitter.Parser:
    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_bash.language()))


class _Reader:
    def read(self, text: str, state: _State) -> Iterator[Command]:
        if state.depth > _DEEPEST:
            raise UnreadableShell("nested too deeply")
        root = _parser().parse(text.encode("utf-8", "replace")).root_node
        if root.has_error:
            raise UnreadableShell("not shell")
        yield from self._inside(root, state)

    def _inside(self, node: Node, state: _State) -> Iterator[Command]:
        for child in node.named_children:
            yield from self._statement(child, state)

    def _statement(
        self,
        node: Node,
        state: _State,
        redirects: _Redirects | None = None,
        source: Command | None = None,
    ) -> Iterator[Command]:
        match node.type:
            case "command":
                yield from self._command(node, state, redirects or _Redirects(), source)
            case "declaration_command" | "unset_command":
                yield from self._declaration(node, state)
            case "variable_assignment":
                yield from self._assignments([node], state)
            case "redirected_statement":
                yield from self._redirected(node, state, source)
            case "pipeline":
                yield from self._pipeline(node.named_children, state)
            case "subshell" | "command_substitution" | "process_substitution":
                yield from self._inside(node, state.copy())
            case "function_definition":
                yield from self._inside(node, state.copy())
            case "for_statement":
                yield from self._loop(node, state)
            case _:
                yield from self._inside(node, state)

    # -- statements

    def _command(
        self, node: Node, state: _State, redirects: _Redirects, source: Command | None
    ) -> Iterator[Command]:
        local = replace(state, variables=dict(state.variables))
        assigned: list[Node] = []
        words: list[Word] = []
        for child in node.named_children:
            if child.type == "variable_assignment":
                assigned.append(child)
            elif child.type == "herestring_redirect":
                word, inner = self._word(child.named_children[-1], state)
                yield from inner
                redirects.stdin += word.text
            elif child.type == "file_redirect":
                yield from self._redirect(child, state, redirects)
            elif child.type != "comment":
                part = child.named_children[0] if child.type == "command_name" else child
                word, inner = self._word(part, state)
                yield from inner
                words.append(word)
        assignments, inner = self._assigned(assigned, local)
        yield from inner
        command = Command(
            tuple(words), assignments, tuple(redirects.written), state.cwd, piped_from=source
        )
        yield from self._unwrapped(command, state, redirects.stdin)
        if command.name in ("cd", "pushd"):
            state.cwd = _moved(command, state)

    def _declaration(self, node: Node, state: _State) -> Iterator[Command]:
        assigned = [child for child in node.named_children if child.type == "variable_assignment"]
        assignments, inner = self._assigned(assigned, state)
        yield from inner
        words = [Word(_text(node.children[0]))]
        for child in node.named_children:
            if child.type != "variable_assignment":
                word, inner = self._word(child, state)
                yield from inner
                words.append(word)
        yield Command(tuple(words), assignments, (), state.cwd)

    def _assignments(self, nodes: Sequence[Node], state: _State) -> Iterator[Command]:
        assignments, inner = self._assigned(nodes, state)
        yield from inner
        yield Command((), assignments, (), state.cwd)

    def _assigned(
        self, nodes: Sequence[Node], state: _State
    ) -> tuple[tuple[tuple[str, Word], ...], list[Command]]:
        """Name and value of each; `state` knows them afterwards."""
        assignments: list[tuple[str, Word]] = []
        commands: list[Command] = []
        for node in nodes:
            name, value = node.child_by_field_name("name"), node.child_by_field_name("value")
            word, inner = self._word(value, state) if value is not None else (Word(""), [])
            commands += inner
            key = _text(name) if name is not None else ""
            assignments.append((key, word))
            state.variables[key] = word
        return tuple(assignments), commands

    def _redirected(self, node: Node, state: _State, source: Command | None) -> Iterator[Command]:
        redirects = _Redirects()
        body = node.child_by_field_name("body")
        for child in node.named_children:
            if child != body:
                yield from self._redirect(child, state, redirects)
        if body is not None:
            if body.type != "command" and redirects.written:
                yield Command((), (), tuple(redirects.written), state.cwd)
            yield from self._statement(body, state, redirects, source)
        else:
            yield Command((), (), tuple(redirects.written), state.cwd)

    def _redirect(self, node: Node, state: _State, redirects: _Redirects) -> Iterator[Command]:
        if node.type == "file_redirect":
            target = node.child_by_field_name("destination")
            if target is not None:
                word, inner = self._word(target, state)
                yield from inner
                if any(child.type in (">", ">>", "&>", "&>>", ">|") for child in node.children):
                    redirects.written.append(word)
            return
        if node.type == "herestring_redirect":
            word, inner = self._word(node.named_children[-1], state)
            yield from inner
            redirects.stdin += word.text
            return
        following: list[Node] = []
        for child in node.named_children:
            if child.type == "heredoc_body":
                word, inner = self._word(child, state)
                yield from inner
                redirects.stdin += word.text
            elif child.type not in ("heredoc_start", "heredoc_end"):
                following.append(child)
        # The grammar hangs what follows `<<EOF` on its line below the heredoc.
        for child in following:
            if child.type == "pipeline":
                yield from self._pipeline(child.named_children, state, redirects.stdin)
            else:
                yield from self._statement(child, state)

    def _pipeline(self, stages: Sequence[Node], state: _State, said: str = "") -> Iterator[Command]:
        source: Command | None = None
        for stage in stages:
            last: Command | None = None
            redirects = _Redirects(stdin=said)
            for command in self._statement(stage, state.copy(), redirects, source):
                last = command
                yield command
            source, said = last, ""
            if last is not None and last.name in ("echo", "printf"):
                said = " ".join(word.text for word in last.arguments)

    def _loop(self, node: Node, state: _State) -> Iterator[Command]:
        """The body once for each value, so that it is seen what each of them does."""
        variable, body = node.child_by_field_name("variable"), node.child_by_field_name("body")
        values: list[Word] = []
        for child in node.named_children:
            if child not in (variable, body):
                word, inner = self._word(child, state)
                yield from inner
                values.append(word)
        if variable is None or body is None:
            return
        for value in values[:_MOST_LOOPS] or [Word(UNKNOWN, ("",))]:
            state.variables[_text(variable)] = value
            yield from self._statement(body, state)

    # -- commands that run commands

    def _unwrapped(self, command: Command, state: _State, stdin: str) -> Iterator[Command]:
        name = command.name
        if state.depth > _DEEPEST:
            raise UnreadableShell("nested too deeply")
        deeper = replace(state, depth=state.depth + 1)
        if name in SHELLS:
            script = _script_of_shell(command.arguments)
            text = script.text if script is not None else stdin
            if text:
                yield from self.read(text, deeper.copy())
                return
        elif name == "eval":
            yield from self.read(" ".join(word.text for word in command.arguments), deeper)
            return
        elif name == "find":
            yield command
            for inner in _of_find(command):
                yield from self._unwrapped(inner, deeper, "")
            return
        elif name in _WRAPPERS:
            inner = _WRAPPERS[name](command)
            if inner.words:
                yield from self._unwrapped(inner, deeper, stdin)
                return
            command = inner
        yield command

    # -- words

    def _word(self, node: Node, state: _State) -> tuple[Word, list[Command]]:
        """The word, and the commands that run to make it."""
        text: list[str] = []
        unknown: list[str | tuple[Command, ...]] = []
        commands: list[Command] = []
        for piece in self._pieces(node, state):
            if isinstance(piece, str):
                text.append(piece)
                continue
            text.append(UNKNOWN)
            unknown.append(piece.what)
            commands += piece.commands
        made = "".join(text)
        home = state.variables.get("HOME")
        if home is not None and re.match(rb"~(/|\Z)", node.text or b""):
            made = home.text + made[1:]
        return Word(made, tuple(unknown)), commands

    def _pieces(self, node: Node, state: _State) -> Iterator["str | _Unknown"]:
        source = _text(node)
        match node.type:
            case "word" | "extglob_pattern" | "regex":
                yield _without_backslashes(source, "")
            case "raw_string":
                yield source[1:-1]
            case "ansi_c_string":
                yield _ansi_c(source[2:-1])
            case "string" | "translated_string" | "heredoc_body":
                yield from self._quoted(node, state)
            case "string_content" | "heredoc_content":
                yield _without_backslashes(source, '$`"\\\n')
            case "concatenation" | "command_name":
                for child in node.children:
                    yield from self._pieces(child, state)
            case "simple_expansion" | "expansion":
                yield from self._expansion(node, state)
            case "command_substitution" | "process_substitution":
                inner = tuple(self._inside(node, state.copy()))
                yield _Unknown(inner, inner)
            case "arithmetic_expansion":
                yield _Unknown("", tuple(self._inside(node, state.copy())))
            case _:
                yield source

    def _quoted(self, node: Node, state: _State) -> Iterator["str | _Unknown"]:
        """Like the grammar's children, plus the blanks between them that it leaves out."""
        raw = node.text or b""
        inner = node.type != "heredoc_body"
        at = node.start_byte
        children = [child for child in node.children if child.is_named]
        end = node.end_byte
        if inner:
            at = node.children[0].end_byte if node.children else at
            end = node.children[-1].start_byte if node.children else end
        for child in children:
            yield _without_backslashes(_slice(raw, node, at, child.start_byte), '$`"\\\n')
            yield from self._pieces(child, state)
            at = child.end_byte
        yield _without_backslashes(_slice(raw, node, at, end), '$`"\\\n')

    def _expansion(self, node: Node, state: _State) -> Iterator["str | _Unknown"]:
        names = [
            child
            for child in node.named_children
            if child.type in ("variable_name", "special_variable_name")
        ]
        name = _text(names[0]) if names else ""
        if name in state.variables and all(child in names for child in node.named_children):
            yield from _parts(state.variables[name])
            return
        inner: list[Command] = []
        default: Word | None = None
        for child in node.named_children:
            if child not in names:
                default, commands = self._word(child, state)
                inner += commands
        if default is not None and name not in state.variables and not name.endswith("_PORT"):
            operators = {child.type for child in node.children}
            if operators & {":-", "-", ":=", "="} and name != "PORT":
                yield default.text
                return
        yield _Unknown(name, tuple(inner))


@dataclass(frozen=True, slots=True)
class _Unknown:
    what: str | tuple[Command, ...]
    commands: tuple[Command, ...] = ()
    """What runs here and now to make it."""


def _parts(word: Word) -> Iterator[str | _Unknown]:
    """A word that stands in another one; what runs for it has been listed already."""
    unknown = iter(word.unknown)
    first, *others = word.text.split(UNKNOWN)
    yield first
    for text in others:
        yield _Unknown(next(unknown, ""))
        yield text


def _script_of_shell(arguments: Sequence[Word]) -> Word | None:
    """The text after `-c`, or the empty word for a script file; None: it reads its input."""
    takes_text = False
    for word in arguments:
        if word.text.startswith("-") and not word.text.startswith("--") and "c" in word.text:
            takes_text = True
        elif not word.text.startswith(("-", "+")):
            return word if takes_text else Word("")
    return None


def _moved(command: Command, state: _State) -> str | None:
    targets = [word for word in command.arguments if not word.text.startswith("-")]
    if not targets:
        home = state.variables.get("HOME")
        return home.text if home is not None and command.name == "cd" else None
    target = targets[0]
    if not target.known or target.text == "-":
        return None
    return resolved(target.text, state.cwd)


def _wrapper(
    with_value: str = "", positional: int = 0, *, assigns: bool = False, adds: bool = False
) -> Callable[[Command], Command]:
    """How to take a wrapper off: its options that take a value, and its own arguments."""
    valued = frozenset(with_value.split())

    def unwrap(command: Command) -> Command:
        words = list(command.arguments)
        assignments = list(command.assignments)
        while words and words[0].text.startswith("-"):
            option = words.pop(0).text
            if option == "--":
                break
            if option in valued and words:
                words.pop(0)
        del words[:positional]
        while assigns and words and "=" in words[0].text:
            name, _, value = words.pop(0).text.partition("=")
            assignments.append((name, Word(value)))
        if adds and words:
            words.append(Word(UNKNOWN, ("xargs",)))
        return replace(command, words=tuple(words), assignments=tuple(assignments))

    return unwrap


_WRAPPERS: Mapping[str, Callable[[Command], Command]] = {
    "env": _wrapper("-u -C -S --unset --chdir", assigns=True),
    "sudo": _wrapper("-u -g -C -h -p", assigns=True),
    "doas": _wrapper("-u -C"),
    "nohup": _wrapper(),
    "setsid": _wrapper(),
    "time": _wrapper("-f -o"),
    "exec": _wrapper("-a"),
    "command": _wrapper(),
    "builtin": _wrapper(),
    "nice": _wrapper("-n"),
    "ionice": _wrapper("-c -n"),
    "stdbuf": _wrapper("-i -o -e"),
    "timeout": _wrapper("-k -s --kill-after --signal", 1),
    "xargs": _wrapper("-n -I -P -L -d -a -s -E -i", adds=True),
    "watch": _wrapper("-n --interval"),
    "flock": _wrapper("-w -E", 1),
    "xvfb-run": _wrapper("-n -s -e -f -p -w"),
    "npx": _wrapper("-p --package"),
    "bunx": _wrapper(),
    "pnpx": _wrapper(),
}


def _of_find(command: Command) -> Iterator[Command]:
    """What `find` runs for what it finds."""
    words = command.words
    starts = [
        i for i, word in enumerate(words) if word.text in ("-exec", "-execdir", "-ok", "-okdir")
    ]
    for start in starts:
        ends = [i for i in range(start, len(words)) if words[i].text in (";", "+")]
        inner = words[start + 1 : ends[0] if ends else len(words)]
        filled = tuple(Word(UNKNOWN, ("find",)) if word.text == "{}" else word for word in inner)
        if filled:
            yield replace(command, words=filled)


def _text(node: Node) -> str:
    return (node.text or b"").decode("utf-8", "replace")


def _slice(raw: bytes, node: Node, start: int, end: int) -> str:
    return raw[start - node.start_byte : max(end, start) - node.start_byte].decode(
        "utf-8", "replace"
    )


def _without_backslashes(text: str, only_before: str) -> str:
    """As the shell removes them: before any character, or in quotes before some."""
    if "\\" not in text:
        return text
    kept: list[str] = []
    characters = iter(text)
    for character in characters:
        if character != "\\":
            kept.append(character)
            continue
        following = next(characters, "\\")
        if only_before and following not in only_before:
            kept.append("\\")
        if following != "\n":
            kept.append(following)
    return "".join(kept)


def _ansi_c(text: str) -> str:
    try:
        return codecs.decode(text.encode("latin-1", "backslashreplace"), "unicode_escape")
    except UnicodeDecodeError:
        return text
