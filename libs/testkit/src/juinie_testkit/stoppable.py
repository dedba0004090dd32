"""A server that a test may stop and start again, on the same address and with its data."""

from juinie_testkit.backing.choose import control_of
from juinie_testkit.backing.ready import run_aside, wait_for_kafka
from juinie_testkit.backing.session import Note

_START_SECONDS = 60


class StoppableServer:
    """A Kafka broker. `servers` is its address, whether it runs or not."""

    def __init__(self, note: Note) -> None:
        control = control_of(note)
        if control is None:
            raise ValueError("A server that was given cannot be stopped.")
        self._control = control
        self._note = note
        self._running = True
        self._frozen = False

    @property
    def servers(self) -> str:
        return self._note["servers"]

    def stop(self) -> None:
        """Stop it in good order."""
        self._control.stop_server(self._note)
        self._running = False

    def kill(self) -> None:
        """Kill it (SIGKILL)."""
        self._control.kill_server(self._note)
        self._running = False

    def freeze(self) -> None:
        """It takes connections and bytes, and answers nothing, until it is started: it hangs."""
        self._control.freeze_server(self._note)
        self._frozen = True

    def start(self) -> None:
        """Start it again, if it is stopped, or let it go on, if it is frozen, and wait until it answers."""
        if self._frozen:
            self._control.thaw_server(self._note)
            self._frozen = False
            run_aside(wait_for_kafka(self.servers, _START_SECONDS))
        if not self._running:
            self._control.restart_server(self._note)
            run_aside(wait_for_kafka(self.servers, _START_SECONDS))
            self._running = True
