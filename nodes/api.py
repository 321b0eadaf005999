"""ComfyUI's V3 interface where ComfyUI runs, else the part of it that our nodes use (`schema`)."""

from __future__ import annotations

import sys

# ComfyUI loads this module long before any pack; outside of it the name does not exist
IN_COMFYUI = "folder_paths" in sys.modules

if IN_COMFYUI:
    from comfy_api.latest import ComfyExtension, InputImpl, io, ui

    VideoFromFile = InputImpl.VideoFromFile
else:
    from .core_video import VideoFromFile
    from .schema import ComfyExtension, io, ui

__all__ = ["IN_COMFYUI", "ComfyExtension", "VideoFromFile", "io", "ui"]
