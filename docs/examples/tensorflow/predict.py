"""Answers with numpy alone, which the referee has: one class number a line."""

import numpy as np

weights = np.load("model/weights.npz")
inputs = (np.nan_to_num(np.load("inputs.npy")) - weights["mean"]) / weights["scale"]
hidden = np.maximum(inputs @ weights["first"] + weights["first_bias"], 0)
print(*(hidden @ weights["second"] + weights["second_bias"]).argmax(axis=1), sep="\n")
