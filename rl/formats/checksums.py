"""Checksums of files: by them a stage knows its inputs again, and a checkpoint its damage."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

CHUNK = 1 << 20


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    Parameters
    ----------
    path : pathlib.Path

    Returns
    -------
    str

    Raises
    ------
    OSError
        If it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def checksums(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """Return the checksums of files by their names within a folder, sorted.

    Parameters
    ----------
    folder : pathlib.Path
    files : iterable of pathlib.Path
        In it, or deeper.

    Returns
    -------
    dict of str to str
    """
    return {path.relative_to(folder).as_posix(): checksum(path) for path in sorted(files)}


def first_damaged(folder: Path, expected: dict[str, str]) -> str | None:
    """Return the first file of a folder that is not what its checksum says, None if all are.

    Parameters
    ----------
    folder : pathlib.Path
    expected : dict of str to str
        From `checksums`.

    Returns
    -------
    str or None
        The file's name within the folder. One that cannot be read is damaged, too.
    """
    for name, wanted in expected.items():
        try:
            found = checksum(folder / name)
        except OSError:
            return name
        if found != wanted:
            return name
    return None
