"""What a user's project says in its pyproject.toml, under [tool.gptwin].

twins = ["mypkg.twins:RMS"]     what a command runs if it is given no operation
configs = 3                     most configurations of an autotuned kernel that are run
allow = ["atomic order"]        kinds that sanitize does not report
updates = ["x_ptr"]             arguments of kernels that may be written, though inputs
"""

import dataclasses
import sys
from pathlib import Path

from ..core.checks import refuse

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclasses.dataclass(frozen=True)
class Settings:
    """See above; what the file leaves out is empty.

    Attributes
    ----------
    twins, allow, updates : tuple of str
    configs : int or None
    file : Path or None
        Where they were found.
    """

    twins: tuple[str, ...] = ()
    configs: int | None = None
    allow: tuple[str, ...] = ()
    updates: tuple[str, ...] = ()
    file: Path | None = None


def read_settings(folder: Path | None = None) -> Settings:
    """Read the settings that hold in a folder: those of the nearest pyproject.toml above.

    Parameters
    ----------
    folder : Path, optional
        The current one if left out.

    Returns
    -------
    Settings
        Empty ones if no file has a [tool.gptwin].

    Raises
    ------
    ValueError
        Naming the file, and the key that is unknown or holds something else than it should.
    """
    start = (folder or Path.cwd()).resolve()
    for place in (start, *start.parents):
        file = place / "pyproject.toml"
        if file.is_file():
            return _of(file)
    return Settings()


def _of(file: Path) -> Settings:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        refuse(str(file), "TOML", str(error))
    said = document.get("tool", {}).get("gptwin")
    if said is None:
        return Settings()
    place = f"{file}: tool.gptwin"
    if not isinstance(said, dict):
        refuse(place, "a table", repr(said))
    known = [field.name for field in dataclasses.fields(Settings) if field.name != "file"]
    for key, value in said.items():
        if key not in known:
            refuse(f"{place}.{key}", f"one of {', '.join(known)}", "no such setting")
        if key == "configs":
            if type(value) is not int or value < 1:
                refuse(f"{place}.configs", "a number of configurations, at least 1", repr(value))
        elif not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            refuse(f"{place}.{key}", "a list of strings", repr(value))
    lists = {key: tuple(said.get(key, ())) for key in known if key != "configs"}
    return Settings(configs=said.get("configs"), file=file, **lists)
