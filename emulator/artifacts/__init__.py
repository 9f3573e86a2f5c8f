"""Artifact Registry's own API: repositories, and the packages, versions, tags and images in them.

The images themselves are in `emulator/registry`. Files: `urls` lists the routes, `responses` speaks
the wire format, `models` reads and deletes images, `repositories` keeps the repositories that were
created, and `cleanup` checks their clean-up policies.
"""
