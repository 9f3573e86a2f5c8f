"""How a commit gets to Cloud Run: one file per verb; what they share is in core/."""
