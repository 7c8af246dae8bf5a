"""The sweeper where Hydra looks for plugins; what it does is in rose/config/compose.py."""

from rose.config import compose


class Sweeper(compose.Sweeper):
    """hydra/sweeper=rose"""
