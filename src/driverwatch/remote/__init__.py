"""Runs on other machines: a notebook on Kaggle, and runs that were trained elsewhere brought in."""
