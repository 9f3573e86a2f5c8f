"""One service in its regions: what the releasing verbs share."""
