"""Google over REST: sessions, Cloud Run, logs, images in a registry, ID tokens."""
