"""LA's loss and gradient as its public PyTorch port forms them: all probabilities, `topk`, labels, autograd.

Run by benchmarks/neighbors.py in an environment of its own; nothing of la_tf is imported.
"""

import torch
from torch_process import serve


def make_work(size, dimension, batch, k, tau, clusterings, clusters, threads):
    """Returns a function that takes one loss and gradient on random rows."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    bank = torch.nn.functional.normalize(torch.randn(size, dimension))
    labels = torch.randint(clusters, (clusterings, size))
    indices = torch.randint(size, (batch,))
    embeddings = torch.nn.functional.normalize(bank[indices] + 0.05 * torch.randn(batch, dimension))

    def work():
        v = embeddings.clone().requires_grad_()
        products = v @ bank.t()  # [B, N]
        probabilities = torch.exp(products / tau) / (2876934.2 / 1281167 * size)
        background, rows = torch.topk(probabilities, k, sorted=False, dim=1)
        close = torch.zeros_like(rows, dtype=torch.bool)
        for of_all in labels:
            close |= of_all[rows] == of_all[indices][:, None]
        relative = (background * close).sum(dim=1) / background.sum(dim=1)
        (-torch.log(relative + 1e-7)).mean().backward()
        return v.grad

    return work


if __name__ == "__main__":
    serve(make_work)
