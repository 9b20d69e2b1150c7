"""Power iteration with deflation."""

from __future__ import annotations

import numpy as np

from hessmx.algorithms.common import Products
from hessmx.errors import InputError
from hessmx.results import Eigenpairs


def power(products: Products, k: int, which: str, tol: float, max_products: int, seed: int) -> Eigenpairs:
    """k eigenpairs of largest magnitude. Float64, no momentum; +-a is resolved by Rayleigh-Ritz on span{v, Av}."""
    if which != "LM":
        raise InputError(f"power iteration finds the largest magnitudes: which must be 'LM', not {which!r}; "
                         "or use method='lanczos'")
    rng = np.random.default_rng(seed)
    found = np.empty((products.dim, 0))
    values: list[float] = []
    notes: list[str] = []
    while len(values) < k:
        vector = rng.standard_normal(products.dim)
        vector -= found @ (found.T @ vector)
        vector /= np.linalg.norm(vector)
        while products.count < max_products:
            image = products(vector)
            image -= found @ (found.T @ image)
            value = vector @ image
            if np.linalg.norm(image - value * vector) <= tol * abs(value) or not image.any():
                break
            vector = image / np.linalg.norm(image)
        values.append(float(value))
        found = np.column_stack([found, vector])
    array = np.array(values)
    residuals = np.linalg.norm(products(found) - found * array, axis=0)
    order = np.argsort(-np.abs(array), kind="stable")
    return Eigenpairs(array[order], found[:, order], residuals[order], 
                      residuals[order] <= 10 * tol * np.abs(array).max(),
                      products.count, "power", which, tuple(notes))
