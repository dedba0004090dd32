"""Whom Postgres runs as: it refuses root, so root hands it to an unprivileged user."""

import os
import pwd
import shutil
import stat
import sys
from pathlib import Path

from juinie_standalone.children import User
from juinie_standalone.errors import StandaloneError

_CANDIDATES = ("postgres", "nobody")
# Without the securebit, access(2) would answer as if there were no capability, and initdb gives up on that.
_SEARCH_ANYWHERE = (
    "--securebits=+no_setuid_fixup",
    "--inh-caps=-all,+dac_override",
    "--ambient-caps=-all,+dac_override",
)


def unprivileged(*paths: Path, owner_of: Path) -> User | None:
    """The user for Postgres, who can reach all `paths`; None when we are no root and need none.

    Where the data exist (`owner_of`), whoever owns them is the user. Where a directory above is closed to everybody
    but root (a checkout in /root), the server keeps the one capability of looking past that, and no other.

    Raises:
        StandaloneError: there is no such user, or no way for him to get there.
    """
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwuid(owner_of.stat().st_uid) if owner_of.exists() else _first_known()
    user = User(entry.pw_uid, entry.pw_gid)
    closed = next((path for path in paths if not _reachable(path, user)), None)
    return user if closed is None else _reaching_past(user, closed)


def _first_known() -> pwd.struct_passwd:
    for name in _CANDIDATES:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise StandaloneError(
        "Postgres refuses to run as root, and there is no user postgres or nobody: add one."
    )


def _reachable(path: Path, user: User) -> bool:
    return all(_may_search(above.stat(), user) for above in path.parents if above.exists())


def _may_search(found: os.stat_result, user: User) -> bool:
    if found.st_uid == user.uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid == user.gid:
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)


def _reaching_past(user: User, closed: Path) -> User:
    setpriv = shutil.which("setpriv")
    if setpriv is None or sys.platform != "linux":
        raise StandaloneError(
            f"Postgres refuses to run as root, and its user cannot reach {closed}: make the directories above "
            "searchable (chmod o+x), or work as an ordinary user."
        )
    who = (f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups")
    return User(user.uid, user.gid, (setpriv, *who, *_SEARCH_ANYWHERE, "--"))
