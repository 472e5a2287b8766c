"""Labels from little: sources that vote on rows without a label, one a file, and what is made of their votes."""
