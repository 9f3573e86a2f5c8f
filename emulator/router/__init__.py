"""The run.app front end: a URL for each service and each tag."""
