"""Modules that a user of Lightsweep may have, as text: tests write them into folders of their own."""

MY_NET = """
import torch


class MyNet(torch.nn.Module):
    def __init__(self, num_classes: int, hidden: int = 16):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(64, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, num_classes)
        )

    def forward(self, images):
        return 1.0 * self.layers(images)
"""

FRAGILE_NET = """
import torch


class Fragile(torch.nn.Module):
    def __init__(self, limit: int):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        self.limit, self.calls = limit, 0

    def forward(self, images):
        self.calls += self.training
        if self.calls > self.limit:
            raise RuntimeError(f"no more than {self.limit} steps")
        return self.net(images)
"""
