"""What Juinie itself raises. An error that one service alone knows stands where it is raised, below one of these;
what never leaves an edge (`Refused`, `StreamCut`) stands apart.

    JuinieError
    ├── Transient                  may be tried again as it is
    │   ├── DatabaseAway
    │   │   ├── DatabaseRefuses
    │   │   ├── SchemaAway
    │   │   └── SessionLost
    │   ├── DatabaseBusy
    │   │   └── NoConnection
    │   ├── RunLocked
    │   ├── KafkaAway
    │   ├── Draining
    │   ├── ServerBusy
    │   └── LimitReached           (retry_after_seconds, policies)
    │       ├── RateLimited
    │       ├── QuotaExceeded
    │       ├── TooManyActiveRuns
    │       └── TooManyWaiting
    └── Permanent                  the same call gives the same answer
        ├── NotAuthenticated
        ├── ScopeMissing           (scope)
        ├── RunNotFound
        ├── DeadLetterNotFound
        ├── RunFinished
        ├── RunNotFinished
        ├── RunNotClaimed
        ├── RunFull
        ├── RunIdTaken
        ├── LeaseLost
        ├── IdempotencyKeyReused
        ├── BadPosition
        ├── EventsGone             (retained_from_seq)
        ├── BadRecord
        ├── TenantNotFound         (name)
        ├── BadRetention           (events_after, runs_after)
        └── Misconfigured
            ├── SchemaBehind       (found, wanted)
            ├── SessionsShared
            ├── DevKeyOutsideDev
            └── PortTaken          (host, port)

The docstring is the message: what is wrong and what to do. `code` is the stable word that clients see.
"""

import inspect
from collections.abc import Sequence
from typing import ClassVar


class JuinieError(Exception):
    """Something went wrong in Juinie."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str | None = None) -> None:
        self.message = message or " ".join((inspect.getdoc(type(self)) or "").split())
        super().__init__(self.message)


class Transient(JuinieError):
    """Something is away for a moment. Try again."""

    code = "unavailable"


class DatabaseAway(Transient):
    """The database does not answer. Try again shortly."""

    code = "database_unavailable"


class DatabaseRefuses(DatabaseAway):
    """The database is not there, or refuses this user or password. Check DATABASE_URL."""


class SchemaAway(DatabaseAway):
    """The database has not the tables that this server needs: it is being restored or set up, or is to be migrated. Run: juinie-api migrate"""

    code = "schema_behind"


class SessionLost(DatabaseAway):
    """The database does not know a statement that this session prepared, or knows another one by its name."""


class DatabaseBusy(Transient):
    """The database has too much to do to answer in time. Try again shortly."""

    code = "database_busy"


class NoConnection(DatabaseBusy):
    """No connection to the database was to be had in time. Try again shortly."""


class RunLocked(Transient):
    """The run's row stayed locked by another writer. Try again shortly."""

    code = "run_locked"


class KafkaAway(Transient):
    """Kafka does not answer. It is tried again until it does."""

    code = "kafka_unavailable"


class Draining(Transient):
    """This server is stopping. Try again: another one answers."""

    code = "draining"


class ServerBusy(Transient):
    """This server holds as much of unanswered requests as it may. Try again shortly, or send less at once."""

    code = "server_busy"


class LimitReached(Transient):
    """A limit of this tenant or key is reached. Try again after Retry-After."""

    def __init__(self, retry_after_seconds: int = 1, policies: Sequence[str] = ()) -> None:
        self.retry_after_seconds, self.policies = retry_after_seconds, tuple(policies)
        super().__init__()


class RateLimited(LimitReached):
    """Too many requests. Try again after Retry-After."""

    code = "rate_limited"


class QuotaExceeded(LimitReached):
    """Too many events or bytes; nothing of this request was written. Try again after Retry-After."""

    code = "quota_exceeded"


class TooManyActiveRuns(LimitReached):
    """This tenant or key has as many unfinished runs as it may. Finish or cancel one, or try again after Retry-After."""

    code = "too_many_active_runs"


