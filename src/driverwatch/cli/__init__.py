"""The command line: one command per artefact; a command's rooms are imported only when it is called."""
