"""An answer is safe to show and to send, whatever the strings and numbers in it came from."""

import base64
import json
import math
import unicodedata
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mcp.types import TextContent

from lium_mcp.guard.redaction import Redactor
from lium_mcp.results import Result, Usd, UtcTime
from lium_mcp.text import clean
from lium_mcp.toolkit.rendering import render

BIDI_CONTROLS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
INVISIBLE = "\u00ad\u180e\u200b\u200c\u200d\u2060\u2061\u2062\u2063\u2064\ufeff\ufff9\U000e0001\U000e0041\U000e0100"
ESCAPES = (
    st.sampled_from(["\x1b", "\x1b[", "\x1b[31", "\x1b[31m", "\x1b]0;title\x07", "\x1b]8;;", "\x1b\\", "\x9b1m"])
    | st.sampled_from(list(BIDI_CONTROLS + INVISIBLE))
    | st.characters(categories=["Cc", "Cs"])
)
HOSTILE = st.lists(st.text(max_size=5) | ESCAPES, max_size=12).map("".join)
ORDINARY = st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"], exclude_characters="\U000e0100"))


def is_unsafe(char: str) -> bool:
    """Told from Unicode's own categories, not from our expression."""
    return (
        (unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} and char not in "\t\n")
        or char in BIDI_CONTROLS
        or char in INVISIBLE
    )


@given(HOSTILE)
@example("\x1b\x1b[31m[32m")
@example("\x1b]\x1b]\x07")
def test_no_control_or_invisible_character_survives(text: str) -> None:
    assert not [char for char in clean(text) if is_unsafe(char)]


@given(HOSTILE)
def test_what_is_clean_stays_as_it_is(text: str) -> None:
    assert clean(clean(text)) == clean(text)


@given(ORDINARY.filter(lambda text: not any("\U000e0000" <= char <= "\U000e0fff" for char in text)))
@example("tab\tand\nnewline")
@example("🚀 🇩🇪 👍🏽 ❤️ 👩")
@example("深度学习 训练 한국어 日本語 עברית العربية ไทย naïve café")
def test_ordinary_text_is_unchanged(text: str) -> None:
    assert clean(text) == text


@given(
    ORDINARY,
    st.sampled_from(["\x1b[1;31m", "\x1b[0m", "\x1b]0;owned\x07", "\x1b]8;;x\x1b\\", "\x1bc", "\x1b(B", "\x1b7"]),
)
def test_an_escape_sequence_goes_with_all_that_belongs_to_it(text: str, escape: str) -> None:
    assert clean(f"before{escape}\t{text}") == f"before\t{clean(text)}"


def test_an_escape_sequence_without_an_end_hides_nothing() -> None:
    assert clean("a pod named x\x1b]8;;y. It bills until it is removed.").endswith("It bills until it is removed.")


def test_line_ends_of_windows_are_line_ends() -> None:
    assert clean("one\r\ntwo\rthree") == "one\ntwothree"


class Row(Result):
    name: str
    note: str | None = None
    at: UtcTime | None = None
    price_usd: Usd | None = None
    ratio: float | None = None


class Table(Result):
    rows: list[Row]
    by_port: dict[str, str] | None = None
    next_cursor: str | None = None


def parsed(result: Result) -> Any:
    answer = render(result)
    (block,) = answer.content
    assert isinstance(block, TextContent)
    assert not answer.is_error
    # As strict as any client: NaN and Infinity are no JSON.
    read = json.loads(block.text, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))
    assert read == answer.structured_content
    return read


def test_what_is_absent_is_left_out_at_every_depth() -> None:
    assert parsed(Table(rows=[Row(name="a"), Row(name="b", note="x")])) == {
        "rows": [{"name": "a"}, {"name": "b", "note": "x"}]
    }


def test_what_is_empty_or_zero_is_not_absent() -> None:
    table = Table(rows=[Row(name="", price_usd=0, ratio=0.0)], by_port={})
    assert parsed(table) == {"rows": [{"name": "", "price_usd": 0, "ratio": 0}], "by_port": {}}


@settings(max_examples=40)
@given(HOSTILE, HOSTILE, HOSTILE)
def test_every_string_of_an_answer_is_clean(name: str, key: str, value: str) -> None:
    read = parsed(Table(rows=[Row(name=name)], by_port={key: value}))
    assert read["rows"] == [{"name": clean(name)}]
    assert list(read["by_port"].values()) == [clean(value)]
    assert not [char for name in read["by_port"] for char in name if is_unsafe(char)]
    json.dumps(read, ensure_ascii=False).encode()


@given(st.floats(), st.floats())
@example(math.nan, math.inf)
@example(-math.inf, 1.7e308)
def test_every_number_of_an_answer_is_one_that_json_has(price: float, ratio: float) -> None:
    (row,) = parsed(Table(rows=[Row(name="", price_usd=price, ratio=ratio)]))["rows"]
    assert math.isfinite(row["price_usd"])
    assert math.isfinite(row["ratio"])


@given(st.floats(-1e6, 1e6))
def test_money_is_rounded_to_a_hundredth_of_a_cent_or_to_five_digits(price: float) -> None:
    (row,) = parsed(Table(rows=[Row(name="", price_usd=price)]))["rows"]
    assert row["price_usd"] == pytest.approx(price, rel=0.5001e-4, abs=0.5001e-12)
    assert row["price_usd"] in {round(row["price_usd"], 4), float(f"{row['price_usd']:.5g}")}


def test_times_are_utc_to_the_second() -> None:
    at = datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=UTC)
    assert parsed(Row(name="", at=at)) == {"name": "", "at": "2026-02-03T04:05:06Z"}


def test_text_is_compact_and_keeps_its_script() -> None:
    (block,) = render(Table(rows=[Row(name="深度")])).content
    assert isinstance(block, TextContent)
    assert block.text == '{"rows":[{"name":"深度"}]}'


# What secrets are made of, whole, escaped and in pieces, and what could hide the end of one text in the next.
_PARTS = st.sampled_from(
    (
        *("sk_live", "_4f9a2bC", "hunter2ter", "hunter2", "ter", "Bearer ", "abcdefgh", "X-API-KEY: ", "://u:p@"),
        *("-----BEGIN PRIVATE KEY-----", "\\u0073k_abcdef", "%73k_abcdef", "&#115;", "\\", "%4", "&#1", "\n", "\r\n"),
        *(" ", "\x1b]", "\x07", base64.b64encode(b"user:hunter2ter").decode(), "x" * 600),
    )
)


class _Texts(Result):
    texts: list[str]
    by_name: dict[str, str]


@given(st.lists(st.lists(_PARTS | st.text(max_size=3), max_size=4).map("".join), max_size=6))
@example(["\\u001b]", "sk_live_4f9a2bC", "\x07"])
def test_texts_are_made_fit_together_as_each_would_be_alone(texts: list[str]) -> None:
    redact = Redactor(["hunter2ter"])

    def shown(result: _Texts) -> Any:
        return render(result, redact).structured_content

    together = shown(_Texts(texts=texts, by_name={text: text for text in texts}))
    assert together["texts"] == [shown(_Texts(texts=[text], by_name={}))["texts"][0] for text in texts]
    named: dict[str, str] = {}
    for text in texts:
        named |= shown(_Texts(texts=[], by_name={text: text}))["by_name"]
    assert together["by_name"] == named
