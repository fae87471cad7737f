"""The model as a torch module that MONAI's engines run; the graph is ONNX Runtime's."""

import onnxruntime
import torch
from torch import Tensor, nn

WANTED = ("CUDAExecutionProvider", "CPUExecutionProvider")


class OnnxNetwork(nn.Module):
    """Colours float32 [B, 3, S, S] in 0..1 to class logits [B, C]."""

    def __init__(self, path: str) -> None:
        """Open the graph `path`."""
        super().__init__()
        there = onnxruntime.get_available_providers()
        providers = [name for name in WANTED if name in there]
        self.session = onnxruntime.InferenceSession(path, providers=providers)

    def forward(self, image: Tensor) -> Tensor:
        """[B, C], on the device of the images."""
        asked = {"image": torch.as_tensor(image).detach().cpu().numpy()}
        return torch.from_numpy(self.session.run(["logits"], asked)[0]).to(image.device)
