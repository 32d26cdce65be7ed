"""The part of the POSIX shell's grammar that the sandbox understands: from text to a tree.

Simple commands, pipelines, ``&& || ; &``, groups and subshells, if, for, while, until, redirections, here-documents,
quotes, parameters, command substitution and arithmetic. No functions, no case, no aliases. It runs nothing.
"""

import re
from dataclasses import dataclass, field
from typing import Final, NoReturn

from lium_mcp.sandbox.container.tree import (
    Arithmetic,
    Chain,
    Command,
    For,
    Group,
    If,
    List,
    Parameter,
    Part,
    Pipeline,
    Redirect,
    Simple,
    Substitution,
    Text,
    While,
    Word,
)

DEEPEST: Final = 24
LONGEST: Final = 1024 * 1024
NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASSIGNMENT: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=")
_REDIRECT: Final = re.compile(r"(\d?)(<<-|<<|<&|<|>>|>&|>\||>|&>>|&>)")
_BLANK: Final = " \t"
_ENDS: Final = " \t\n;&|<>()"
_RESERVED: Final = frozenset({"if", "then", "elif", "else", "fi", "for", "do", "done", "while", "until", "{", "}", "!"})
_UNSUPPORTED: Final = frozenset({"case", "function", "select", "[["})


class SyntaxFault(Exception):
    """The text is no command; the message says where."""


def parse(text: str) -> List:
    """Read a whole script.

    Raises:
        SyntaxFault: it is none.
    """
    if len(text) > LONGEST:
        raise SyntaxFault("the command is too long")
    parser = _Parser(text)
    script = parser.list_until(frozenset())
    if parser.at < len(text):
        parser.unexpected()
    return script


