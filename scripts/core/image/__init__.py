"""Images: a Dockerfile read, packed without Docker or built with it, and pushed to a registry."""
