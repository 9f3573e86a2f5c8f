"""One service in its regions, for the verbs that release."""
