"""Counts the system calls of a process and all its threads, as strace does, with nothing but ptrace(2).

    python bench/tracer.py PID

Says `traced` when it has begun; at SIGTERM it says how often each was called, as JSON, by number, and lets go. Exits with 3, and
says why, where the kernel does not let it.
"""

import contextlib
import ctypes
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path

REFUSED = 3
_SEIZE, _INTERRUPT, _LISTEN, _GET_SYSCALL_INFO, _SYSCALL = 0x4206, 0x4207, 0x4208, 0x420E, 24
_O_TRACESYSGOOD, _O_TRACECLONE = 1, 8
_SYSCALL_STOP, _EVENT_STOP, _WALL = signal.SIGTRAP | 0x80, 128, 0x40000000
_STOPPING = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
_ENTRY = 1

_ptrace = ctypes.CDLL(None, use_errno=True).ptrace
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_ptrace.restype = ctypes.c_long


class _Info(ctypes.Structure):
    """`ptrace_syscall_info`, of an entry."""

    _fields_ = (
        ("op", ctypes.c_uint8),
        ("arch", ctypes.c_uint32),
        ("instruction_pointer", ctypes.c_uint64),
        ("stack_pointer", ctypes.c_uint64),
        ("number", ctypes.c_uint64),
        ("arguments", ctypes.c_uint64 * 6),
    )


def _ask(request: int, thread: int, address: int = 0, data: int = 0) -> None:
    """
    Raises:
        OSError: the kernel does not let us, or the thread is gone.
    """
    if _ptrace(request, thread, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _seize(pid: int) -> None:
    """All its threads, those that begin meanwhile as well. Each stops once, and then at each call."""
    seized = set[int]()
    while new := {int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()} - seized:
        for thread in new:
            _ask(_SEIZE, thread, 0, _O_TRACESYSGOOD | _O_TRACECLONE)
            _ask(_INTERRUPT, thread)
        seized |= new


def _stopped(thread: int, status: int, counts: Counter[int]) -> None:
    """Count, where it enters a call, and let it go on."""
    number, event = os.WSTOPSIG(status), status >> 16
    if number == _SYSCALL_STOP:
        info = _Info()
        _ask(_GET_SYSCALL_INFO, thread, ctypes.sizeof(info), ctypes.addressof(info))
        if info.op == _ENTRY:
            counts[info.number] += 1
    if event == _EVENT_STOP and number in _STOPPING:
        _ask(_LISTEN, thread)
        return
    is_signal = number != _SYSCALL_STOP and not event
    _ask(_SYSCALL, thread, 0, number if is_signal else 0)


def main() -> int:
    counts = Counter[int]()

    def end(*_: object) -> None:
        """Whoever traces and ends lets go of all."""
        os.write(1, json.dumps(counts).encode())
        os._exit(0)

    try:
        _seize(int(sys.argv[1]))
    except OSError as error:
        print(error)
        return REFUSED
    signal.signal(signal.SIGTERM, end)
    os.write(1, b"traced\n")
    while True:
        try:
            thread, status = os.waitpid(-1, _WALL)
        except ChildProcessError:
            signal.pause()
            continue
        if os.WIFSTOPPED(status):
            with contextlib.suppress(ProcessLookupError):  # killed while it was stopped
                _stopped(thread, status, counts)


if __name__ == "__main__":
    sys.exit(main())
