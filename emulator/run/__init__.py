"""Cloud Run Admin API v1."""
