"""Tables and plots of the documentation: commands are run, and their answers become Markdown."""
