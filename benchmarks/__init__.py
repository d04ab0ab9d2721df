"""How fast the pipeline is beside named baselines and physical limits (`make bench`), and where a training step's time goes."""
