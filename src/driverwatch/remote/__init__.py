"""Work done on other machines: a Ray cluster's, Kaggle's, and runs that were trained elsewhere."""
