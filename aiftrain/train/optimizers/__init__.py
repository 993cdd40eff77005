"""What updates the weights: the optimizers of conf/optimizer, as DeepSpeed wants them."""
