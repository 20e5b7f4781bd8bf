"""From files to arrays: data sources, and the stores that stages hand to each other."""
