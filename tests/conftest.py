"""What must be set before the tests import anything: threads before PyTorch, the interpreter before Triton."""

import asyncio
import gc
import os
import warnings

# the tests' processes share the cores, and so do the processes that they start; with more threads than cores everything
# takes three times as long
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    _THREADS = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _THREADS)))

import pytest  # noqa: E402
import torch  # noqa: E402

# it runs the kernels on CPU tensors
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
