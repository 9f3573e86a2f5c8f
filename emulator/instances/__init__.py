"""Instances: a revision's processes, from its image to their end."""
