"""Cloud Run Admin API v1: services, revisions, traffic, conditions, policies and operations.

On the way of a request: `urls` lists the routes and `responses` speaks the wire format; `models`
reads, writes and deletes, `policies` and `operations` do so for IAM and long-running operations.
A write is checked by `schema` (shape), `service_rules`, `metadata_rules` and `traffic_rules`,
completed by `defaults` and `documents`, and stored by `resources`.

After a write: `reconcile` moves the traffic, and `starting` starts a new revision. The texts of its
failures are in `emulator/instances/start_failures.py`. Both use `launches`, `scale`, `quantities`,
`traffic` and `conditions`; `limits` finds surplus revisions and tags.
"""
