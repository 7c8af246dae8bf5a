"""Hydra's sweeper without what rose.run.callback does better, where Hydra looks for plugins."""

from collections.abc import Sequence

from rose.config.compose import basic_sweeper


class Sweeper(basic_sweeper.BasicSweeper):
    """hydra/sweeper=rose"""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Would compose every job once more; they have all been looked at before the sweep starts."""
