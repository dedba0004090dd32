"""Watchers that come late and want only what comes: told first where that begins, they come back after it as all others do."""

import asyncio
from typing import Literal

from juinie.sse import Frame
from juinie.torture.watcher import TortureWatcher, says_something

_LATEST_SECONDS = 4.0


class TailWatcher(TortureWatcher):
    """Asks for the tail until it knows where that is. A 204 is an answer too: the run has ended. The first comes at once, be the torture ever so short."""

    sort = "tail"
    _begun = False

    async def watch(self) -> None:
        if self._scene.figures.watchers[self.sort]:
            await asyncio.sleep(self._scene.chance.uniform(0, _LATEST_SECONDS))
        await super().watch()

    @property
    def _after(self) -> int | Literal["tail"]:
        return self._position if self._begun else "tail"

    def _open(self) -> None:
        if self._begun:
            super()._open()

    def _have_nothing_more(self) -> None:
        if self._begun:
            super()._have_nothing_more()
        else:
            self._ended = True
            self._scene.checker.begin_at_end(self._run_id, self._name)

    def _take(self, frame: Frame) -> None:
        if self._begun or not says_something(frame):
            super()._take(frame)
        elif frame.id is not None and not frame.data:
            self._begin(frame.id)
        else:  # before anything else comes an id alone
            self._scene.checker.move(self._run_id, self._name, None)
            super()._take(frame)

    def _begin(self, position: int) -> None:
        self._begun, self._position = True, position
        self._count()
        self._scene.checker.begin(self._run_id, self._name, self._owed, position, self._scene.now())
