"""Driverwatch: from driver-camera images to a Kaggle submission, scored honestly on drivers nobody has seen."""
