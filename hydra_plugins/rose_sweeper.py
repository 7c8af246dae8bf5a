"""Hydra's sweeper without the part that rose.sweep does better, where Hydra looks for plugins."""

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper


class Sweeper(BasicSweeper):
    """hydra/sweeper=rose"""

    def validate_batch_is_legal(self, batch: list) -> None:
        """Would compose every job once more; `rose.sweep.Outcome` has looked at them all before the sweep starts."""
