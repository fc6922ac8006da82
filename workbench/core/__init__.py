"""What every room stands on: errors, files, records, statistics and progress. Importing it loads no torch."""
