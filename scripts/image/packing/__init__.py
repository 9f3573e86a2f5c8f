"""Packs an image without Docker, from the Dockerfile."""
