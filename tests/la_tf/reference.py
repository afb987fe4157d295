"""Local Aggregation written a second time, row by row in float64 NumPy: what the tests compare with."""

import numpy as np


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def background(v, bank, written, k):
    """The k written rows with the largest similarity, ties to the lowest index."""
    similarity = bank @ v
    candidates = [j for j in range(len(bank)) if written[j]]
    return sorted(candidates, key=lambda j: (-similarity[j], j))[:k]


def close(i, cluster_labels):
    """The union over the clusterings of the cluster that image i is in."""
    members = {i}
    for h in range(cluster_labels.shape[1]):
        label = cluster_labels[i, h]
        if label >= 0:
            members |= {j for j in range(len(cluster_labels)) if cluster_labels[j, h] == label}
    return members


def local_aggregation(embeddings, bank, written, indices, cluster_labels, k, tau):
    """Loss [B] and the gradient of their sum by the embeddings [B, D] (equation 3, differentiated by hand)."""
    backgrounds = [background(v, bank, written, k) for v in embeddings]
    return of_sets(embeddings, bank, backgrounds, [close(i, cluster_labels) for i in indices], tau)


def of_sets(embeddings, bank, backgrounds, closes, tau):
    """The same for any B_i, lists of rows, and C_i, sets of rows."""
    losses, gradients = [], []
    for v, b, c in zip(embeddings, backgrounds, closes, strict=True):
        weights = {j: np.exp(bank[j] @ v / tau) for j in b}
        total = sum(weights.values())
        close_total = sum(weight for j, weight in weights.items() if j in c)
        if close_total == 0:
            losses.append(-np.log(1e-7))
            gradients.append(np.zeros_like(v))
            continue
        losses.append(-np.log(close_total / total))
        pull = sum(weight * bank[j] for j, weight in weights.items() if j in c) / close_total
        push = sum(weight * bank[j] for j, weight in weights.items()) / total
        gradients.append((push - pull) / tau)
    return np.array(losses), np.array(gradients)


def instance_recognition(embeddings, bank, indices, tau):
    """Loss [B] and the gradient of their sum by the embeddings [B, D] (equation 1)."""
    weights = np.exp(embeddings @ bank.T / tau)
    p = weights / weights.sum(axis=1, keepdims=True)
    losses = -np.log(p[np.arange(len(indices)), indices])
    return losses, (p @ bank - bank[indices]) / tau


def noise_contrastive(embeddings, bank, indices, noise, normalizer, tau):
    """Loss [B] and the gradient of their sum by the embeddings [B, D] for noise rows [B, m] (Wu et al., eq. 5 to 7)."""
    losses, gradients = [], []
    for v, i, drawn in zip(embeddings, indices, noise, strict=True):
        scale = len(drawn) / len(bank)  # m P_n
        p = np.exp(bank[i] @ v / tau) / normalizer
        q = np.exp(bank[drawn] @ v / tau) / normalizer
        losses.append(-np.log(p / (p + scale)) - np.log(1 - q / (q + scale)).sum())
        # d(-log h)/d(log P) = -(1 - h), d(-log(1 - h))/d(log P) = h, and d(log P)/dv = v̄ / tau.
        by_own = -(1 - p / (p + scale)) * bank[i]
        gradients.append((by_own + (q / (q + scale)) @ bank[drawn]) / tau)
    return np.array(losses), np.array(gradients)


def through_unit_linear(inputs, weights, embedding_gradients):
    """Gradient by `weights` [P, D] of a loss whose gradient by v = unit(inputs @ weights) is given."""
    raw = inputs @ weights
    v = unit(raw)
    along = (embedding_gradients * v).sum(axis=1, keepdims=True)
    return inputs.T @ ((embedding_gradients - along * v) / np.linalg.norm(raw, axis=1, keepdims=True))


def bank_after(bank, indices, embeddings, momentum):
    """Equation 5 and back to unit length; of duplicates the last occurrence writes, onto the old row."""
    after = bank.copy()
    for i, v in zip(indices, embeddings, strict=True):
        after[i] = unit((1 - momentum) * bank[i] + momentum * v)
    return after
