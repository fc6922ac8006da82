"""Live widgets, one file triple per view (.py, .js, .css), standing on records, figures and views.

The package is here so that its import contract holds from the first day; the widgets come with the lens.
"""

from __future__ import annotations
