"""What peers' libraries print while they are measured: kept, and shown where it is of use."""

from rich.console import Console

MOST_LINES = 60


def show_messages(messages: str, console: Console) -> None:
    """Print the last lines of what libraries printed; nothing if they were silent."""
    lines = messages.rstrip().splitlines()
    if len(lines) > MOST_LINES:
        console.print(f"  ({len(lines) - MOST_LINES} lines before these)", highlight=False)
    for line in lines[-MOST_LINES:]:
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
