"""What a client lets an answer be."""

import pytest

from juinie_shared.runtime.accept import accepts


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [""],
        [" ", ","],
        ["*/*"],
        ["application/*"],
        ["application/json"],
        ["Application/JSON; charset=utf-8"],
        ["text/html", "application/json"],
        ["text/html, */*;q=0.1"],
        ["*/*;q=0, application/json"],
        ["application/*;q=0,application/json;q=0.001"],
        ["application/json; q=1.000"],
        ["application/json, application/json;v=2;q=0"],
        ["application/json;v=2;q=0", "application/json"],
    ],
)
def test_it_may_be_what_fits(headers: list[str]):
    assert accepts("application/json", headers)


@pytest.mark.parametrize(
    "headers",
    [
        ["text/html"],
        ["text/*"],
        ["application/jsonl"],
        ["application/json;q=0"],
        ["*/*, application/json;q=0"],
        ["*/*", "application/* ; Q=0.000"],
        ["application/json;version=1; q = 0.0"],
    ],
)
def test_what_is_left_out_or_refused_by_the_most_specific_range_it_may_not_be(headers: list[str]):
    assert not accepts("application/json", headers)
