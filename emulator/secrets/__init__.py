"""Secret Manager, as far as delivery reads it: secrets, their versions, and their values."""
