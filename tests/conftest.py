"""Triton's interpreter runs the kernels on CPU tensors; it must be asked for before anything imports Triton."""

import asyncio
import gc
import os
import warnings

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="module")
def tidy():
    """Servers and clients leave sockets and event loops to the garbage collector; that is theirs to mend."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            loop = asyncio.get_event_loop_policy().get_event_loop()
        except RuntimeError:
            return  # a module before this one has left none
        loop.close()
        asyncio.set_event_loop(None)
        gc.collect()
