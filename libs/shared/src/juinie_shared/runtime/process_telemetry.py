"""The names that a service of several processes adds to its own, whichever service it is."""

PROCESS_ANSWERS = "juinie_process_answers"

# Log events, of the parent.
PROCESS_LOST = "process_lost"
PROCESS_REFUSED = "process_refused"
PROCESS_KILLED = "process_killed"
