"""Reads a script of the sandbox's shell into a tree. It runs nothing.

What it does not understand it refuses before anything runs, in one sentence.
"""

import re
from typing import Final, NoReturn

from lium_mcp.sandbox.container.tree import (
    Chain,
    For,
    If,
    Part,
    Redirect,
    ShellCommand,
    ShellScript,
    ShellVariable,
    Simple,
    Subshell,
    Substitution,
    Text,
    Word,
)

DEEPEST: Final = 24
LONGEST: Final = 1024 * 1024
NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
KNOWN: Final = "It knows ; && || | & ( ), > >> < 2>&1, quotes, $x, $(...), if and for."

# Blanks, and comments, which begin where a word could.
_BLANK: Final = re.compile(r"(?:[ \t]|\\\n|(?<![^ \t\n;&|()<>])#[^\n]*)*")
_REDIRECT: Final = re.compile(r"([0-9]?)(>>|>&|>|<)|&(>>?)")
_BARE_WORD: Final = re.compile(r"[^ \t\n;&|<>()]*")
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


class SyntaxFault(Exception):
    """The text is no script that the sandbox understands; the message says where."""


class Unfinished(SyntaxFault):
    """The text is no script yet, but more text may make it one."""


def parse(text: str) -> ShellScript:
    """Read a whole script.

    Raises:
        SyntaxFault: it is none.
    """
    if len(text) > LONGEST:
        raise SyntaxFault("the command is too long")
    parser = _ShellParser(text)
    script = parser.script()
    if parser.next():
        parser.unexpected()
    return script


def _absent(what: str) -> SyntaxFault:
    return SyntaxFault(f"The sandbox's shell has no `{what}`. {KNOWN}")


class _ShellParser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def next(self) -> str:
        """Skip blanks, and return the character that comes then; nothing at the end."""
        self._match(_BLANK)
        if absent := _ABSENT_SIGN.match(self._text, self._at):
            raise _absent(absent[0])
        return self._text[self._at : self._at + 1]

    def unexpected(self) -> NoReturn:
        if not (found := self.next()):
            raise Unfinished("syntax error: unexpected end of file")
        word = _BARE_WORD.match(self._text, self._at)
        found = "newline" if found == "\n" else (word and word[0]) or found
        raise SyntaxFault(f"syntax error near unexpected token `{found[:40]}'")

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Go beyond what fits a pattern here, if anything does."""
        if match := pattern.match(self._text, self._at):
            self._at = match.end()
        return match

    def _takes(self, sign: str) -> bool:
        """Go beyond a sign, if it comes next."""
        self.next()
        is_there = self._text.startswith(sign, self._at)
        self._at += len(sign) * is_there
        return is_there

    def _take(self, sign: str) -> None:
        if not self._takes(sign):
            self.unexpected()

    def _skip_lines(self) -> None:
        while self._takes("\n"):
            pass

    def _reserved(self) -> str:
        """Return the reserved word that comes next, if one does."""
        self.next()
        match = _BARE_WORD.match(self._text, self._at)
        word = match[0] if match else ""
        if word in _ABSENT:
            raise _absent(word)
        return word if word in _RESERVED else ""

    def _take_reserved(self, word: str) -> None:
        self._skip_lines()
        if self._reserved() != word:
            self.unexpected()
        self._at += len(word)

    # scripts and commands

    def script(self, *ends: str) -> ShellScript:
        """Read chains up to a reserved word, a closing bracket or the end of the text."""
        self._depth += 1
        if self._depth > DEEPEST:
            raise SyntaxFault("syntax error: nested too deeply")
        chains: list[Chain] = []
        self._skip_lines()
        while self.next() not in {"", ")"} and self._reserved() not in ends:
            chains.append(self._chain())
            self._skip_lines()
        self._depth -= 1
        if ends and not chains:
            self.unexpected()
        return chains

    def _bracketed(self) -> ShellScript:
        self._take("(")
        body = self.script()
        self._take(")")
        return body

    def _chain(self) -> Chain:
        start = self._at
        pipelines = [("", self._pipeline())]
        while operator := next((sign for sign in ("&&", "||") if self._takes(sign)), ""):
            self._skip_lines()
            pipelines.append((operator, self._pipeline()))
        source = self._text[start : self._at].strip()
        in_background = self._takes("&")
        if not in_background and not self._takes(";") and self.next() not in {"", "\n", ")"}:
            self.unexpected()
        return Chain(pipelines, in_background, source)

    def _pipeline(self) -> list[ShellCommand]:
        commands = [self._command()]
        while self.next() == "|" and not self._text.startswith("||", self._at):
            self._take("|")
            self._skip_lines()
            commands.append(self._command())
        return commands

    def _command(self) -> ShellCommand:
        redirects: list[Redirect] = []
        what: Simple | Subshell | If | For
        character, start = self.next(), self._at
        match "(" if character == "(" else self._reserved():
            case "(":
                what = Subshell(self._bracketed())
            case "if":
                what = self._if()
            case "for":
                what = self._for()
            case "":
                what = self._simple(redirects)
            case _:
                self.unexpected()
        while self._redirect(redirects):
            pass
        return ShellCommand(what, redirects, self._text[start : self._at].strip())

    def _if(self) -> If:
        branches, word = list[tuple[ShellScript, ShellScript]](), "if"
        while word in {"if", "elif"}:
            self._take_reserved(word)
            condition = self.script("then")
            self._take_reserved("then")
            branches.append((condition, self.script("elif", "else", "fi")))
            word = self._reserved()
        if word == "else":
            self._take_reserved("else")
            branches.append(((), self.script("fi")))
        self._take_reserved("fi")
        return If(branches)

    def _for(self) -> For:
        self._take_reserved("for")
        self.next()
        if (name := self._match(NAME)) is None:
            self.unexpected()
        self._take("in")
        words: list[Word] = []
        while self.next() not in {"", ";", "\n"}:
            words.append(self._word())
        self._takes(";")
        self._take_reserved("do")
        body = self.script("done")
        self._take_reserved("done")
        return For(name[0], words, body)

    def _simple(self, redirects: list[Redirect]) -> Simple:
        assignments: list[tuple[str, Word]] = []
        words: list[Word] = []
        while True:
            if self._redirect(redirects):
                continue
            if self.next() in {"", "\n", ";", "&", "|", ")"}:
                break
            name = None if words else NAME.match(self._text, self._at)
            if name and self._text.startswith("=", name.end()):
                self._at = name.end() + 1
                assignments.append((name[0], self._parts()))
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
                raise Unfinished("syntax error: unexpected end of file while looking for matching `''")
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
                raise Unfinished("syntax error: unexpected end of file while looking for matching `\"'")
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
