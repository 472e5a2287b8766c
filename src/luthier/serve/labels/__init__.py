"""Serving classifiers, taggers, embedders and image models: decisions, batching, explanations, routes, page."""
