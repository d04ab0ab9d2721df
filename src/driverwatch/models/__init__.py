"""The networks: backbones, weights, and the classifier around them."""
