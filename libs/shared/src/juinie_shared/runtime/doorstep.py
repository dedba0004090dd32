"""Who has connected and has not asked for anything yet. Of few, any is read as it comes. Of a crowd the kernel keeps what they send, and a few
are read in each turn of the event loop: so it does not stand before those who are served.

uvloop reads in one turn whatever can be read, of thousands. Those who wait here are in an epoll of their own, of which the loop sees
only that there is somebody.
"""

import asyncio
import select
from collections.abc import Callable

INSIDE = -1
"""The place of one that is read as it comes."""


class Doorstep:
    """At most `at_once` are read as they come, and so many of the others are let in in one turn. For one thread, in its running loop."""

    def __init__(self, at_once: int) -> None:
        self._at_once, self._inside = at_once, 0
        self._waiting = dict[int, Callable[[], None]]()
        self._epoll, self._loop = select.epoll(), asyncio.get_running_loop()
        self._loop.add_reader(self._epoll.fileno(), self._let_in)

    def come(self) -> int | None:
        """`INSIDE`; or None: it is to `wait`, if nothing of it has been read by then. `leave` the place when it has asked, or is gone."""
        if self._inside >= self._at_once:
            return None
        self._inside += 1
        return INSIDE

    def wait(self, descriptor: int, let_in: Callable[[], None]) -> int | None:
        """The place of a connection that is not to be read until `let_in` is called, which is when there is something to read, be it its
        end. None, where the system has no place for one more, or nobody is let in any more: it is to be read as it comes.
        """
        try:
            self._epoll.register(descriptor, select.EPOLLIN)
        except (OSError, ValueError):
            return None
        self._waiting[descriptor] = let_in
        return descriptor

    def leave(self, place: int) -> None:
        """One that waits does so before its descriptor is closed."""
        if place == INSIDE:
            self._inside -= 1
        elif self._waiting.pop(place, None) and not self._epoll.closed:
            self._epoll.unregister(place)

    def _let_in(self) -> None:
        for descriptor, _ in self._epoll.poll(0, self._at_once):
            let_in = self._waiting[descriptor]
            self.leave(descriptor)
            let_in()

    def close(self) -> None:
        """Nobody is let in any more."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
