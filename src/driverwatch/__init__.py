"""Driverwatch: from driver-camera photos to a Kaggle submission, scored honestly on drivers nobody has seen."""
