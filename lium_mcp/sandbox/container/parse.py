"""Reads a script of the sandbox's shell into a tree. It runs nothing.

What it does not understand it refuses before anything runs, in one sentence.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple, NoReturn

MISUSED: Final = 2
DEEPEST: Final = 24
LONGEST: Final = 1024 * 1024
NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
KNOWN: Final = "It knows ; && || | & ( ), > >> < 2>&1, quotes, $x, $(...), if and for."

# Blanks, and comments, which begin where a word could.
_BLANK: Final = re.compile(r"(?:[ \t]|\\\n|(?<![^ \t\n;&|()<>])#[^\n]*)*")
_REDIRECT: Final = re.compile(r"([0-9]?)(>>|>&|>|<)|&(>>?)")
_NEXT: Final = re.compile(r"&&|\|\||&>|[\n;&|<>()]|[^ \t\n;&|<>()]*")
_ASSIGNED: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=")
_PLAIN: Final = re.compile(r"[^ \t\n;&|<>()'\"\\$`]+")
_SINGLE_QUOTED: Final = re.compile(r"'([^']*)'")
_ESCAPED: Final = re.compile(r"\\(?:\n|(.)|$)")
_DOUBLE_QUOTE: Final = re.compile('"')
_IN_DOUBLE_QUOTES: Final = re.compile(r"([^\"\\$`]+)|\\(?:\n|([$`\"\\]))|(\\)")
_DOLLAR: Final = re.compile(r"\$(?:(\()|\{([A-Za-z_]\w*|[?$!#0-9])\}|([A-Za-z_]\w*|[?$!#0-9])|)", re.ASCII)

_RESERVED: Final = frozenset({"if", "then", "elif", "else", "fi", "for", "do", "done"})
_ABSENT: Final = frozenset(
    {
        "while", "until", "case", "select", "function", "[[", "{", "!", "time", ".", "source", "eval", "exec", "trap",
        "read", "shift", "break", "continue", "return", "local", "declare", "alias", "unset", "let", "umask", "set",
        "wait",
    }
)  # fmt: skip
_ABSENT_SIGN: Final = re.compile(r"<<[<-]?|<&|<\(|>\(|>\||\|&|;;|\(\(")
_ABSENT_DOLLAR: Final = re.compile(r"`|\$(?:\(\(|['@*-])")
_ABSENT_BRACES: Final = re.compile(r"\{[^{}]{0,40}(,|\.\.)[^{}]{0,40}\}")


class Text(NamedTuple):
    """Characters that stand for themselves; unquoted ones may hold wildcards."""

    text: str
    quoted: bool


class ShellVariable(NamedTuple):
    """``$name``, ``${name}``, ``$1``, ``$?`` and the like."""

    name: str
    quoted: bool


class Substitution(NamedTuple):
    """``$(...)``."""

    script: "ShellScript"
    quoted: bool


Part = Text | ShellVariable | Substitution
Word = Sequence[Part]


class Redirect(NamedTuple):
    """One redirection; ``target`` is a file name, or the number after ``>&``."""

    number: int
    operator: str
    target: Word


class Simple(NamedTuple):
    """Assignments and a command with its arguments."""

    assignments: Sequence[tuple[str, Word]]
    words: Sequence[Word]


class Subshell(NamedTuple):
    """``( ... )``."""

    body: "ShellScript"


class If(NamedTuple):
    """Branches of condition and body; the condition of ``else`` is an empty script."""

    branches: Sequence[tuple["ShellScript", "ShellScript"]]


class For(NamedTuple):
    """A loop over words."""

    name: str
    words: Sequence[Word]
    body: "ShellScript"


class ShellCommand(NamedTuple):
    """What is run, and where its input and output go."""

    what: Simple | Subshell | If | For
    redirects: Sequence[Redirect]


class Chain(NamedTuple):
    """Pipelines, each with the ``&&`` or ``||`` before it; the first has none."""

    pipelines: Sequence[tuple[str, Sequence[ShellCommand]]]
    in_background: bool


ShellScript = Sequence[Chain]


class ShellFault(Exception):
    """The shell cannot do what it should: what it says, and the exit status."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class Unfinished(ShellFault):
    """The text is no script yet, but more text may make it one."""


