"""Devices of a host: which there are, and one training on several of them."""
