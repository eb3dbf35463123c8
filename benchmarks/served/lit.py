"""LitServe, as its documentation has it.

python lit.py KIND PORT WORKERS
"""

import sys
from typing import Any

import litserve
import torch
from networks import Served


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:
        torch.set_num_threads(1)
        self.model = Served(sys.argv[1])

    def decode_request(self, request: dict[str, Any]) -> torch.Tensor:
        return torch.tensor(request["inputs"])

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            scores: torch.Tensor = self.model(x)
        return scores

    def encode_response(self, output: torch.Tensor) -> dict[str, Any]:
        return {"outputs": output.tolist()}


if __name__ == "__main__":
    workers = int(sys.argv[3])
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=workers)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[2]),
        num_api_servers=workers,
        generate_client_file=False,
        log_level="warning",
    )
