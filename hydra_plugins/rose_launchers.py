"""The launchers where Hydra looks for plugins, which is this namespace alone; what they do is in rose/launchers."""

from rose.launchers import processes


class Processes(processes.Processes):
    """hydra/launcher=processes"""
