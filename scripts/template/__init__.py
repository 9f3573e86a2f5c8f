"""The template that this repository was made from: its version, and the owners of its files."""
