"""HTTP for operators: metrics, readiness, explanations."""
