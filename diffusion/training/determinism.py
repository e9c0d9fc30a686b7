"""Whether the steps of a run are the same to the last bit each time that a GPU takes them.

GPUs add the parts of some sums in the order in which they are ready, and cuDNN may time its algorithms and take another
one the next time. `training.deterministic` keeps torch from both, at some cost. On CPUs steps are the same anyway.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from diffusion.errors import InputError

# Of the two values that cuBLAS knows, the one that costs memory (24 MB) instead of time.
VARIABLE, WORKSPACE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
# What errors of torch about operations that have no deterministic form all say.
TELLING = "use_deterministic_algorithms"


@contextmanager
def chosen(deterministic: bool) -> Iterator[None]:
    """Makes torch deterministic within the context, or else lets cuDNN time its algorithms and take the fastest.

    All settings are afterwards what they were. Raises InputError for operations without a deterministic form, and where
    cuBLAS has started in another mode.
    """
    cudnn: Any = torch.backends.cudnn
    fill: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    flags, filled, variable = (
        (cudnn.benchmark, cudnn.deterministic),
        fill.fill_uninitialized_memory,
        os.getenv(VARIABLE),
    )
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    if deterministic and started and variable != WORKSPACE:
        raise InputError(
            f"training.deterministic: true, but CUDA has started in this process without {VARIABLE}={WORKSPACE}; set "
            "it before, or train in a process of its own"
        )
    try:
        cudnn.benchmark = not deterministic
        if deterministic:
            os.environ[VARIABLE], cudnn.deterministic = WORKSPACE, True
            # Nothing here reads memory that it has not written.
            fill.fill_uninitialized_memory = False
            torch.use_deterministic_algorithms(True)
        yield
    except RuntimeError as error:
        if not deterministic or TELLING not in str(error):
            raise
        first = str(error).partition(", but")[0].partition(". ")[0]
        raise InputError(f"training.deterministic: true, but {first}; set it to false") from error
    finally:
        cudnn.benchmark, cudnn.deterministic = flags
        fill.fill_uninitialized_memory = filled
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        if variable is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = variable
