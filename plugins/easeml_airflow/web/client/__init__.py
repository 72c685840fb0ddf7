"""What a program of somebody's needs to use a study: one file, handed out by the page and part of nothing here."""
