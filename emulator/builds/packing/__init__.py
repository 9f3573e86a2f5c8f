"""Pack an image without Docker, from the Dockerfile."""
