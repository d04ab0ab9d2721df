"""Tables, synthetic competitions, driver folds and packed images."""
