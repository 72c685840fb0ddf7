"""Neural networks, their layers and architectures."""
