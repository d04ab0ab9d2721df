"""One function per make target: open what a step needs, call the rooms, say what was made and what comes next."""
