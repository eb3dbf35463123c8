"""BentoML from 1.2 on, as its documentation has it.

KIND=cnn bentoml serve bento:Scores --port PORT
"""

import os

import bentoml
import torch
from networks import Served


@bentoml.service(workers=2)
class Scores:
    def __init__(self) -> None:
        torch.set_num_threads(1)
        self.model = Served(os.environ["KIND"])

    @bentoml.api
    def predict(self, inputs: list[list[float]]) -> dict[str, list[list[float]]]:
        with torch.inference_mode():
            scores = self.model(torch.tensor(inputs))
        return {"outputs": scores.tolist()}
