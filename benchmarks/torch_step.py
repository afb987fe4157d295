"""The training step of `benchmarks.train_step` in PyTorch: its side of the comparison, run by `torch_process`."""

import torch
from torch import nn
from torch.nn import functional
from torch_process import serve

STAGES = (1, 2, 4, 8)  # channels of a stage as multiples of the width; each has two units
BATCH_NORM = {"eps": 1e-5, "momentum": 0.1}  # PyTorch's momentum is the weight of the new


class Unit(nn.Module):
    """Two 3x3 convolutions, each on a batch-normed and rectified input, and a shortcut."""

    def __init__(self, before, channels, stride, first):
        super().__init__()
        self.projection = nn.Conv2d(before, channels, 1, stride, bias=False) if first else None
        self.norm1 = None if first else nn.BatchNorm2d(before, **BATCH_NORM)
        self.convolution1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels, **BATCH_NORM)
        self.convolution2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)

    def forward(self, x):
        shortcut = x if self.projection is None else self.projection(x)
        x = x if self.norm1 is None else functional.relu(self.norm1(x), inplace=True)
        x = functional.relu(self.norm2(self.convolution1(x)), inplace=True)
        return shortcut + self.convolution2(x)


class Embedder(nn.Module):
    """The pre-activation ResNet-18 of `models.resnet`, pooled, in a linear layer of D = 128, at unit length."""

    def __init__(self, width, imagenet_stem):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        size, stride = (7, 2) if imagenet_stem else (3, 1)
        self.stem = nn.Conv2d(3, width, size, stride, size // 2, bias=False)
        self.pool = nn.MaxPool2d(3, 2, 1) if imagenet_stem else nn.Identity()
        layers, channels = [nn.BatchNorm2d(width, **BATCH_NORM), nn.ReLU(inplace=True)], width
        for number, multiple in enumerate(STAGES):
            layers.append(Unit(channels, width * multiple, 1 if number == 0 else 2, first=True))
            channels = width * multiple
            layers += [Unit(channels, channels, 1, first=False), nn.BatchNorm2d(channels, **BATCH_NORM)]
            layers.append(nn.ReLU(inplace=True))
        self.stages = nn.Sequential(*layers)
        self.embedding = nn.Linear(channels, 128)

    def forward(self, images):
        x = self.stages(self.pool(self.stem((images - self.mean) / self.std)))
        return functional.normalize(self.embedding(x.mean((2, 3))), dim=1)


def training_step(width, side, batch, threads):
    """Returns a function that takes one step on a batch of random pictures."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    # Channels last is PyTorch's fastest layout on a CPU.
    model = Embedder(width, imagenet_stem=side > 64).to(memory_format=torch.channels_last)
    kernels = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim == 1]
    groups = [{"params": kernels, "weight_decay": 1e-4}, {"params": others, "weight_decay": 0}]
    optimizer = torch.optim.SGD(groups, 0.03, momentum=0.9)
    images = torch.rand(batch, 3, side, side).to(memory_format=torch.channels_last)

    def step():
        optimizer.zero_grad()
        model(images).mean().backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    serve(training_step)
