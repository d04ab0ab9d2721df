"""Ensembles of finished runs: scores of their members, and pseudo-labels that they make together."""
