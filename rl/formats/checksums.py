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


def damaged(folder: Path, expected: dict[str, str]) -> list[str]:
    """List the files of a folder that are not what their checksums say.

    Parameters
    ----------
    folder : pathlib.Path
    expected : dict of str to str
        From `checksums`.

    Returns
    -------
    list of str
        Their names within the folder. One that cannot be read is damaged, too.
    """
    return [name for name, wanted in expected.items() if _checksum(folder / name) != wanted]


def _checksum(path: Path) -> str | None:
    try:
        return checksum(path)
    except OSError:
        return None
