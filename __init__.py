"""The repository as a ComfyUI node pack: nothing is imported until ComfyUI asks for the nodes."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """What ComfyUI loads the pack by (V3 interface, ComfyUI 0.12.0 or later)."""
    from .nodes.extension import VasaExtension

    return VasaExtension()
