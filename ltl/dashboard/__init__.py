"""What loggers such as Weights & Biases are told, and the workspace that shows it there (docs/dashboards.md)."""
