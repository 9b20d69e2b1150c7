"""What is differentiated: a net lent by its owner, a loss, batches, and how the samples' losses are added up."""
