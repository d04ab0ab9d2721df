"""`make doctor`: what this machine and this folder are fit for, what is not, and what to do about it."""
