"""The files of pipelines/: their formats and defaults, and reading and editing YAML."""
