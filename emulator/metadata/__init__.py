"""The metadata server, which gives an instance its place, its account, and its tokens."""
