"""The command line: one verb per artefact; a verb's rooms are imported only when it is called."""
