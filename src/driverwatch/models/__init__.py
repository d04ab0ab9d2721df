"""The networks: trunks, weights, and the classifier around them."""
