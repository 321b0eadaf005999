"""The face model: portrait -> latents -> picture."""
