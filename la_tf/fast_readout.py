"""The linear readouts solved instead of trained: features of central views in memory, scikit-learn's L-BFGS on them.

The objective is that of `la_tf.linear_probe`: mean cross-entropy + (lambda/2) ||kernel||², the bias free. It is convex,
so this is where SGD on the same views would end.
"""

import os
import warnings
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import ThreadpoolController

from data.errors import UserError
from la_tf.readout_pooling import feature_count
from la_tf.trainable import known

MEMORY = max(2**30, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4)  # bytes: a quarter of what there is
LBFGS_VECTORS = 25  # float64 copies of the weights that SciPy's L-BFGS keeps: ten pairs, and five to work with
TOLERANCE = 1e-5  # largest entry of the gradient where the solver ends, for features of unit scale
ITERATIONS = 1000


class Solution(NamedTuple):
    """How the solver came to the weights of one readout."""

    iterations: int
    converged: bool


def bytes_needed(pictures, shapes, pooling, classes):
    """Returns the memory that `solve` takes: all features in float32, one endpoint's in float64, and the solver's."""
    counts = [feature_count(shape, pooling) for shape in shapes.values()]
    return 4 * pictures * sum(counts) + 8 * (pictures + LBFGS_VECTORS * classes) * max(counts)


def check_memory(pictures, shapes, pooling, classes, memory=MEMORY):
    """Raises UserError if `solve` would take more than `memory` bytes."""
    needed = bytes_needed(pictures, shapes, pooling, classes)
    if needed <= memory:
        return
    remedy = "leave out --fast"
    if pooling != "global":
        remedy += f", or set --pooling=global ({bytes_needed(pictures, shapes, 'global', classes) / 1e9:.1f} GB)"
    raise UserError(
        f"--fast: the features of {pictures:,} pictures take {needed / 1e9:.1f} GB with --pooling={pooling}, more than "
        f"the {memory / 1e9:.1f} GB set apart for them: {remedy}"
    )


def solve(model, batches, pictures, memory=MEMORY, iterations=ITERATIONS):
    """Gives every readout of a `LinearReadouts` its best weights on `batches`, of `pictures` pictures in all.

    Returns `{endpoint: Solution}`. Raises UserError if the features take more than `memory` bytes, or show one class.
    """
    classes = next(iter(model.readouts.values())).units
    check_memory(pictures, model.shapes, model.pooling, classes, memory)
    features, labels = cached_features(model, batches, pictures)
    shown = np.unique(labels)
    if len(shown) < 2:
        raise UserError(f"--fast: needs training pictures of two classes at least, found {len(shown)}")
    solutions = {}
    for endpoint, readout in model.readouts.items():
        # In float32 the loss stops falling long before its gradient is 0. Taken out, the cached ones give way.
        kernel, bias, solutions[endpoint] = _solve_one(
            features.pop(endpoint).astype(np.float64), labels, model.weight_decay, iterations
        )
        # A class without pictures is best never told.
        of_all = np.zeros(readout.kernel.shape), np.full(readout.bias.shape, -np.inf)
        of_all[0][:, shown], of_all[1][shown] = kernel, bias
        readout.kernel.assign(of_all[0])
        readout.bias.assign(of_all[1])
    return solutions


def cached_features(model, batches, pictures):
    """Returns the pooled features `{endpoint: [n, d] float32}` and labels `[n]` of all labelled pictures."""
    features = {endpoint: np.empty((pictures, count), np.float32) for endpoint, count in model.feature_counts.items()}
    labels = np.empty(pictures, np.int64)
    n = 0
    for batch in batches:
        chosen = np.flatnonzero(known(batch))
        labels[n : n + len(chosen)] = batch["label"].numpy()[chosen]
        for endpoint, pooled in model.compiled_features(batch["image"]).items():
            features[endpoint][n : n + len(chosen)] = pooled.numpy()[chosen]
        n += len(chosen)
    return {endpoint: cached[:n] for endpoint, cached in features.items()}, labels[:n]


def _solve_one(features, labels, weight_decay, iterations):
    """Returns kernel `[d, K]`, bias `[K]` of the K classes shown, and the Solution; `features` `[n, d]` change."""
    # Shifted by the mean and divided by one number for all, features pose the same problem (the free bias takes the
    # shift, C the number), which L-BFGS solves in fewer steps. A number for each would be another penalty.
    mean = features.mean(axis=0)
    features -= mean
    scale = np.sqrt(np.vdot(features, features) / features.size) or 1.0
    features /= scale
    # Of two classes scikit-learn has one vector w, where the softmax has -w/2 and w/2: half the penalty.
    halves = 2 if len(np.unique(labels)) == 2 else 1
    strength = weight_decay * len(labels) / scale**2
    solver = LogisticRegression(C=halves / strength if strength else np.inf, tol=TOLERANCE, max_iter=iterations)
    with warnings.catch_warnings(record=True) as caught, _one_thread_for_scipy():
        warnings.simplefilter("always")
        solver.fit(features, labels)
    converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
    kernel, bias = solver.coef_.T / scale, solver.intercept_
    if halves == 2:
        kernel, bias = np.concatenate([-kernel, kernel], axis=1) / 2, np.concatenate([-bias, bias]) / 2
    return kernel, bias - mean @ kernel, Solution(int(solver.n_iter_.max()), converged)


def _one_thread_for_scipy():
    """Limits SciPy's BLAS, where it is not NumPy's, to one thread.

    L-BFGS has it add vectors between NumPy's large products; on as many threads as NumPy's, which still wait for work,
    an iteration takes five to twenty times as long.
    """
    libraries = ThreadpoolController()
    of_scipy = [library["filepath"] for library in libraries.info() if "scipy.libs" in library["filepath"]]
    return libraries.select(filepath=of_scipy).limit(limits=1)


def warning(solutions):
    """Returns a line that names the readouts whose solver has not come to its end, None where there are none."""
    unsolved = [endpoint for endpoint, solution in solutions.items() if not solution.converged]
    if not unsolved:
        return None
    iterations = max(solutions[endpoint].iterations for endpoint in unsolved)
    return (
        f"--fast: the solver did not converge for {', '.join(unsolved)} in {iterations} iterations: "
        "set a larger --weight_decay, or leave out --fast"
    )
