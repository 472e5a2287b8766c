"""Strategies: ways to come to one model that fit more than once. One file each."""
