"""The template that this repository was made from: who owns which file, which version this is."""