def parse(text: str) -> ShellScript:
    """Read a whole script.

    Raises:
        ShellFault: it is none that the sandbox understands.
    """
    if len(text) > LONGEST:
        raise ShellFault("the command is too long", MISUSED)
    parser = _ShellParser(text)
    script = parser.script()
    if parser.next():
        parser.unexpected()
    return script


def _absent(what: str) -> ShellFault:
    return ShellFault(f"The sandbox's shell has no `{what}`. {KNOWN}", MISUSED)


def _unfinished(wanted: str = "") -> Unfinished:
    looking = f" while looking for matching `{wanted}'" if wanted else ""
    return Unfinished(f"syntax error: unexpected end of file{looking}", MISUSED)


class _ShellParser:
    def __init__(self, text: str) -> None:
        self._text, self._at, self._depth = text, 0, 0

    def next(self) -> str:
        """Skip blanks, and return the sign or the bare word that comes then; nothing at the end."""
        self._match(_BLANK)
        if absent := _ABSENT_SIGN.match(self._text, self._at):
            raise _absent(absent[0])
        match = _NEXT.match(self._text, self._at)
        return match[0] if match else ""

    def unexpected(self) -> NoReturn:
        if not (found := self.next()):
            raise _unfinished()
        token = "newline" if found == "\n" else found[:40]
        raise ShellFault(f"syntax error near unexpected token `{token}'", MISUSED)

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Go beyond what fits a pattern here, if anything does."""
        if match := pattern.match(self._text, self._at):
            self._at = match.end()
        return match

    def _takes(self, *wanted: str) -> str:
        """Go beyond one of these signs or words, if it comes next, and return it."""
        if (found := self.next()) not in wanted:
            return ""
        self._at += len(found)
        return found

    def _take(self, wanted: str) -> None:
        if not self._takes(wanted):
            self.unexpected()

    def _skip_lines(self) -> None:
        while self._takes("\n"):
            pass

    # scripts and commands

    def script(self, *ends: str) -> ShellScript:
        """Read chains up to a reserved word, a closing bracket or the end of the text."""
        self._depth += 1
        if self._depth > DEEPEST:
            raise ShellFault("syntax error: nested too deeply", MISUSED)
        chains: list[Chain] = []
        self._skip_lines()
        while self.next() not in {"", ")", *ends}:
            chains.append(self._chain())
            self._skip_lines()
        self._depth -= 1
        if ends and not chains:
            self.unexpected()
        return chains

    def _chain(self) -> Chain:
        pipelines = [("", self._pipeline())]
        while operator := self._takes("&&", "||"):
            self._skip_lines()
            pipelines.append((operator, self._pipeline()))
        end = self._takes(";", "&")
        if not end and self.next() not in {"", "\n", ")"}:
            self.unexpected()
        return Chain(pipelines, end == "&")

    def _pipeline(self) -> list[ShellCommand]:
        commands = [self._command()]
        while self._takes("|"):
            self._skip_lines()
            commands.append(self._command())
        return commands

    def _command(self) -> ShellCommand:
        redirects: list[Redirect] = []
        what: Simple | Subshell | If | For
        if self._takes("("):
            what = Subshell(self.script())
            self._take(")")
        elif self._takes("if"):
            what = self._if()
        elif self._takes("for"):
            what = self._for()
        else:
            what = self._simple(redirects)
        while self._redirect(redirects):
            pass
        return ShellCommand(what, redirects)

    def _if(self) -> If:
        branches, word = list[tuple[ShellScript, ShellScript]](), "if"
        while word in {"if", "elif"}:
            condition = self.script("then")
            self._take("then")
            branches.append((condition, self.script("elif", "else", "fi")))
            word = self._takes("elif", "else", "fi") or self.unexpected()
        if word == "else":
            branches.append(((), self.script("fi")))
            self._take("fi")
        return If(branches)

    def _for(self) -> For:
        self.next()
        name = self._match(NAME) or self.unexpected()
        self._take("in")
        words: list[Word] = []
        while self.next() not in {"", ";", "\n"}:
            words.append(self._word())
        self._takes(";")
        self._skip_lines()
        self._take("do")
        body = self.script("done")
        self._take("done")
        return For(name[0], words, body)

    def _simple(self, redirects: list[Redirect]) -> Simple:
        assignments, words = list[tuple[str, Word]](), list[Word]()
        while (found := self.next()) not in {"", "\n", ";", "&", "&&", "|", "||", ")"}:
            if self._redirect(redirects):
                continue
            if found in _ABSENT and not words:
                raise _absent(found)
            if found in _RESERVED and not words:
                self.unexpected()
            if name := None if words else self._match(_ASSIGNED):
                assignments.append((name[1], self._parts()))
                continue
            words.append(self._word())
            if self.next() == "(":
                raise _absent("f() {" if len(words) == 1 else "(")
        if not (assignments or words or redirects):
            self.unexpected()
        return Simple(assignments, words)

    def _redirect(self, redirects: list[Redirect]) -> bool:
        self.next()
        if (match := self._match(_REDIRECT)) is None:
            return False
        number, operator, both = match.groups()
        self.next()
        target = self._word()
        redirects.append(Redirect(int(number or operator != "<"), operator or both, target))
        if both:
            redirects.append(Redirect(2, ">&", [Text("1", quoted=True)]))
        return True

    # words

    def _word(self) -> Word:
        if not (parts := self._parts()):
            self.unexpected()
        return parts

    def _parts(self) -> list[Part]:
        """Read a word; it is empty where something else comes."""
        parts: list[Part] = []
        while True:
            if match := self._match(_PLAIN):
                text = match[0]
                if braces := _ABSENT_BRACES.search(text):
                    raise _absent(braces[0])
                if not parts and (text == "~" or text.startswith("~/")):
                    parts.append(ShellVariable("HOME", quoted=True))
                    text = text[1:]
                parts.append(Text(text, quoted=False))
            elif match := self._match(_SINGLE_QUOTED) or self._match(_ESCAPED):
                parts.append(Text(match[1] or "", quoted=True))
            elif self._match(_DOUBLE_QUOTE):
                parts += self._double_quoted()
            elif part := self._dollar(quoted=False):
                parts.append(part)
            elif self._text.startswith("'", self._at):
                raise _unfinished("'")
            else:
                return parts

    def _double_quoted(self) -> list[Part]:
        parts: list[Part] = [Text("", quoted=True)]
        while not self._match(_DOUBLE_QUOTE):
            if match := self._match(_IN_DOUBLE_QUOTES):
                parts.append(Text(match[1] or match[2] or match[3] or "", quoted=True))
            elif part := self._dollar(quoted=True):
                parts.append(part)
            else:
                raise _unfinished('"')
        return parts

    def _dollar(self, *, quoted: bool) -> Part | None:
        """Read what a dollar sign stands before, if one comes next."""
        absent = _ABSENT_DOLLAR.match(self._text, self._at)
        if absent and not (quoted and absent[0] == "$'"):
            raise _absent(absent[0])
        if (match := self._match(_DOLLAR)) is None:
            return None
        if match[1]:
            body = self.script()
            self._take(")")
            return Substitution(body, quoted)
        if name := match[2] or match[3]:
            return ShellVariable(name, quoted)
        if self._text.startswith("{", self._at):
            raise _absent("${...} with anything but a name in it")
        return Text("$", quoted=True)
