"""Instances: processes or containers of a revision, from its image to their end."""
