"""JSON as text: checked, sliced, its white space taken out, and else left as it came.

Decoding and encoding again would change numbers (2^53+1, 1.0, 1e400), escapes and key order. `msgspec.Raw` gives a
member's bytes as they are. msgspec checks the syntax of what it skips, but neither its UTF-8 nor its depth; and it
takes a lone surrogate for broken syntax, where RFC 8259 §8.2 lets it pass. So these three are seen to here.
"""

import re
from itertools import accumulate

import msgspec

type Members = dict[str, msgspec.Raw]

_ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.", re.DOTALL
)
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NOT_BRACKETS = bytes(set(range(256)) - set(_STEPS))
_COMMA = ord(",")
_NOT_STRUCTURE = bytes(set(range(256)) - set(_STEPS) - {_COMMA})

_members = msgspec.json.Decoder(Members)
_items = msgspec.json.Decoder(list[msgspec.Raw])
_any = msgspec.json.Decoder()


class NotJson(ValueError):
    """These bytes are no JSON text in UTF-8 (RFC 8259)."""


class TooDeep(ValueError):
    """The JSON is nested deeper than anything that could be stored."""


def check_syntax(body: bytes) -> tuple[bytes, bool]:
    """The JSON text without white space outside strings, and whether a string in it holds a lone surrogate.

    Each lone surrogate is replaced in what is returned, so that the rest can be looked at too.

    Raises:
        NotJson: bad UTF-8, a byte order mark, broken syntax, NaN, Infinity, a control character.
        TooDeep: nested so deep that it was not looked at further.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise NotJson from error
    mended = _mend_surrogates(text)
    try:
        msgspec.json.decode(mended, type=msgspec.Raw)
        return msgspec.json.format(mended.encode(), indent=-1), mended != text
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


def items(value: bytes | msgspec.Raw) -> list[msgspec.Raw] | None:
    """The items of an array, each as it came; None when it is no array."""
    try:
        return _items.decode(value)
    except msgspec.ValidationError:
        return None


def has_repeated_names(value: bytes | msgspec.Raw, found: Members) -> bool:
    """Whether the (compact) object names a member twice, of which `found` holds only the last.

    Its members written out again are as long as it was, unless one is missing or a name was spelled with needless
    escapes. Only then are the names looked at themselves.
    """
    if len(msgspec.json.encode(found)) == memoryview(value).nbytes:
        return False
    return _count_names(bytes(value)) != len(found)


def _count_names(compact: bytes) -> int:
    """How many members a compact object lists: one more than the commas of its own level."""
    if compact == b"{}":
        return 0
    bare = _STRING.sub(b"", compact).translate(None, _NOT_STRUCTURE)
    level, commas = 0, 0
    for byte in bare:
        level += _STEPS.get(byte, 0)
        commas += byte == _COMMA and level == 1
    return commas + 1


def plain(value: msgspec.Raw) -> object:
    """The value as Python has it. What Python cannot hold becomes a number that no field allows."""
    try:
        return _any.decode(value)
    except (msgspec.ValidationError, RecursionError):
        return float("inf")


def depth(value: bytes) -> int:
    """How many arrays and objects lie in each other. `[]` is 1, a number 0."""
    brackets = value.count(b"[") + value.count(b"{")
    if brackets <= 1:
        return brackets
    bare = _STRING.sub(b"", value).translate(None, _NOT_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, bare)), default=0)


def _mend_surrogates(text: str) -> str:
    if "\\ud" not in text and "\\uD" not in text:
        return text
    return _ESCAPE.sub(_mend_one, text)


def _mend_one(escape: re.Match[str]) -> str:
    found = escape[0]
    lone = len(found) == 6 and found[2] in "dD" and found[3] in "89abcdefABCDEF"
    return r"\ufffd" if lone else found
