"""What H and m make of C_i: how skew it lies around its image, how large it is (section 5.2, supplement Figure 1)."""

import numpy as np

from la_tf import clustering
from la_tf.cluster_health import close_sets

CLUSTERINGS = (1, 3, 10)  # H
TIMES = (1 / 4, 1 / 2, 1, 2, 4)  # of a run's own m
NEIGHBORHOOD = 300  # rows around an image that its plane is laid through


def cluster_counts(clusters, size):
    """Returns the values of m around `clusters` for `size` rows, rising; from 2 to half of the rows."""
    return sorted({int(np.clip(round(times * clusters), 2, size // 2)) for times in TIMES})


def cluster_anew(rows, counts, seed, cluster_sample=0, progress=iter):
    """Returns {m: labels `[n, H]`} of `rows` `[n, D]` for every m of `counts` and the largest H.

    Fewer clusterings are the first of more: one H differs from another by what is added to it. `progress` wraps the
    list of counts.
    """
    most = max(CLUSTERINGS)
    return {m: clustering.cluster(rows, m, most, seed, sample=cluster_sample) for m in progress(counts)}


def measure(rows, labels_by_count, seed):
    """Returns a dict for every H and m: means and quartiles of skewness and size of C_i over a sample of images.

    Skewness is the distance from the centre of C_i to v̄_i, the size counts the image itself.
    """
    found = []
    for clusterings in CLUSTERINGS:
        for m, labels in labels_by_count.items():
            skewness, sizes = close_sets(rows, labels[:, :clusterings], seed)
            of_both = {"skewness": _spread(skewness), "size": _spread(sizes)}
            found.append({"clusterings": clusterings, "clusters": m, "images": len(sizes), **of_both})
    return found


def _spread(values):
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {"mean": float(np.mean(values)), "q25": float(low), "median": float(middle), "q75": float(high)}


def typical(rows, labels, seed):
    """Returns the row whose C_i by `labels` `[n, H]` is of median skewness among a sample of all."""
    sample = np.random.default_rng(seed).permutation(len(rows))[:NEIGHBORHOOD]
    members = [np.flatnonzero((labels == labels[row]).any(axis=1)) for row in sample]
    skewness = [
        np.linalg.norm(rows[close].mean(axis=0) - rows[row]) for row, close in zip(sample, members, strict=True)
    ]
    return int(sample[np.argsort(skewness, kind="stable")[len(sample) // 2]])


def plane(rows, row):
    """Returns the points `[n, 2]` of all unit `rows` `[n, D]` in a plane through one, which lies at the origin.

    In that plane the row's neighbours vary most.
    """
    near = np.argsort(-(rows @ rows[row]), kind="stable")[:NEIGHBORHOOD]
    directions = np.linalg.svd(rows[near] - rows[row], full_matrices=False)[2][:2].T
    return rows @ directions - rows[row] @ directions
