"""What a process does before its first job changes nothing that is computed."""

import gc
import subprocess
import sys
import weakref

from rose.run.process import settle


class Link:
    def __init__(self) -> None:
        self.other = self


def test_what_was_imported_is_no_garbage_and_what_comes_later_still_is():
    settle()
    assert gc.get_freeze_count() > 0
    later = Link()  # a circle, which only a collection finds
    seen = weakref.ref(later)
    del later
    gc.collect()
    assert seen() is None


def test_at_its_end_a_process_gives_back_what_it_froze():
    """Triton's bindings, which CUDA's torch imports, else end every job with forty lines of what was leaked."""
    ending = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count())); "
    settled = ending + "from rose.run.process import settle; settle(); assert gc.get_freeze_count() > 0"
    done = subprocess.run([sys.executable, "-c", settled], capture_output=True, text=True)
    assert done.stdout == "0\n", done.stderr
