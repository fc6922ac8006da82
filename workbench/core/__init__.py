"""The room that all others import: errors, files, records, statistics and progress. Importing it loads no torch."""
