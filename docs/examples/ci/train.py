"""The training of the example: writes model.skops, and predictions on public data for the other job.

Train in a reproducible way (fixed seeds, pinned versions): a job that is run again for the same commit then submits the
same file, and gets the same answer.
"""

from __future__ import annotations

import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import easeml_core as easeml

inputs, labels = load_breast_cancer(return_X_y=True)
train, test, known, truth = train_test_split(inputs, labels, test_size=0.5, random_state=0)
model = make_pipeline(StandardScaler(), LogisticRegression()).fit(train, known)
easeml.save_fitted(model, "model.skops")

old = GaussianNB().fit(train, known).predict(test)
for name, column, values in (
    ("labels", "label", truth),
    ("old", "prediction", old),
    ("new", "prediction", model.predict(test)),
):
    pd.Series(values, name=column).rename_axis("example").to_csv(f"{name}.csv")
