"""The two networks of the papers, in PyTorch; only `training` knows that they are PyTorch."""
