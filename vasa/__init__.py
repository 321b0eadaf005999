"""vasa: one portrait and a speech clip become a talking-face video."""

from .controls import Controls
from .errors import InputError
from .latents import EMOTIONS, FaceLatents, Motion
from .pipeline import Vasa

try:
    from .animate import Result, animate
except ModuleNotFoundError as error:
    # the engine needs neither PyAV nor a detector, and runs without them where files are not its business
    if (error.name or "").partition(".")[0] not in ("av", "skimage"):
        raise
    _missing = error.name

    def __getattr__(name: str) -> object:
        if name in ("Result", "animate"):
            raise ImportError(f"vasa.{name} reads and writes files and needs {_missing}; install it with pip")
        raise AttributeError(f"module 'vasa' has no attribute {name!r}")


__all__ = ["EMOTIONS", "Controls", "FaceLatents", "InputError", "Motion", "Result", "Vasa", "animate"]
__version__ = "0.1.0"
