"""Cloud Monitoring, as far as counting requests and their latencies.

`models` counts, `series` aligns and reduces what was counted, `filters` reads Monitoring's filters,
`responses` and `urls` speak the wire format. The counts are in memory: a restart begins anew.
"""
