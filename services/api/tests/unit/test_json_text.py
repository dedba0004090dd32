"""What of JSON is checked, and that nothing of it is rewritten."""

import itertools
import json

import msgspec
import pytest

from juinie_api.edges import json_text

LONE = "a lone surrogate"
NOT_JSON = "no JSON"
DEEP = "too deep to look at"

VERBATIM = {
    "duplicate keys in a value": b'{"a":1,"a":2}',
    "a number too large for a float": b"1e400",
    "a small one": b"-1e-400",
    "2^53+1": b"9007199254740993",
    "five thousand digits": b"1" * 5000,
    "minus zero": b"-0",
    "a float that is whole": b"1.0",
    "an exponent": b"1E+2",
    "an escaped NUL": rb'"\u0000"',
    "an escaped slash": rb'"\/"',
    "needless escapes": rb'"\u0041"',
    "an escaped pair": rb'"\ud83d\ude00"',
    "an escaped backslash before ud800": rb'"\\ud800"',
    "DEL": b'"\x7f"',
    "U+2028": '"\u2028"'.encode(),
    "key order": b'{"b":1,"a":{"z":0,"y":[]}}',
    "64 deep": b"[" * 64 + b"]" * 64,
}

REFUSED = {
    "a lone high surrogate": (rb'"\ud800"', LONE),
    "a lone low surrogate": (rb'"\udc00"', LONE),
    "a reversed pair": (rb'"\udc00\ud800"', LONE),
    "a high surrogate before a letter": (rb'"\ud800x"', LONE),
    "a high surrogate before another escape": (rb'"\ud800\u0041"', LONE),
    "two high surrogates and a low one": (rb'"\ud800\ud83d\ude00"', LONE),
    "a surrogate in a key": (rb'{"\uD800":1}', LONE),
    "a surrogate and broken syntax": (rb'["\ud800"', NOT_JSON),
    "a raw control character": (b'"\x01"', NOT_JSON),
    "a raw NUL in a string": (b'"\x00"', NOT_JSON),
    "a raw NUL": (b"\x00", NOT_JSON),
    "a raw line break": (b'"a\nb"', NOT_JSON),
    "bad UTF-8 in a string": (b'"\xff"', NOT_JSON),
    "bad UTF-8 in a key": (b'{"\xff":1}', NOT_JSON),
    "an overlong NUL": (b'"\xc0\x80"', NOT_JSON),
    "a surrogate in UTF-8": (b'"\xed\xa0\x80"', NOT_JSON),
    "a byte order mark": (b"\xef\xbb\xbf1", NOT_JSON),
    "UTF-16": ('{"a":1}'.encode("utf-16"), NOT_JSON),
    "UTF-16 without a mark": ('{"a":1}'.encode("utf-16-le"), NOT_JSON),
    "NaN": (b"NaN", NOT_JSON),
    "Infinity": (b"Infinity", NOT_JSON),
    "minus Infinity": (b"-Infinity", NOT_JSON),
    "a leading zero": (b"01", NOT_JSON),
    "a plus": (b"+1", NOT_JSON),
    "a dot at the end": (b"1.", NOT_JSON),
    "a dot at the start": (b".5", NOT_JSON),
    "a trailing comma in an array": (b"[1,]", NOT_JSON),
    "a trailing comma in an object": (b'{"a":1,}', NOT_JSON),
    "trailing garbage": (b"1 2", NOT_JSON),
    "two documents": (b"{}{}", NOT_JSON),
    "a comment": (b"/**/1", NOT_JSON),
    "single quotes": (b"'a'", NOT_JSON),
    "a bare key": (b"{a:1}", NOT_JSON),
    "a number as key": (b"{1:2}", NOT_JSON),
    "an unknown escape": (rb'"\x41"', NOT_JSON),
    "half an escape": (rb'"\u12"', NOT_JSON),
    "nothing": (b"", NOT_JSON),
    "white space alone": (b"  ", NOT_JSON),
    "a no-break space": (b"\xc2\xa01", NOT_JSON),
    "an open string": (b'"a', NOT_JSON),
    "two hundred thousand deep": (b"[" * 200_000 + b"]" * 200_000, DEEP),
}


@pytest.mark.parametrize("value", VERBATIM.values(), ids=VERBATIM.keys())
def test_json_goes_through_as_it_is(value: bytes):
    compact, lone = json_text.check_syntax(b' {"data" : ' + value + b" }\n")
    assert compact == b'{"data":' + value + b"}"
    assert not lone
    assert bytes((json_text.members(compact) or {})["data"]) == value


