"""This machine: the git clone, scratch copies, the virtual environment."""
