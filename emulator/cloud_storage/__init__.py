"""Cloud Storage, as builds and their clients use it: buckets, and objects with one generation."""
