"""Arrays in, arrays out: augmentation and test-time views."""
