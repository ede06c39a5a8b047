"""What happens inside a network while it trains: statistics of its features, probes that take them, figures that show them."""
