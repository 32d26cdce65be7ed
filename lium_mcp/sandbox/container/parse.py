"""Reads a script of the sandbox's shell into a tree. It runs nothing.

What it does not understand it refuses before anything runs, in one sentence.
"""

import re
from collections.abc import Sequence
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
KNOWN: Final = "It knows ; && || | & ( ), redirects, quotes, $x, $(...), if and for."
_REDIRECT: Final = re.compile(r"(\d?)(<<-?(?!<)|<(?![<&(])|>&|>>?(?![>&|(])|&>>?)")
_ENDS: Final = " \t\n;&|<>()"
_SPECIAL: Final = _ENDS + "'\"\\$`"
_BRACES: Final = re.compile(r"\{[^{}]{0,40}(,|\.\.)[^{}]{0,40}\}")
_VARIABLE: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*|[?$!#@*0-9])\}|([A-Za-z_][A-Za-z0-9_]*|[?$!#@*0-9])")
_RESERVED: Final = frozenset({"if", "then", "elif", "else", "fi", "for", "do", "done"})
_ABSENT: Final = frozenset(
    {
        "while", "until", "case", "select", "function", "[[", "{", "!", "time", ".", "source", "eval", "exec", "trap",
        "read", "shift", "break", "continue", "return", "local", "declare", "alias", "unset", "let", "umask",
    }
)  # fmt: skip
_ABSENT_SIGNS: Final = ("|&", ";;", "<<<", "<&", "<(", ">(", ">|", "((")


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
    script = parser.script_until()
    if parser.at < len(text):
        parser.unexpected()
    return script


def _absent(what: str) -> SyntaxFault:
    return SyntaxFault(f"The sandbox's shell has no `{what}`. {KNOWN}")


class _ShellParser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0
        # Here-documents whose text comes after this line: where it goes, what ends it, whether leading tabs are
        # dropped, and whether it is literal.
        self.documents: list[tuple[list[Part], str, bool, bool]] = []

    def peek(self, length: int = 1) -> str:
        return self.text[self.at : self.at + length]

    def skip(self) -> None:
        """Go to the next character that counts, on this line."""
        while self.at < len(self.text):
            if self.peek() in " \t":
                self.at += 1
            elif self.peek(2) == "\\\n":
                self.at += 2
            elif self.peek() == "#" and (self.at == 0 or self.text[self.at - 1] in _ENDS):
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            else:
                return

    def skip_lines(self) -> None:
        self.skip()
        while self.peek() == "\n":
            self.at += 1
            documents, self.documents = self.documents, []
            for parts, end, strips, is_literal in documents:
                parts.extend(self.document(end, strips=strips, is_literal=is_literal))
            self.skip()

    def unexpected(self) -> NoReturn:
        self.skip()
        if self.at >= len(self.text):
            raise Unfinished("syntax error: unexpected end of file")
        if sign := next((sign for sign in _ABSENT_SIGNS if self.text.startswith(sign, self.at)), ""):
            raise _absent(sign)
        found = "newline" if self.peek() == "\n" else (self.bare_word() or self.peek())
        raise SyntaxFault(f"syntax error near unexpected token `{found[:40]}'")

    def bare_word(self) -> str:
        end = self.at
        while end < len(self.text) and self.text[end] not in _ENDS:
            end += 1
        return self.text[self.at : end]

    def reserved(self) -> str:
        """Return the reserved word that comes next, if one does."""
        self.skip()
        word = self.bare_word()
        if word in _ABSENT:
            raise _absent(word)
        return word if word in _RESERVED else ""

    def take(self, word: str) -> None:
        self.skip_lines()
        if self.reserved() != word:
            self.unexpected()
        self.at += len(word)

    # scripts and commands

    def script_until(self, *ends: str) -> ShellScript:
        """Read chains up to a reserved word, a closing bracket or the end of the text."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise SyntaxFault("syntax error: nested too deeply")
        chains: list[Chain] = []
        while True:
            self.skip_lines()
            if self.at >= len(self.text) or self.peek() == ")" or self.reserved() in ends:
                break
            chains.append(self.chain())
        self.depth -= 1
        if ends and not chains:
            self.unexpected()
        return ShellScript(tuple(chains))

    def chain(self) -> Chain:
        start, operator = self.at, ""
        pipelines: list[tuple[str, tuple[ShellCommand, ...]]] = []
        while True:
            pipelines.append((operator, self.pipeline()))
            operator = self.peek(2)
            if operator not in {"&&", "||"}:
                break
            self.at += 2
            self.skip_lines()
        source, ending = self.text[start : self.at].strip(), self.peek()
        if ending in {";", "&"} and self.peek(2) != ";;":
            self.at += 1
        elif ending not in {"", "\n", ")"}:
            self.unexpected()
        return Chain(tuple(pipelines), ending == "&", source)

    def pipeline(self) -> tuple[ShellCommand, ...]:
        commands = [self.command()]
        while self.peek() == "|" and self.peek(2) not in {"||", "|&"}:
            self.at += 1
            self.skip_lines()
            commands.append(self.command())
        return tuple(commands)

    def command(self) -> ShellCommand:
        self.skip()
        start, redirects = self.at, list[Redirect]()
        what: Simple | Subshell | If | For
        if self.peek() == "(" and self.peek(2) != "((":
            what = Subshell(self.bracketed())
        else:
            match self.reserved():
                case "if":
                    what = self.if_()
                case "for":
                    what = self.for_()
                case "":
                    what = self.simple(redirects)
                case _:
                    self.unexpected()
        while self.redirect(redirects):
            pass
        return ShellCommand(what, tuple(redirects), self.text[start : self.at].strip())

    def bracketed(self) -> ShellScript:
        self.at += 1
        body = self.script_until()
        if self.peek() != ")" or not body.chains:
            self.unexpected()
        self.at += 1
        return body

    def if_(self) -> If:
        branches, otherwise, word = [], None, "if"
        while word in {"if", "elif"}:
            self.take(word)
            condition = self.script_until("then")
            self.take("then")
            branches.append((condition, self.script_until("elif", "else", "fi")))
            word = self.reserved()
        if word == "else":
            self.take("else")
            otherwise = self.script_until("fi")
        self.take("fi")
        return If(tuple(branches), otherwise)

    def for_(self) -> For:
        self.take("for")
        self.skip()
        name = NAME.match(self.text, self.at)
        if name is None:
            self.unexpected()
        self.at = name.end()
        self.skip()
        if self.bare_word() != "in":
            self.unexpected()
        self.at += 2
        self.skip()
        words: list[Word] = []
        while self.peek() and self.peek() not in ";\n":
            words.append(self.word())
            self.skip()
        self.at += self.peek() == ";"
        self.take("do")
        body = self.script_until("done")
        self.take("done")
        return For(name.group(), tuple(words), body)

    def simple(self, redirects: list[Redirect]) -> Simple:
        assignments: list[tuple[str, Word]] = []
        words: list[Word] = []
        while True:
            if self.redirect(redirects):
                continue
            if self.peek() in {"", "\n", ";", "&", "|", ")"}:
                break
            name = None if words else NAME.match(self.text, self.at)
            if name is not None and self.text[name.end() : name.end() + 1] == "=":
                self.at = name.end() + 1
                is_empty = not self.peek() or self.peek() in _ENDS
                assignments.append((name.group(), () if is_empty else self.word()))
                continue
            if not words:
                self.reserved()
            words.append(self.word())
            if self.peek() == "(":
                raise _absent("f() {" if len(words) == 1 else "(")
        if not (assignments or words or redirects):
            self.unexpected()
        return Simple(tuple(assignments), tuple(words))

    def redirect(self, redirects: list[Redirect]) -> bool:
        self.skip()
        match = _REDIRECT.match(self.text, self.at)
        if match is None:
            return False
        given, operator = match.groups()
        self.at = match.end()
        self.skip()
        number, start = int(given or ("0" if operator[0] == "<" else "1")), self.at
        target = self.word()
        if operator.startswith("<<"):
            end = "".join(part.text for part in target if isinstance(part, Text))
            is_literal = bool(set("'\"\\") & set(self.text[start : self.at]))
            # The document's text comes after the line that names it.
            parts: list[Part] = []
            self.documents.append((parts, end, operator == "<<-", is_literal))
            operator, target = "<<", parts
        redirects.append(Redirect(number, operator, target))
        return True

    def document(self, end: str, *, strips: bool, is_literal: bool) -> Sequence[Part]:
        lines: list[str] = []
        while self.at < len(self.text):
            stop = self.text.find("\n", self.at)
            line = self.text[self.at :] if stop < 0 else self.text[self.at : stop]
            self.at = len(self.text) if stop < 0 else stop + 1
            line = line.lstrip("\t") if strips else line
            if line == end:
                body = "".join(lines)
                return [Text(body, quoted=True)] if is_literal else self.inside(body)
            lines.append(f"{line}\n")
        raise Unfinished(f"syntax error: unexpected end of file while looking for `{end[:40]}'")

    def inside(self, body: str) -> list[Part]:
        """Read a text in which only ``$`` and a backslash mean something."""
        parser = _ShellParser(body)
        parser.depth = self.depth
        return parser.quoted_until("")

    # words

    def word(self) -> Word:
        parts: list[Part] = []
        while self.at < len(self.text) and self.peek() not in _ENDS:
            match self.peek():
                case "'":
                    end = self.text.find("'", self.at + 1)
                    if end < 0:
                        raise Unfinished("syntax error: unexpected end of file while looking for matching `''")
                    parts.append(Text(self.text[self.at + 1 : end], quoted=True))
                    self.at = end + 1
                case '"':
                    self.at += 1
                    parts.extend(self.quoted_until('"'))
                case "\\":
                    if self.peek(2) != "\\\n":
                        parts.append(Text(self.text[self.at + 1 : self.at + 2] or "\\", quoted=True))
                    self.at = min(self.at + 2, len(self.text))
                case "$" | "`":
                    parts.append(self.dollar(quoted=False))
                case _:
                    plain = self.plain()
                    if braced := _BRACES.search(plain):
                        raise _absent(braced.group())
                    parts.append(Text(plain, quoted=False))
        if not parts:
            self.unexpected()
        return tuple(parts)

    def plain(self) -> str:
        """Read the characters that mean nothing by themselves."""
        start = self.at
        while self.at < len(self.text) and self.text[self.at] not in _SPECIAL:
            self.at += 1
        return self.text[start : self.at]

    def quoted_until(self, end: str) -> list[Part]:
        """Read what stands between double quotes, or a here-document to its end."""
        parts: list[Part] = [Text("", quoted=True)]
        while self.at < len(self.text):
            character, after = self.peek(), self.text[self.at + 1 : self.at + 2]
            if character == end:
                self.at += 1
                return parts
            if character == "\\" and after and after in f"$`\\\n{end}":
                parts.append(Text(after.strip("\n"), quoted=True))
                self.at += 2
            elif character in "$`":
                parts.append(self.dollar(quoted=True))
            else:
                stop = self.at + 1
                while stop < len(self.text) and self.text[stop] not in '"\\$`':
                    stop += 1
                parts.append(Text(self.text[self.at : stop], quoted=True))
                self.at = stop
        if end:
            raise Unfinished(f"syntax error: unexpected end of file while looking for matching `{end}'")
        return parts

    def dollar(self, *, quoted: bool) -> Part:
        for absent in ("`", "$((", *(() if quoted else ("$'",))):
            if self.text.startswith(absent, self.at):
                raise _absent(absent)
        self.at += 1
        if self.peek() == "(":
            self.at += 1
            body = self.script_until()
            if self.peek() != ")":
                self.unexpected()
            self.at += 1
            return Substitution(body, quoted)
        if match := _VARIABLE.match(self.text, self.at):
            self.at = match.end()
            return ShellVariable(match.group(1) or match.group(2), quoted)
        if self.peek() == "{":
            raise _absent("${...} with anything but a name in it")
        return Text("$", quoted=True)
