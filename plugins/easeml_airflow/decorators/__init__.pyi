from .training_function import trial as trial
