"""The motion generator: audio features and controls -> head pose and facial dynamics."""
