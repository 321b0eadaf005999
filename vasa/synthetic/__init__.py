"""Rendered talking heads with exact labels, and the speech and motion that drive them."""
