"""Whose files of a store run here, and whether the code in it is what was submitted.

Whoever can write to a store can write what its workers run. So a snapshot is checked against its hash, and all that
runs against its owner, before anything of it is imported. Only the standard library is imported here: the text of this
file is handed to a fresh Python, which does the check and then becomes the worker.

    python -I -c TEXT SNAPSHOT TRUST [COMMAND ...]
"""

import hashlib
import os
import stat
import sys

TRUST = ("user", "group")
"""Whose files may run: the user's own (and root's), or those of the groups that the user is in as well."""

HASH_LENGTH = 16
_BESIDE = ("snapshot.json", "diff.patch")


def hash_of(files: "dict[str, bytes]") -> str:
    """The hash of a snapshot: over names and contents."""
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name} {len(content)}\n".encode("utf-8", "surrogateescape"))
        digest.update(content)
    return digest.hexdigest()[:HASH_LENGTH]


def ownership_problem(path: str, trust: str) -> "str | None":
    """Why a file or folder is not to be trusted; None where it is."""
    if trust not in TRUST:
        return f"store.trust: {trust!r} is not allowed; allowed: {', '.join(TRUST)}; use user"
    found = os.lstat(path)
    own = found.st_uid in (os.getuid(), 0)
    shared = found.st_gid in (os.getgid(), *os.getgroups())
    if stat.S_ISLNK(found.st_mode):
        return f"store.trust: {path!r} is a link; allowed: files and folders; remove it"
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        return (
            f"store.trust: everybody may write to {path!r}; allowed: the user or a group; say chmod -R o-w on the store"
        )
    if trust == "user" and not own:
        remedy = "say store.trust=group if you trust all who can write there, or use another store"
        return (
            f"store.trust: 'user' does not fit {path!r}, which is of user {found.st_uid}; allowed: your own; {remedy}"
        )
    if trust == "group" and not (own or shared):
        allowed = "yours, or of one of your groups"
        return (
            f"store.trust: 'group' does not fit {path!r} (group {found.st_gid}); allowed: {allowed}; use another store"
        )
    return None


def check_owned(paths: "list[str]", trust: str) -> None:
    """Raise ValueError, in one line, unless all of these that are there are to be trusted."""
    for path in paths:
        if os.path.lexists(path) and (problem := ownership_problem(path, trust)):
            raise ValueError(problem)


def snapshot_problem(folder: str, trust: str) -> "str | None":
    """Why a snapshot is not to be run, in one line; None where it is what its name says."""
    folder = folder.rstrip("/")
    remedy = "remove it and say the same spp run or spp retry again"
    try:
        if problem := ownership_problem(folder, trust):
            return problem
        files = {}
        for place, folders, names in os.walk(folder):
            for name in (*folders, *names):
                path = os.path.join(place, name)
                if problem := ownership_problem(path, trust):
                    return problem
                if place == folder and name != "spp" and name not in _BESIDE:
                    return f"snapshot: {path!r} is not of it; allowed: what was submitted; {remedy}"
            for name in names:
                path = os.path.join(place, name)
                if place != folder:
                    with open(path, "rb") as file:
                        files[os.path.relpath(path, os.path.join(folder, "spp"))] = file.read()
    except OSError as error:
        return f"snapshot: {folder!r} cannot be read ({error.strerror}); allowed: what was submitted; {remedy}"
    if hash_of(files) != os.path.basename(folder):
        return f"snapshot: {folder!r} has changed since the submission; allowed: what was submitted; {remedy}"
    return None


def main() -> None:
    folder, trust, *command = sys.argv[1:]
    problem = snapshot_problem(folder, trust)
    if problem is not None:
        sys.exit(f"spp: {problem}")
    if command:
        os.execvp(command[0], command)


if __name__ == "__main__":
    main()
