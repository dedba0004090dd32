"""What a person is told, in one line, when the embedded stack cannot do what was asked."""

import errno


class StandaloneError(Exception):
    """Something in the way of the embedded stack; the message says what, and what to do about it."""


class DownloadFailed(StandaloneError):
    """A server's files could not be fetched, or were not what the pins say."""


class PortTaken(StandaloneError):
    """Another program listens where one of ours should."""


class DiedDuringStart(StandaloneError):
    """A child process ended before it was healthy."""


class NotHealthyInTime(StandaloneError):
    """A child process runs, but did not become healthy before the deadline."""


DISK_FULL = "the disk is full"
_DISK_FULL_MARKS = ("no space left on device", "disk quota exceeded", "file too large")
_DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_disk_full(fault: OSError | str) -> bool:
    """Whether an exception, or what a program said before it gave up, comes from a full disk."""
    if isinstance(fault, OSError):
        return fault.errno in _DISK_FULL_ERRNOS
    said = fault.lower()
    return any(mark in said for mark in _DISK_FULL_MARKS)


def in_one_line(error: OSError) -> str:
    """An operating system's refusal, as a person reads it."""
    place = f" ({error.filename})" if error.filename else ""
    if is_disk_full(error):
        return f"{DISK_FULL.capitalize()}{place}: free some space and try again."
    return f"{error.strerror or error}{place}"
