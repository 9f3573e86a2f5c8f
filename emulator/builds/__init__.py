"""Cloud Build's triggers: kept and given back. Nothing here runs a build."""
