"""How a commit gets to Cloud Run: one file or folder per verb, and the rooms that verbs share."""

from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
"""This program's own folder: where the template is checked out."""
