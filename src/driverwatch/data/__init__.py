"""Tables, drawn competitions, driver folds and packed images."""
