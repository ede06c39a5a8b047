"""What a checkpoint is, how large its features are, and which precision is safe for it."""