@pytest.mark.parametrize(("value", "why"), REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("place", [b"%b", b'{"x":%b}'], ids=["alone", "in a field"])
def test_what_is_no_json_is_refused_wherever_it_stands(value: bytes, why: str, place: bytes):
    body = place % value
    if why == LONE:
        assert json_text.check_syntax(body)[1]
    else:
        with pytest.raises(json_text.NotJson if why == NOT_JSON else json_text.TooDeep):
            json_text.check_syntax(body)


def test_white_space_goes_outside_strings_alone():
    compact, _ = json_text.check_syntax(b'\r\n[ 1 ,\t"  a \\" , b  " , { "k" : [ ] } ]\n')
    assert compact == b'[1,"  a \\" , b  ",{"k":[]}]'


@pytest.mark.parametrize(
    ("value", "depth"),
    [
        (b"1", 0), (b'"[["', 0), (b"[]", 1), (b'{"a":1}', 1), (b"[[],[]]", 2), (b'{"a":[{}]}', 3),
        (b'["[",{"]":"}"}]', 2), (rb'["\"[[[",[]]', 2), (b"[" * 64 + b"]" * 64, 64), (b"[" * 65 + b"]" * 65, 65),
    ],
)  # fmt: skip
def test_depth_counts_arrays_and_objects_outside_strings(value: bytes, depth: int):
    assert json_text.depth(value) == depth


TREES = {
    "towers": b"[" + b"[[[]]]" * 50 + b"[" * 20 + b"]" * 20 + b"]",
    "a comb": b"[[]" * 70 + b"]" * 70,
    "stairs": b"".join(b"[" * n + b"]" * n for n in range(1, 80)),
    "legs": b"".join(b"[" + b"[" * n + b"]" * n for n in range(40)) + b"]" * 40,
    "a few deep among many": b"[" + b"[]" * 999 + b"[" * 63 + b"]" * 63 + b"]",
    "objects": b'[{"a":{"b":[' * 30 + b"]}}]" * 30,
}


@pytest.mark.parametrize("name", TREES)
def test_depth_is_what_one_who_counts_each_bracket_comes_to(name: str):
    level = deepest = 0
    for byte in TREES[name]:
        level += (byte in b"[{") - (byte in b"]}")
        deepest = max(deepest, level)
    assert json_text.depth(TREES[name]) == deepest


PIECES = (rb"\ud83d", rb"\uD83D", rb"\ude00", rb"\uDE00", rb"\\", rb"\u0041", "é".encode(), b"u", rb"\n")


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_a_lone_surrogate_is_one_that_python_finds(length: int):
    for pieces in itertools.product(PIECES, repeat=length):
        text = b'"' + b"".join(pieces) + b'"'
        lone = any(0xD800 <= ord(char) < 0xE000 for char in json.loads(text))
        compact, found = json_text.check_syntax(text)
        assert found is lone, text
        assert lone or compact == text


@pytest.mark.parametrize(
    ("value", "repeated"),
    [
        (rb'{"\u0061gent":"a"}', False),
        (rb'{"\u0061":[1,{"x":1,"y":"}"}],"b":{}}', False),
        (rb'{"a":1,"\u0061":2}', True),
        (rb'{"\u0062":",","a":[1,2],"a":{"c":1,"d":2}}', True),
        (b'{"a":1,"a":1}', True), (b'{"a":1,"b":1}', False), (b"{}", False), ('{"é":"ü"}'.encode(), False),
        (b'{"a":{"b":1,"b":2}}', False),
        (rb'{"\u0061":1,"b":2,"b":2}', True), (rb'{"\u0061":1,"b":2,"a":1}', True), (rb'{"\u0061":1,"b":12,"b":1}', True),
        (rb'{"b":1,"\u0061":",","b":12}', True), (rb'{"\u0061":{},"b":[],"":null}', False),
    ],
)  # fmt: skip
def test_a_name_given_twice_is_noticed(value: bytes, repeated: bool):
    assert json_text.has_repeated_names(value, json_text.members(value) or {}) is repeated


def test_numbers_that_python_cannot_hold_become_what_no_field_allows():
    assert json_text.plain(msgspec.Raw(b"1e400")) == float("inf")
    assert json_text.plain(msgspec.Raw(b"1" * 5000)) == float("inf")


@pytest.mark.parametrize(
    ("array", "items"),
    [
        (b"[]", []),
        (b"[1]", [b"1"]),
        (b'["a,b",{"c":[1,2,3]}]', [b'"a,b"', b'{"c":[1,2,3]}']),
        (b'{"a":1,"b":2,"c":3}', None),
        (b'"a,b,c"', None),
        (b"1", None),
    ],
)
def test_items_of_an_array_come_as_they_are(array: bytes, items: list[bytes] | None):
    found = json_text.items(array, 2)
    assert (found and [bytes(item) for item in found]) == items


def test_of_an_array_that_is_far_too_long_none_is_made():
    found = json_text.items(b"[" + b"0," * 500_000 + b"0]", 2)
    assert found is not None
    assert (len(found), len({id(item) for item in found})) == (3, 1)


@pytest.mark.parametrize("array", [b"[1,2,3]", b"[1,2,3,4,5]", b"[[],[],{}]"])
def test_an_array_that_is_too_long_has_one_more_than_it_may(array: bytes):
    found = json_text.items(array, 2)
    assert found is not None
    assert len(found) == 3
