"""The report: reads run folders and knows nothing of training."""
