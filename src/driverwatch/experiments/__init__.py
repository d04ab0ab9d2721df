"""Experiments: train what is missing, score it out of fold, compare in pairs over drivers, record what was found."""
