"""A @trial function in whole: torch trains, and the model that is kept answers with numpy alone."""

import json
import tempfile
from pathlib import Path

from airflow.sdk import DAG

from easeml_airflow import operators as easeml
from easeml_airflow.decorators import trial

PREDICT = """
import numpy as np

kept = np.load("model/weights.npz")
inputs = (np.nan_to_num(np.load("inputs.npy")) - kept["mean"]) / kept["scale"]
hidden = np.maximum(inputs @ kept["0.weight"].T + kept["0.bias"], 0)
print(*(hidden @ kept["2.weight"].T + kept["2.bias"]).argmax(axis=1), sep="\\n")
"""

with DAG("cookbook_torch", schedule="@daily", catchup=False, max_active_runs=1):

    @trial(space={"width": {".choice": [32, 64]}, "rate": {".float": [-3, -2], ".scale": "exp"}}, count=4)
    def net(data, parameters, report):
        """Train a network of one hidden layer; the folder that it returns is the model."""
        import numpy as np
        import torch  # here, so that the file is read without it

        torch.manual_seed(0)
        train, held_out = np.nan_to_num(data.train_inputs), np.nan_to_num(data.validation_inputs)  # float32, a row each
        mean, scale = train.mean(axis=0), np.maximum(train.std(axis=0), 1e-6)
        inputs, labels = torch.tensor((train - mean) / scale), torch.tensor(data.train_labels)  # int64, from 0
        first = torch.nn.Linear(inputs.shape[1], parameters["width"])
        network = torch.nn.Sequential(first, torch.nn.ReLU(), torch.nn.Linear(parameters["width"], data.classes))
        optimizer = torch.optim.Adam(network.parameters(), lr=parameters["rate"])
        for epoch in range(60):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(inputs), labels).backward()
            optimizer.step()
            with torch.no_grad():
                answers = network(torch.tensor((held_out - mean) / scale)).argmax(axis=1).numpy()
            report(epoch + 1, float((answers == data.validation_labels).mean()))
        folder = Path(tempfile.mkdtemp())
        (folder / "command.json").write_text(json.dumps({"command": ["python", "predict.py"]}))
        (folder / "predict.py").write_text(PREDICT)
        (folder / "model").mkdir()
        weights = {name: value.numpy() for name, value in network.state_dict().items()}
        np.savez(folder / "model" / "weights.npz", mean=mean, scale=scale, **weights)
        return folder

    register = easeml.RegisterStudyOperator(
        task_id="register",
        tenant="post",
        study="letters",
        source="sklearn:digits",
        candidates=net.candidates,
        keep=True,
    )
    suggest = easeml.SuggestTrialsOperator(task_id="suggest", count=4, studies=["letters"])
    register >> suggest
    net.expand(trial=suggest.output)
