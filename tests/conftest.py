"""What must be set before the tests import anything: threads before PyTorch, the interpreter before Triton."""

import asyncio
import gc
import os
import warnings

# the tests' processes share the cores, and so do the processes that they start
_PROCESSES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _PROCESSES)))

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
