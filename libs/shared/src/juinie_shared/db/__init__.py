"""The database that services share: tables, migrations, the pool, and how an event's JSON is rendered."""
