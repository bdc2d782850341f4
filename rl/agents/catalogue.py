"""The agents by name, each where its class is: importing one leaves the others alone.

An agent's class is what interface.py calls an `Agent`.
"""

import importlib
from typing import Any

from ...core.checks import refuse

AGENTS = {
    "lamda": "lamda.agent:Lamda",
    "sparrow": "sparrow.agent:Sparrow",
    "hh": "hh.agent:HH",
    "blenderbot": "blenderbot.agent:BlenderBot",
}


def agent(name: str) -> Any:
    """Return an agent's class.

    Parameters
    ----------
    name : str
        A key of `AGENTS`.

    Returns
    -------
    type
        An `interface.Agent`.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    if name not in AGENTS:
        refuse("agent", f"one of {', '.join(AGENTS)}", repr(name))
    module, _, kind = AGENTS[name].partition(":")
    return getattr(importlib.import_module(f".{module}", __package__), kind)
