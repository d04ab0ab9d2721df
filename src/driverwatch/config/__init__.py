"""Settings: typed, each default once, one small YAML that says what differs."""
