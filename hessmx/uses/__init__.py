"""What people do with curvature. Modules over the facade: a new use is a file here, not a method there."""
