"""Cloud Logging: the log entries of revisions, and reading them with a filter.

Files: `urls` lists the routes, `responses` speaks the wire format, `models` writes and finds
entries, `files` keeps them on disk, `structured` and `requests` make entries from a container's
lines and from requests, `filters` reads the query language and `matching` compares fields.
"""
