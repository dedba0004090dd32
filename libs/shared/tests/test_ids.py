"""Ids are ordered by time, and a run's shard never changes."""

import time
from uuid import UUID

import pytest

from juinie_shared.domain.ids import SHARDS, RunId, new_run_id, new_uuid7, parse_run_id, shard_of


def test_new_ids_are_uuids_of_version_7_and_all_differ():
    made = [new_uuid7() for _ in range(10_000)]
    assert {(made_id.version, made_id.variant) for made_id in made} == {(7, "specified in RFC 4122")}
    assert len(set(made)) == len(made)


def test_first_48_bits_are_the_clocks_milliseconds_and_never_go_back():
    before = time.time_ns() // 1_000_000
    prefixes = [new_uuid7().int >> 80 for _ in range(10_000)]
    after = time.time_ns() // 1_000_000
    assert prefixes == sorted(prefixes)
    assert before <= prefixes[0] <= prefixes[-1] <= after


@pytest.mark.parametrize(
    ("run_id", "shard"),
    [
        ("00000000-0000-0000-0000-000000000000", 21),
        ("01930b7e-4c00-7a11-8b22-c3d4e5f60718", 1),
        ("ffffffff-ffff-ffff-ffff-ffffffffffff", 26),
    ],
)
def test_shard_of_a_run_is_the_same_for_ever(run_id: str, shard: int):
    assert shard_of(RunId(UUID(run_id))) == shard


def test_runs_spread_over_all_shards():
    assert SHARDS == 64
    assert {shard_of(new_run_id()) for _ in range(5_000)} == set(range(64))


def test_canonical_text_is_a_run_id_in_either_case():
    text = "01930b7e-4c00-7a11-8b22-c3d4e5f60718"
    assert parse_run_id(text) == parse_run_id(text.upper()) == RunId(UUID(text))


@pytest.mark.parametrize(
    "text",
    ["", "01930b7e4c007a118b22c3d4e5f60718", "{01930b7e-4c00-7a11-8b22-c3d4e5f60718}", "urn:uuid:01930b7e-4c00-7a11-8b22-c3d4e5f60718",
     "01930b7e-4c00-7a11-8b22-c3d4e5f60718\n", " 01930b7e-4c00-7a11-8b22-c3d4e5f60718", "01930b7e-4c00-7a11-8b22-c3d4e5f6071g", "\u06601930b7e-4c00-7a11-8b22-c3d4e5f60718"],
)  # fmt: skip
def test_any_other_spelling_is_none(text: str):
    assert parse_run_id(text) is None
