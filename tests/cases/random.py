"""Densities, and samplers whose parameters are arrays (MXNet gives samplers a zero gradient)."""

from __future__ import annotations

from tests.cases.case import Array, Case, positive, real

COUNTS = Array((2, 3), "index", 1, 6)

ROWS = [
    Case("_random_pdf_normal", (real(2, 3), real(2), positive(2))),
    Case("_random_pdf_normal", (real(2, 3), real(2), positive(2)), {"is_log": True}),
    Case(
        "_random_pdf_uniform",
        (Array((2, 3), "probability"), Array((2,), "unit", values=(-0.3, -0.2)), Array((2,), "above_one")),
    ),
    Case("_random_pdf_gamma", (positive(2, 3), positive(2), positive(2))),
    Case("_random_pdf_gamma", (positive(2, 3), positive(2), positive(2)), {"is_log": True}),
    Case("_random_pdf_exponential", (positive(2, 3), positive(2))),
    Case("_random_pdf_exponential", (positive(2, 3), positive(2)), {"is_log": True}),
    Case("_random_pdf_poisson", (COUNTS, positive(2))),
    Case("_random_pdf_poisson", (COUNTS, positive(2)), {"is_log": True}),
    Case("_random_pdf_negative_binomial", (COUNTS, positive(2), Array((2,), "probability"))),
    Case("_random_pdf_negative_binomial", (COUNTS, positive(2), Array((2,), "probability")), {"is_log": True}),
    Case("_random_pdf_generalized_negative_binomial", (COUNTS, positive(2), positive(2))),
    Case("_random_pdf_generalized_negative_binomial", (COUNTS, positive(2), positive(2)), {"is_log": True}),
    Case("_random_pdf_dirichlet", (Array((2, 2, 3), "simplex"), positive(2, 3))),
    Case("_random_pdf_dirichlet", (Array((2, 2, 3), "simplex"), positive(2, 3)), {"is_log": True}),
]
