"""Inference of the program of a data set from the data itself."""
