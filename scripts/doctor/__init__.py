"""The doctor: what this machine and this folder are fit for, said with the standard library alone (Python 3.8 and later)."""
