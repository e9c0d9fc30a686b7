"""How one of several processes ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import alone

# What is alive at the end of the interpreter says so.
PROGRAM = """
import atexit, sys
from diffusion import launched

class Alive:
    def __del__(self):
        print("the interpreter ended")

alive = Alive()
atexit.register(print, "registered")
print("done", end="; ")
sys.exit(launched.leave(3))
"""


# As torchrun starts functions.
FORKED = """
import multiprocessing
from diffusion import launched

def function(returned):
    returned.put(launched.leave(3))

context = multiprocessing.get_context("fork")
returned = context.SimpleQueue()
process = context.Process(target=function, args=(returned,))
process.start()
process.join()
print(process.exitcode, returned.empty() or returned.get())
"""


def test_a_process_of_multiprocessing_hands_over_what_it_returns() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, env={**alone(), "WORLD_SIZE": "2"}
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "0 3\n", "")


@pytest.mark.parametrize(
    ("processes", "said"), [(1, "done; registered\nthe interpreter ended\n"), (2, "done; registered\n")]
)
def test_one_of_several_processes_ends_without_the_end_of_the_interpreter(processes: int, said: str) -> None:
    env = {**alone(), "WORLD_SIZE": str(processes)}
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=env)
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, said, "")
