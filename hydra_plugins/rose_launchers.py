"""The launchers, where Hydra looks for plugins; what they do is in rose/run/launchers."""

from rose.run.launchers import processes, ray, slurm


class Processes(processes.Processes):
    """hydra/launcher=processes"""


class Slurm(slurm.Slurm):
    """hydra/launcher=slurm, slurm_gpu"""


class Ray(ray.Ray):
    """hydra/launcher=ray"""
