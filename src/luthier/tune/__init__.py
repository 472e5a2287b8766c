"""Search over settings: which values of which fields, tried in which order, within which budget, resumable.

This layer knows fields by their path and an objective to call; `luthier.project.tune` makes trials of a project.
"""
