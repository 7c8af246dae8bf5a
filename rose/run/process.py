"""What a process that computes does once, before its first job."""

import atexit
import ctypes
import functools
import gc

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's numbers, malloc.h
KEPT = 64 << 20  # bytes that a process has freed and need not give back


@functools.cache
def settle() -> None:
    """Takes what is imported by now for no garbage, and keeps freed memory for the next batch.

    Trainer collects garbage before and after every training, and goes through all of torch for it:
    half a second. glibc gives each large tensor's pages back, and the kernel clears new ones for the next.
    """
    gc.freeze()
    atexit.register(gc.unfreeze)  # else Triton's bindings report at the end all that was frozen, as leaked
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not where the C library is another
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, KEPT // 2)
        mallopt(TRIM_THRESHOLD, KEPT)
