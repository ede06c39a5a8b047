"""What a checkpoint is, how large its features are, and which precision it bears."""
