"""Pixels: reading image files, colour and gray, resizing."""
