"""JSON as text: checked, sliced, its white space taken out, and else left as it came.

Decoding and encoding again would change numbers (2^53+1, 1.0, 1e400), escapes and key order. `msgspec.Raw` gives a
member's bytes as they are. msgspec checks the syntax of what it skips, but neither its UTF-8 nor its depth; and it
takes a lone surrogate for broken syntax, where RFC 8259 §8.2 lets it pass. So these three are seen to here.
"""

import re
from functools import cache
from itertools import accumulate, chain
from operator import sub
from typing import Any

import msgspec

type Members = dict[str, msgspec.Raw]

_LONE_SURROGATE = re.compile(
    r"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    r"|[c-fC-F](?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F]))"
)
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
"""Nothing is tried twice: else each letter of a string would be kept, to come back to."""
_SQUARE = bytes.maketrans(b"{}", b"[]")
_RISES, _FALLS = bytes.maketrans(b"]", b" "), bytes.maketrans(b"[", b" ")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))

_MOST_ITEMS = 1000
"""So many of an array's values are made Python's: more than any field takes."""
_TIMES_TOO_MANY = 8
"""To make so many values is cheaper than to go through the array once more to count them."""

_members = msgspec.json.Decoder(Members)
_items = msgspec.json.Decoder(list[msgspec.Raw])
_SOMETHING = msgspec.Raw(b'""')
_any = msgspec.json.Decoder()


class NotJson(ValueError):
    """These bytes are no JSON text in UTF-8 (RFC 8259)."""


class TooDeep(ValueError):
    """The JSON is nested deeper than anything that could be stored."""


def check_syntax(body: bytes) -> tuple[bytes, bool]:
    """The JSON text without white space outside strings, and whether a string in it holds a lone surrogate.

    If so, all surrogates are replaced in what is returned, so that the rest can be looked at too.

    Raises:
        NotJson: bad UTF-8, a byte order mark, broken syntax, NaN, Infinity, a control character.
        TooDeep: nested so deep that it was not looked at further.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise NotJson from error
    lone = _has_lone_surrogate(text)
    if (
        lone
    ):  # to a letter that stands alone: as long, and as good a syntax, escaped backslash before it or not
        body = text.replace("\\ud", "\\uf").replace("\\uD", "\\uf").encode()
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
        return msgspec.json.format(body, indent=-1), lone
    except msgspec.DecodeError as error:
        raise NotJson from error
    except RecursionError as error:
        raise TooDeep from error


def members(value: bytes | msgspec.Raw) -> Members | None:
    """The members of an object by name, each as it came; None when it is no object."""
    try:
        return _members.decode(value)
    except msgspec.ValidationError:
        return None


def items(value: bytes | msgspec.Raw, most: int) -> list[msgspec.Raw] | None:
    """The items of an array, each as it came; None when it is no array. Of one that has more than `most`, which nobody takes, it only tells
    that: something, the items or not, stands for each of the first `most` and one more. To make half a million takes tens of milliseconds.
    """
    try:
        may_have_many_more = _first(value) == b"[" and bytes(value).count(b",") >= _TIMES_TOO_MANY * most
        if may_have_many_more and not _has_at_most(most, value):
            return [_SOMETHING] * (most + 1)
        found = _items.decode(value)
    except msgspec.ValidationError:
        return None
    del found[most + 1 :]
    return found


def _has_at_most(most: int, array: bytes | msgspec.Raw) -> bool:
    """Ends with the first that is too many."""
    try:
        _few(most).decode(array)
    except msgspec.ValidationError:
        return False
    return True


@cache
def _few(most: int) -> msgspec.json.Decoder[Any]:
    """Reads an array of as many values at most: there is no other way to have it stop."""
    fields = [(f"_{place}", msgspec.Raw, _SOMETHING) for place in range(most)]
    return msgspec.json.Decoder(msgspec.defstruct("Few", fields, array_like=True, forbid_unknown_fields=True))


def has_repeated_names(value: bytes | msgspec.Raw, found: Members) -> bool:
    """Whether the (compact) object names a member twice, of which `found` holds only the last.

    Its members written out again are as long as it was, unless one is missing or a name was spelled with needless
    escapes. Only then is it read along the members that were found, which ends at the first that is not as it should be.
    """
    if len(msgspec.json.encode(found)) == memoryview(value).nbytes:
        return False
    text, at = bytes(value), 1
    for member in found.values():
        name = _STRING.match(text, at)
        behind = name.end() + 1 if name else at
        at = behind + memoryview(member).nbytes + 1
        if text[behind : at - 1] != bytes(member) or text[at - 1] not in b",}":
            return True
    return at != len(text)


def plain(value: msgspec.Raw) -> object:
    """The value as Python has it; of an array its first values, each as `scalar` has it."""
    if _first(value) == b"[":
        return [scalar(item) for item in (items(value, _MOST_ITEMS) or [])[:_MOST_ITEMS]]
    return scalar(value)


def scalar(value: msgspec.Raw) -> object:
    """A string, number, truth value or null as Python has it; arrays and objects as empty ones, without a look into them.

    What Python cannot hold becomes a number that no field allows.
    """
    if (first := _first(value)) in {b"[", b"{"}:
        return [] if first == b"[" else {}
    try:
        return _any.decode(value)
    except msgspec.ValidationError:
        return float("inf")


def _first(value: bytes | msgspec.Raw) -> bytes:
    return bytes(memoryview(value)[:1])


def depth(value: bytes) -> int:
    """How many arrays and objects lie in each other. `[]` is 1, a number 0.

    The innermost are taken off level by level while they are many, which is quick; then the rest is counted from peak to
    peak, which is quick where there are few.
    """
    brackets = value.count(b"[") + value.count(b"{")
    if brackets <= 1:
        return brackets
    bare = _STRING.sub(b"", value).translate(_SQUARE, _NOT_BRACKETS)
    levels, taken_off = 0, len(bare)
    while bare and taken_off * 8 >= len(bare):
        levels, taken_off, bare = levels + 1, len(bare), bare.replace(b"[]", b"")
        taken_off -= len(bare)
    rises = accumulate(map(len, bare.translate(_RISES).split()))
    falls = accumulate(chain((0,), map(len, bare.translate(_FALLS).split())))
    return levels + max(map(sub, rises, falls), default=0)


def _has_lone_surrogate(text: str) -> bool:
    if "\\" not in text or ("\\ud" not in text and "\\uD" not in text):
        return False
    return (
        _LONE_SURROGATE.search(text.replace(r"\\", "  ")) is not None
    )  # every \ that is left begins an escape
