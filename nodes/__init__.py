"""ComfyUI nodes over vasa's public API; `extension` registers them, `headless` runs workflow files without ComfyUI."""
