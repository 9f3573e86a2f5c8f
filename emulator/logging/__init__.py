"""Cloud Logging, as far as reading what revisions wrote."""
