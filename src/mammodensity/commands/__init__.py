"""The command line. A command parses its options, calls a workflow and shows what it returns."""
