"""What goes up to Kaggle."""
