"""Cloud Monitoring: the number of requests and their latencies, read as time series.

Files: `urls` lists the routes, `responses` speaks the wire format, `models` counts, `distribution`
holds latencies, `aggregation` aligns and reduces series, `filters` reads Monitoring's filters. The
counts are in memory: a restart sets them to zero.
"""
