"""The metadata server, which tells an instance its place, its account, and its tokens."""
