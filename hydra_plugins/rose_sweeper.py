"""Hydra's sweeper without the part that rose.run.callback does better, where Hydra looks for plugins."""

from rose.config.compose import basic_sweeper


class Sweeper(basic_sweeper.BasicSweeper):
    """hydra/sweeper=rose"""

    def validate_batch_is_legal(self, batch: list) -> None:
        """Would compose every job once more; they have all been looked at before the sweep starts."""
