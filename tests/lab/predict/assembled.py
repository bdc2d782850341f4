"""SASS written by hand, with the control fields that a test asks for. Not tests."""

from gptwin.lab.inspect.sass import Instruction, parse

LINE = "        /*{at:04x}*/                   {text} ;      /* 0x0000000000000000 */\n"
UPPER = "                                        /* 0x{upper:016x} */\n"


def control(*, stall=1, yields=False, write=7, read=7, wait=0, reuse=0) -> int:
    """Encode the control fields: bits 41 and up of the upper half."""
    fields = stall | (not yields) << 4 | write << 5 | read << 8 | wait << 11 | reuse << 17
    return fields << 41


def listing(*code) -> str:
    """Write instructions as nvdisasm -hex does; a string is a label, of a branch's target."""
    text, at = "", 0
    for item in code:
        if isinstance(item, str):
            text += f"{item}:\n"
            continue
        words, fields = item
        text += LINE.format(at=at, text=words) + UPPER.format(upper=control(**fields))
        at += 16
    return text


def loop_of(*body, stall=1) -> list[Instruction]:
    """Make a program that is one loop: the body, a branch back, and the end."""
    back = ("@P0 BRA `(.L_1)", {"stall": stall})
    return parse(listing(".L_1", *body, back, ("EXIT", {})))


def op(text, **fields):
    """Write one instruction."""
    return text, fields
