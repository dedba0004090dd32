"""A batch of ours is the one that aiokafka would have made of the same records, and its reader finds them in it."""

from unittest.mock import patch

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from juinie_publisher.edges.record_batch import RecordBatch
from juinie_shared.contracts.record_bytes import packed

PLENTY = 10_000_000
NOW_SECONDS = 1_764_000_000.125
LENGTHS = st.sampled_from([0, 1, 36, 63, 64, 8191, 8192, 70_000])
RECORDS = st.lists(
    st.tuples(
        st.binary(max_size=80),
        st.none() | st.binary(max_size=80) | LENGTHS.map(lambda length: b"v" * length),
        st.lists(st.tuples(st.text(max_size=10), st.binary(max_size=80)), max_size=9),
    ),
    min_size=1,
    max_size=70,
)


def built(batch):
    batch._set_producer_state(7, 3, 41)
    return bytes(batch._build())


def batch_of(records, most_bytes=PLENTY):
    batch = RecordBatch(most_bytes)
    batch.fill(packed(*record) for record in records)
    return batch


@given(RECORDS)
def test_bytes_are_those_that_aiokafka_makes(records):
    timestamp = int(NOW_SECONDS * 1000)
    theirs = BatchBuilder(PLENTY, 0)
    for key, value, headers in records:
        theirs.append(timestamp=timestamp, key=key, value=value, headers=headers)
    with patch("juinie_publisher.edges.record_batch.time.time", return_value=NOW_SECONDS):
        ours = batch_of(records)
        assert (ours.size(), ours.record_count()) == (theirs.size(), len(records))
        assert built(ours) == built(theirs)


@given(RECORDS)
def test_aiokafka_reads_what_was_put_in(records):
    batches = MemoryRecords(built(batch_of(records)))
    batch = batches.next_batch()
    assert batch.validate_crc()
    assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (7, 3, 41)
    read = [(record.offset, record.key, record.value, list(record.headers)) for record in batch]
    assert read == [(n, *record) for n, record in enumerate(records)]
    assert not batches.has_next()


def test_first_record_always_fits_and_the_others_up_to_the_byte():
    record = packed(b"key", b"v" * 100, [])
    size = batch_of([(b"key", b"v" * 100, [])] * 3).size()
    for most, fit in ((size, 3), (size - 1, 2), (1, 1)):
        batch = RecordBatch(most)
        batch.fill([record] * 5)
        assert batch.record_count() == fit


def test_records_before_one_that_cannot_be_packed_are_in():
    record = (b"key", b"value", [])

    def cut():
        yield packed(*record)
        yield packed(*record)
        raise UnicodeError

    with patch("juinie_publisher.edges.record_batch.time.time", return_value=NOW_SECONDS):
        batch = RecordBatch(PLENTY)
        with pytest.raises(UnicodeError):
            batch.fill(cut())
        assert (batch.record_count(), built(batch)) == (2, built(batch_of([record] * 2)))


def test_batch_that_is_sent_again_is_the_same():
    batch = batch_of([(b"key", b"value", [("name", b"text")])])
    assert built(batch) == bytes(batch._build())


@pytest.mark.parametrize("name", [name for name in vars(BatchBuilder) if not name.startswith("__")])
def test_whatever_the_sender_may_ask_of_a_batch_is_there(name):
    only_for_those_who_fill_it = {"append", "_serialize"}
    assert hasattr(RecordBatch, name) or name in only_for_those_who_fill_it
