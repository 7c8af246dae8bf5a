"""A generator for each consumer, by seed and name: results do not depend on the order of jobs."""

import hashlib

import numpy
import torch


def derive(seed: int, name: str) -> int:
    """A 63-bit seed for the consumer `name`."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, name: str) -> torch.Generator:
    """A CPU generator: its stream is the same on every machine."""
    return torch.Generator().manual_seed(derive(seed, name))


def numpy_generator(seed: int, name: str) -> numpy.random.Generator:
    return numpy.random.default_rng(derive(seed, name))
