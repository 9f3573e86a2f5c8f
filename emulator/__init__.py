"""Cloud Run on one machine: Admin API, registry, front end, instances and logs in one process."""
