"""The metadata server that instances ask where they are and who they are."""
