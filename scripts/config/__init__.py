"""What pipelines/ says: formats, defaults, and reading and editing YAML."""