@dataclass
class _Parser:
    text: str
    at: int = 0
    depth: int = 0
    documents: list[tuple[str, bool, bool, list[Part]]] = field(default_factory=list)

    # what lies between words

    def peek(self, length: int = 1) -> str:
        return self.text[self.at : self.at + length]

    def blanks(self) -> None:
        while self.at < len(self.text):
            if self.peek() in _BLANK:
                self.at += 1
            elif self.peek(2) == "\\\n":
                self.at += 2
            elif self.peek() == "#" and (self.at == 0 or self.text[self.at - 1] in _ENDS):
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            else:
                return

    def newline(self) -> bool:
        self.blanks()
        if self.peek() != "\n":
            return False
        self.at += 1
        documents, self.documents = self.documents, []
        for end, strips, is_literal, parts in documents:
            parts.extend(self._document(end, strips=strips, is_literal=is_literal))
        return True

    def newlines(self) -> None:
        while self.newline():
            pass

    def unexpected(self) -> NoReturn:
        self.blanks()
        if self.at >= len(self.text):
            raise SyntaxFault("syntax error: unexpected end of file")
        found = "newline" if self.peek() == "\n" else (self._bare_word() or self.peek())
        raise SyntaxFault(f"syntax error near unexpected token `{found[:40]}'")

    def _bare_word(self) -> str:
        end = self.at
        while end < len(self.text) and self.text[end] not in _ENDS:
            end += 1
        return self.text[self.at : end]

    def reserved(self) -> str:
        """Return the reserved word that comes next, if one does."""
        self.blanks()
        word = self._bare_word()
        if word in _UNSUPPORTED:
            raise SyntaxFault(f"syntax error: the sandbox's shell has no `{word}'")
        return word if word in _RESERVED else ""

    def take(self, word: str) -> None:
        if self.reserved() != word:
            self.unexpected()
        self.at += len(word)

    # lists, pipelines, commands

    def list_until(self, ends: frozenset[str]) -> List:
        self.depth += 1
        if self.depth > DEEPEST:
            raise SyntaxFault("syntax error: nested too deeply")
        chains: list[Chain] = []
        while True:
            self.newlines()
            self.blanks()
            if self.at >= len(self.text) or self.peek() == ")" or self.reserved() in ends - {""}:
                break
            chains.append(self._chain())
        self.depth -= 1
        return List(tuple(chains))

    def _chain(self) -> Chain:
        start = self.at
        first, rest = self._pipeline(), []
        while True:
            self.blanks()
            operator = self.peek(2)
            if operator not in {"&&", "||"}:
                break
            self.at += 2
            self.newlines()
            rest.append(("&&" if operator == "&&" else "||", self._pipeline()))
        source, in_background = self.text[start : self.at].strip(), False
        if self.peek() in {";", "&"} and self.peek(2) != ";;":
            in_background = self.peek() == "&"
            self.at += 1
        elif self.at < len(self.text) and self.peek() not in {"\n", ")"}:
            self.unexpected()
        return Chain(first, tuple((op, part) for op, part in rest), in_background, source)  # type: ignore[misc]

    def _pipeline(self) -> Pipeline:
        is_negated = False
        while self.reserved() == "!":
            self.take("!")
            is_negated = not is_negated
        commands = [self._command()]
        while True:
            self.blanks()
            if self.peek() != "|" or self.peek(2) == "||":
                return Pipeline(tuple(commands), is_negated)
            self.at += 1
            if self.peek() == "&":
                raise SyntaxFault("syntax error: the sandbox's shell has no `|&'")
            self.newlines()
            commands.append(self._command())

    def _command(self) -> Command:
        self.blanks()
        start = self.at
        if self.peek() == "(":
            if self.peek(2) == "((":
                raise SyntaxFault("syntax error: the sandbox's shell has no `(('")
            self.at += 1
            body = self.list_until(frozenset())
            if self.peek() != ")":
                self.unexpected()
            self.at += 1
            return Group(self._filled(body), True, self._redirects(), self.text[start : self.at])
        match self.reserved():
            case "{":
                self.take("{")
                body = self._body("}")
                self.take("}")
                return Group(body, False, self._redirects(), self.text[start : self.at])
            case "if":
                return self._if(start)
            case "for":
                return self._for(start)
            case "while" | "until" as word:
                self.take(word)
                condition = self._body("do")
                body = self._do()
                return While(condition, body, word == "until", self._redirects(), self.text[start : self.at])
            case word if word:
                self.unexpected()
        return self._simple()

    def _body(self, *ends: str) -> List:
        return self._filled(self.list_until(frozenset(ends)))

    def _filled(self, body: List) -> List:
        if not body.chains:
            self.unexpected()
        return body

    def _do(self) -> List:
        self.newlines()
        self.take("do")
        body = self._body("done")
        self.take("done")
        return body

    def _if(self, start: int) -> If:
        branches, otherwise, word = [], None, "if"
        while word in {"if", "elif"}:
            self.take(word)
            condition = self._body("then")
            self.take("then")
            branches.append((condition, self._body("elif", "else", "fi")))
            word = self.reserved()
        if word == "else":
            self.take("else")
            otherwise = self._body("fi")
        self.take("fi")
        return If(tuple(branches), otherwise, self._redirects(), self.text[start : self.at])

    def _for(self, start: int) -> For:
        self.take("for")
        self.blanks()
        name = NAME.match(self.text, self.at)
        if name is None:
            self.unexpected()
        self.at = name.end()
        self.newlines()
        words: list[Word] = [(Parameter("@", quoted=True),)]
        self.blanks()
        if self._bare_word() == "in":
            self.at += 2
            words = []
            while True:
                self.blanks()
                if self.at >= len(self.text) or self.peek() in ";\n":
                    break
                words.append(self._word())
        self.blanks()
        if self.peek() == ";":
            self.at += 1
        body = self._do()
        return For(name.group(), tuple(words), body, self._redirects(), self.text[start : self.at])

    def _simple(self) -> Simple:
        start = self.at
        assignments: list[tuple[str, Word]] = []
        words: list[Word] = []
        redirects: list[Redirect] = []
        while True:
            self.blanks()
            if (redirect := self._redirect()) is not None:
                redirects.append(redirect)
                continue
            if self.at >= len(self.text) or self.peek() in "\n;&|<>)":
                break
            if self.peek() == "(":
                self.unexpected()
            assigned = None if words else _ASSIGNMENT.match(self.text, self.at)
            if assigned is not None:
                self.at = assigned.end()
                is_empty = self.at >= len(self.text) or self.peek() in _ENDS
                assignments.append((assigned.group(1), () if is_empty else self._word()))
            else:
                words.append(self._word())
        if not (assignments or words or redirects):
            self.unexpected()
        return Simple(tuple(assignments), tuple(words), tuple(redirects), self.text[start : self.at].strip())

    def _redirects(self) -> tuple[Redirect, ...]:
        found: list[Redirect] = []
        while True:
            self.blanks()
            redirect = self._redirect()
            if redirect is None:
                return tuple(found)
            found.append(redirect)

    def _redirect(self) -> Redirect | None:
        match = _REDIRECT.match(self.text, self.at)
        if match is None:
            return None
        given, operator = match.groups()
        self.at = match.end()
        self.blanks()
        if self.at >= len(self.text) or self.peek() in _ENDS:
            self.unexpected()
        number = int(given) if given else (0 if operator.startswith("<") else 1)
        if operator in {"<<", "<<-"}:
            start = self.at
            end = "".join(part.text for part in self._word() if isinstance(part, Text))
            is_literal = any(character in self.text[start : self.at] for character in "'\"\\")
            # Its text comes after the line that names it.
            parts: list[Part] = []
            self.documents.append((end, operator == "<<-", is_literal, parts))
            return Redirect(number, "<<", parts)
        target = self._word()
        match operator:
            case "<" | ">" | ">>" | "&>" | "&>>":
                return Redirect(number, operator, target)
            case ">|":
                return Redirect(number, ">", target)
        return Redirect(number, ">&", target)

    def _document(self, end: str, *, strips: bool, is_literal: bool) -> list[Part]:
        lines = []
        while self.at < len(self.text):
            stop = self.text.find("\n", self.at)
            line = self.text[self.at :] if stop < 0 else self.text[self.at : stop]
            self.at = len(self.text) if stop < 0 else stop + 1
            line = line.lstrip("\t") if strips else line
            if line == end:
                break
            lines.append(f"{line}\n")
        body = "".join(lines)
        return [Text(body, quoted=True)] if is_literal else _Parser(body, depth=self.depth).quoted_until("")

    # words

    def _word(self) -> Word:
        parts: list[Part] = []
        plain: list[str] = []

        def flush() -> None:
            if plain:
                parts.append(Text("".join(plain), quoted=False))
                plain.clear()

        while self.at < len(self.text) and self.peek() not in _ENDS:
            character = self.peek()
            if character == "'":
                end = self.text.find("'", self.at + 1)
                if end < 0:
                    raise SyntaxFault("syntax error: unexpected end of file while looking for matching `''")
                flush()
                parts.append(Text(self.text[self.at + 1 : end], quoted=True))
                self.at = end + 1
            elif character == '"':
                flush()
                self.at += 1
                parts.append(Text("", quoted=True))
                parts.extend(self.quoted_until('"'))
            elif character == "\\":
                if self.peek(2) != "\\\n":
                    flush()
                    parts.append(Text(self.text[self.at + 1 : self.at + 2] or "\\", quoted=True))
                self.at += 2
            elif character in "$`":
                flush()
                parts.append(self._dollar(quoted=False))
            else:
                plain.append(character)
                self.at += 1
        flush()
        self.at = min(self.at, len(self.text))
        return tuple(parts)

    def quoted_until(self, end: str) -> list[Part]:
        """Read what stands between double quotes, or a here-document to its end."""
        parts: list[Part] = []
        plain: list[str] = []
        while True:
            if self.at >= len(self.text):
                if end:
                    raise SyntaxFault(f"syntax error: unexpected end of file while looking for matching `{end}'")
                break
            character = self.peek()
            if character == end:
                self.at += 1
                break
            if character == "\\" and self.text[self.at + 1 : self.at + 2] in {"$", "`", "\\", "\n", end}:
                escaped = self.text[self.at + 1 : self.at + 2]
                plain.append("" if escaped == "\n" else escaped)
                self.at += 2
            elif character in "$`":
                parts.append(Text("".join(plain), quoted=True))
                plain = []
                parts.append(self._dollar(quoted=True))
            else:
                plain.append(character)
                self.at += 1
        parts.append(Text("".join(plain), quoted=True))
        return parts

    def _dollar(self, *, quoted: bool) -> Part:
        if self.peek() == "`":
            return self._backquotes(quoted=quoted)
        self.at += 1
        if self.peek(2) == "((":
            return self._arithmetic(quoted=quoted)
        if self.peek() == "(":
            self.at += 1
            body = self.list_until(frozenset())
            if self.peek() != ")":
                self.unexpected()
            self.at += 1
            return Substitution(body, quoted)
        if self.peek() == "{":
            return self._braced(quoted=quoted)
        if name := NAME.match(self.text, self.at):
            self.at = name.end()
            return Parameter(name.group(), quoted)
        if self.peek() and self.peek() in "?$!#@*0123456789":
            self.at += 1
            return Parameter(self.text[self.at - 1], quoted)
        return Text("$", quoted=True)

    def _backquotes(self, *, quoted: bool) -> Part:
        end = self.text.find("`", self.at + 1)
        if end < 0:
            raise SyntaxFault("syntax error: unexpected end of file while looking for matching ``'")
        inner = _Parser(self.text[self.at + 1 : end], depth=self.depth)
        body = inner.list_until(frozenset())
        if inner.at < len(inner.text):
            inner.unexpected()
        self.at = end + 1
        return Substitution(body, quoted)

    def _arithmetic(self, *, quoted: bool) -> Part:
        end = self.text.find("))", self.at)
        if end < 0:
            raise SyntaxFault("syntax error: unexpected end of file while looking for matching `))'")
        # Brackets within the expression may stand right before the end.
        while self.text[end + 2 : end + 3] == ")":
            end += 1
        inner = _Parser(self.text[self.at + 2 : end], depth=self.depth + 1)
        if inner.depth > DEEPEST:
            raise SyntaxFault("syntax error: nested too deeply")
        self.at = end + 2
        return Arithmetic(tuple(inner.quoted_until("")), quoted)

    def _braced(self, *, quoted: bool) -> Part:
        self.at += 1
        length = self.peek() == "#" and self.peek(2) != "#}"
        self.at += length
        name = NAME.match(self.text, self.at) or re.compile(r"[?$!#@*0-9]").match(self.text, self.at)
        if name is None:
            raise SyntaxFault("bad substitution")
        self.at = name.end()
        if self.peek() == "}":
            self.at += 1
            return Parameter(name.group(), quoted, "length" if length else "")
        operator = re.compile(r":?[-=+]").match(self.text, self.at)
        if operator is None or length:
            raise SyntaxFault("bad substitution: the sandbox's shell knows ${x:-y}, ${x:=y}, ${x:+y} and ${#x}")
        self.at = operator.end()
        self.depth += 1
        if self.depth > DEEPEST:
            raise SyntaxFault("syntax error: nested too deeply")
        argument = tuple(self.quoted_until("}"))
        self.depth -= 1
        return Parameter(name.group(), quoted, operator.group(), argument)
