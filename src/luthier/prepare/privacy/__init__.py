"""Privacy: find personal data and secrets before anything is learned, and take them out where the user asks for it."""
