"""What changed between two runs: settings, versions, numbers and texts, beside each other.

compare_runs(first, second) -> RunComparison      differences.py: what differs, as data
write_comparison(compared, "changes.html")        page.py: the same as a page, or as plain text
"""
