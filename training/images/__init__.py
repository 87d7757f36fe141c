"""Training and test images: reading, batches, augmentation."""
