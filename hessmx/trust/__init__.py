"""Can it be believed: checks of a net, the operators it is made of, and the test of a tangent rule."""
