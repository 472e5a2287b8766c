"""Serve a release: OpenAI-compatible API, engine seam and chat page."""
