"""Pages for people: everything in one file each, so that they open offline, from a folder or from an attachment."""
