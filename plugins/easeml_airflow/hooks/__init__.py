"""How the plugin reaches the database of Ease.ml."""
