"""The front end, in the place of run.app: a URL for each service and each tag."""
