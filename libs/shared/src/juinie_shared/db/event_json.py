"""How an event's JSON is rendered: in the database, in this one place, for pages, relay and backfill alike.

`{"seq":43,"type":"TEXT_MESSAGE_CONTENT","time":"2026-11-23T12:00:00.123456Z","data":{"delta":"Hel"}}`
"""

EVENT_TIME = """to_char(e.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
"""SQL: the event's time as text. The row of run_event is called `e`."""

EVENT_JSON = f"""'{{"seq":' || e.seq || ',"type":"' || e.type || '","time":"' || {EVENT_TIME} || '","data":' || e.data || '}}'"""
"""SQL: the event's JSON as text. The row of run_event is called `e`. Types need no escape (`domain/events.py`)."""
