"""Questions put to the pipeline as a whole: each trains what is missing, scores it out of fold, and leaves a record."""
