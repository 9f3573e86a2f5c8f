"""What the verbs share. What decides (manifest, traffic, release) is pure; what acts is thin."""

from pathlib import Path

HOME = Path(__file__).resolve().parents[2]
"""This program's own folder: where the template is checked out."""
