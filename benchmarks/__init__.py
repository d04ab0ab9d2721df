"""How fast the line is beside named rivals and physical limits (`make bench`), and where a training step's time goes."""
