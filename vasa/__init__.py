"""vasa: one portrait and a speech clip become a talking-face video."""

from .animate import Result, animate
from .controls import Controls
from .errors import InputError
from .latents import EMOTIONS, FaceLatents, Motion
from .pipeline import Vasa

__all__ = ["EMOTIONS", "Controls", "FaceLatents", "InputError", "Motion", "Result", "Vasa", "animate"]
__version__ = "0.1.0"
