"""The referee: the process with the sealed role, which claims requests and publishes answers."""
