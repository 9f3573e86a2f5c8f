"""Cloud Build's triggers, which are stored and read. Nothing here runs a build."""