class TooManyWaiting(LimitReached):
    """As many requests of this tenant wait as may at once. Ask without waiting, or try again after Retry-After."""

    code = "too_many_waiting"


class Permanent(JuinieError):
    """The request cannot succeed as it is."""

    code = "refused"


class NotAuthenticated(Permanent):
    """A valid API key or token is needed."""

    code = "unauthorized"


class ScopeMissing(Permanent):
    """The API key lacks the scope that this route needs."""

    code = "scope_missing"

    def __init__(self, scope: str) -> None:
        self.scope = scope
        super().__init__(f"The API key lacks the scope that this route needs: {scope}.")


class RunNotFound(Permanent):
    """No such run."""

    code = "run_not_found"


class DeadLetterNotFound(Permanent):
    """No such dead letter."""

    code = "dead_letter_not_found"


class RunFinished(Permanent):
    """The run has finished; nothing can be added to it."""

    code = "run_finished"


class RunNotFinished(Permanent):
    """The run has not finished. Cancel it and wait for its end first."""

    code = "run_not_finished"


class RunNotClaimed(Permanent):
    """The run went back to pending, and nobody works on it. Claim it before you finish it with success."""

    code = "run_not_claimed"


class RunFull(Permanent):
    """With these events the run would have more than it may; none was written. Finish it, and go on in another run."""

    code = "run_full"


class RunIdTaken(Permanent):
    """This run_id is taken. Choose another one."""

    code = "run_id_taken"


class LeaseLost(Permanent):
    """The lease on this run is lost. Stop working on it."""

    code = "lease_lost"


class IdempotencyKeyReused(Permanent):
    """This Idempotency-Key was used for another request. Choose a new one."""

    code = "idempotency_key_reused"


class BadPosition(Permanent):
    """A position is a decimal integer of at most 18 digits, or absent for the start."""

    code = "bad_position"


class EventsGone(Permanent):
    """The events after this position are past their retention. Read from retained_from_seq."""

    code = "events_gone"

    def __init__(self, retained_from_seq: int) -> None:
        self.retained_from_seq = retained_from_seq
        super().__init__()


class BadRecord(Permanent):
    """A Kafka record is not a run event that Juinie wrote."""

    code = "bad_record"


class TenantNotFound(Permanent):
    """There is no tenant of this name. A tenant is made with its first key: juinie-api keys create"""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"There is no tenant {name!r}. See: juinie-api tenants list")


class BadRetention(Permanent):
    """A run cannot go before its events. Let runs_after be at least events_after."""

    def __init__(self, events_after: str, runs_after: str) -> None:
        self.events_after, self.runs_after = events_after, runs_after
        super().__init__(
            f"A run cannot go after {runs_after} while its events stay for {events_after}. Set both, or --events-after never: "
            "events always go with their run."
        )


class Misconfigured(Permanent):
    """The service cannot start as it is set up."""

    code = "misconfigured"


class SchemaBehind(Misconfigured):
    """The database's schema is older than this service. Run: juinie-api migrate"""

    def __init__(self, found: str | None, wanted: str) -> None:
        self.found, self.wanted = found, wanted
        super().__init__(
            f"The database's schema is at {found or 'nothing'}, this service needs {wanted}. Run: juinie-api migrate"
        )


class SessionsShared(Misconfigured):
    """DATABASE_URL leads through a pooler that shares sessions (pgbouncer's transaction mode): LISTEN and prepared statements need one each. Set pool_mode = session, or name Postgres itself."""

    code = "sessions_shared"


class DevKeyOutsideDev(Misconfigured):
    """The development key is in this database, and JUINIE_ENV is not dev. Revoke it: juinie-api keys list, keys revoke ID"""

    code = "dev_key_outside_dev"


class PortTaken(Misconfigured):
    """Another program listens on this port."""

    code = "port_taken"

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        super().__init__(
            f"Port {port} on {host} is taken by another program. Free it or choose another port."
        )
