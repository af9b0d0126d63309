"""Training: one trainer for every policy that has a recipe (`policies.training.recipe`)."""
