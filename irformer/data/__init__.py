"""What training and evaluation read: sources of images, samples, packed stores and test sets."""
