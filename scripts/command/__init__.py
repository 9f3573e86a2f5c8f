"""The command line: the table of verbs, their options, the terminal, the run page."""
