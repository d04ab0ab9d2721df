"""Predictions and how they are made."""
