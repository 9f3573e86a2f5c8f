"""One service in its regions: what the verbs that release share."""
