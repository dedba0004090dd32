"""A request's headers, read once: each look into Starlette's goes through all of them."""

from collections.abc import Iterable


class Head:
    """By name, in lower case as ASGI has them."""

    __slots__ = ("_values", "has_repeats")

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self._values: dict[bytes, list[bytes]] = {}
        self.has_repeats = False
        """Some name is there more than once."""
        for name, value in headers:
            if name in self._values:
                self._values[name].append(value)
                self.has_repeats = True
            else:
                self._values[name] = [value]

    def __contains__(self, name: bytes) -> bool:
        return name in self._values

    def get(self, name: bytes) -> str | None:
        """The first of this name."""
        values = self._values.get(name)
        return None if values is None else values[0].decode("latin-1")

    def all(self, name: bytes) -> list[str]:
        """All of this name, in their order."""
        return [value.decode("latin-1") for value in self._values.get(name, ())]

    def count(self, name: bytes) -> int:
        """How many have this name."""
        return len(self._values.get(name, ()))
