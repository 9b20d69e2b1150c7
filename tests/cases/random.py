"""Densities, and samplers whose parameters are arrays (MXNet gives samplers a zero gradient)."""

from __future__ import annotations

from tests.cases.case import Array, Case, positive, real

SAMPLERS = {  # operator: parameters
    "_sample_normal": (real(2), positive(2)),
    "_sample_uniform": (real(2), Array((2,), "above_one")),
    "_sample_gamma": (positive(2), positive(2)),
    "_sample_exponential": (positive(2),),
    "_sample_poisson": (positive(2),),
    "_sample_negative_binomial": (Array((2,), "above_one"), Array((2,), "probability")),
    "_sample_generalized_negative_binomial": (positive(2), positive(2)),
    "_sample_multinomial": (Array((2, 3), "simplex"),),
}
LIKE = ("normal", "uniform", "gamma", "exponential", "poisson", "negative_binomial", "generalized_negative_binomial")
NUMPY = {  # operator: parameters as arrays, names of the attributes that would hold them as numbers
    "_npi_pareto": ((positive(3),), ("a",)),
    "_npi_weibull": ((positive(3),), ("a",)),
    "_npi_powerd": ((positive(3),), ("a",)),
    "_npi_rayleigh": ((positive(3),), ("scale",)),
    "_npi_exponential": ((positive(3),), ("scale",)),
    "_npi_normal": ((real(3), positive(3)), ("loc", "scale")),
    "_npi_normal_n": ((real(3), positive(3)), ("loc", "scale")),
    "_npi_logistic": ((real(3), positive(3)), ("loc", "scale")),
    "_npi_gumbel": ((real(3), positive(3)), ("loc", "scale")),
    "_npi_gamma": ((positive(3), positive(3)), ("shape", "scale")),
    "_npi_uniform": ((real(3), Array((3,), "above_one")), ("low", "high")),
}

COUNTS = Array((2, 3), "index", 1, 6)

ROWS = (
    [
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
    + [Case(op, inputs, random=True) for op, inputs in SAMPLERS.items()]
    + [Case(f"_random_{law}_like", (real(2, 3),), random=True) for law in LIKE]
    + [Case(op, inputs, dict.fromkeys(names), random=True, dtype="float32") for op, (inputs, names) in NUMPY.items()]
    + [
        Case("_sample_multinomial", (Array((2, 3), "simplex"),), {"get_prob": True, "shape": (2,)}, random=True),
        Case(
            "_npi_bernoulli",
            (Array((3,), "probability"),),
            {"prob": None, "logit": None, "is_logit": False},
            random=True,
        ),
        Case("_shuffle", (real(3, 2),), random=True, first="raises"),
    ]
)
