"""A run's folder: who writes to it, which stages have ended there, and whether they may rest."""

import contextlib
import dataclasses
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from ..core.checks import refuse
from ..records import WRITING
from .configuration import Configuration
from .ranks.group import Group
from .training.inputs import Inputs, expect_same_inputs, read_ended
from .training.lock import only_writer
from .training.run import CHECKPOINTS, LOG, SETTINGS

PLOTS = "plots"
# How the names begin of what only tells of a stage: later stages do not need it.
TELLING = (PLOTS, LOG, SETTINGS, "best_of_n")


@dataclasses.dataclass
class RunFolder:
    """The folder of a run, and what its stages have left there.

    Attributes
    ----------
    configuration : Configuration
        The resolved settings.
    group : Group
        The ranks.
    resume, quiet, skip_bad_lines : bool
        As in `run.train` and `data.DataFile`.
    """

    configuration: Configuration
    group: Group = dataclasses.field(default_factory=Group)
    resume: bool = False
    quiet: bool = False
    skip_bad_lines: bool = False
    _is_writing: bool = dataclasses.field(default=False, init=False)

    def folder(self, stage: str) -> Path:
        """Return a stage's folder."""
        return Path(self.configuration.run.directory) / stage

    def say(self, line: str) -> None:
        """Tell the user something, once whatever the number of ranks."""
        if self.group.is_main:
            print(line, file=sys.stderr)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only one that writes to the run's folder while the context lasts."""
        if self._is_writing or not self.group.is_main:
            yield
            return
        root = Path(self.configuration.run.directory)
        with only_writer(root):
            self._is_writing = True
            for left_over in (*root.glob(f"{WRITING}*"), *root.glob(f"*/**/{WRITING}*")):
                shutil.rmtree(left_over, ignore_errors=True)  # of a process that was killed
            try:
                yield
            finally:
                self._is_writing = False

    def ended(self, stage: str) -> bool:
        """Say whether a stage has ended and left what the next one needs."""
        ended = read_ended(self.folder(stage))
        return ended is not None and not ended.damaged(self.folder(stage))

    def rests(self, stage: str, inputs: Inputs) -> bool:
        """Say whether nothing of a stage is left to do.

        Parameters
        ----------
        stage : str
        inputs : dict
            From `inputs`.

        Returns
        -------
        bool

        Raises
        ------
        ValueError
            If it has ended, from other inputs.
        """
        folder = self.folder(stage)
        ended = read_ended(folder)
        if ended is None:
            return False
        expect_same_inputs(ended.inputs, inputs, folder)
        c = self.configuration.ppo
        if stage == "ppo" and ended.steps != c.episodes // c.batch:
            return False
        damaged = ended.damaged(folder)
        needed = [name for name in damaged if not name.startswith(TELLING)]
        if (folder / CHECKPOINTS).exists():
            for name in damaged:
                if name != LOG:  # which cannot be written again: the run that goes on says so
                    self.say(f"Warning: {folder / name} is damaged: writing it again")
            return not damaged
        if needed:
            cause = "a damaged disk; there is no checkpoint to write it again from"
            refuse(str(folder / needed[0]), f"the file that {stage} left", "another", cause)
        for name in damaged:
            self.say(f"Warning: {folder / name} is damaged, and there is no checkpoint")
        return True

    def _expect_ended(self, stage: str) -> None:
        folder = self.folder(stage)
        ended = read_ended(folder)
        if ended is None:
            cause = f"{stage} has not been trained: gptwin train {stage} (--resume if it was cut)"
            refuse("run.directory", f"a run in which {stage} has ended", str(folder), cause)
        for name in ended.damaged(folder):
            if not name.startswith(TELLING):
                cause = f"a damaged disk, or an edit: gptwin train {stage} --resume writes it again"
                refuse(str(folder / name), f"the file that {stage} left", "another", cause)
