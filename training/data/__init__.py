"""Datasets, samples, augmentation, pasted occluders, fake masks and the stream of training examples."""
