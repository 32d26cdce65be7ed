"""Every error code that the program can answer with, found in its source.

A code is what a `Failure`, a `NotConfirmed` or a pod of several gets: in the source a text, a choice between texts, a
name that is given such texts, or a text that is made from a noun. What hands on the code of another failure has none.
"""

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final

import lium_mcp

PACKAGE: Final = Path(lium_mcp.__file__).parent
# What is made with a code, and which of its arguments is that.
_MADE_WITH_A_CODE: Final = ("Failure", "NotConfirmed", "PodOfBatch")
_TABLES: Final = ("_CODES", "_SAME_AS_OURS")
ANY_NOUN: Final = "*"
_Named = Mapping[str, list[ast.expr]]


@cache
def codes() -> frozenset[str]:
    """All codes; one that is made from a noun has `*` for it."""
    trees = [ast.parse(file.read_text()) for file in PACKAGE.rglob("*.py") if "sandbox" not in file.parts]
    # A name may be that of another file's constant.
    constants = {name: values for tree in trees for name, values in _assigned(tree).items() if name.isupper()}
    return frozenset(code for tree in trees for code in _of_file(tree, constants | _assigned(tree)))


def _of_file(tree: ast.Module, named: _Named) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Call() if _called(node).endswith(_MADE_WITH_A_CODE):
                yield from _code_of(node, named)
            case ast.ClassDef(bases=[ast.Name(id="Failure")]):
                for call in ast.walk(node):
                    if isinstance(call, ast.Call) and _called(call) == "__init__":
                        yield from _code_of(call, named)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Dict(values=values)) if name in _TABLES:
                for value in values:
                    yield from _texts(value, named)


def _code_of(call: ast.Call, named: _Named) -> Iterator[str]:
    given = [keyword.value for keyword in call.keywords if keyword.arg == "code"] or call.args[:1]
    for value in given:
        yield from _texts(value, named)


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def _assigned(tree: ast.Module) -> dict[str, list[ast.expr]]:
    """What each name of a file is assigned, wherever."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
                # The first of several that are taken out of a row of a table.
                | ast.Assign(targets=[ast.Tuple(elts=[ast.Name(id=name), *_])], value=ast.Subscript() as value)
            ):
                found.setdefault(name, []).append(value)
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                for one, value in zip(names, values, strict=True):
                    if isinstance(one, ast.Name):
                        found.setdefault(one.id, []).append(value)
    return found


def _texts(value: ast.expr | None, named: _Named) -> Iterator[str]:
    """The texts that an expression may be, as far as it is built as codes are."""
    match value:
        case ast.Constant(value=str() as text):
            yield text
        case ast.JoinedStr(values=parts):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else ANY_NOUN for part in parts)
        case ast.Name(id=name):
            for given in named.get(name, ()):
                yield from _texts(given, named)
        case _:
            for part in _parts(value, named):
                yield from _texts(part, named)


def _parts(value: ast.expr | None, named: _Named) -> list[ast.expr]:
    match value:
        case ast.IfExp(body=one, orelse=other):
            return [one, other]
        case ast.Call(func=ast.Name(id="next"), args=[_, otherwise]):
            return [otherwise]
        case ast.Call(func=ast.Attribute(value=ast.Dict(values=values), attr="get"), args=[_, otherwise]):
            return [*values, otherwise]
        case ast.Subscript(value=ast.Name(id=table)):
            rows = [row for given in named.get(table, ()) if isinstance(given, ast.Dict) for row in given.values]
            return [row.elts[0] for row in rows if isinstance(row, ast.Tuple)]
    return []
